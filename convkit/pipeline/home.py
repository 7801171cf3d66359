"""Where this user's own files go, also where there is no home: in containers whose user is but a number."""

from __future__ import annotations

import os
import pwd
import stat
import tempfile
from pathlib import Path

from convkit.errors import MissingError


def home() -> Path | None:
    """Return this user's home; None where there is none."""
    try:
        folder = Path.home()
    except RuntimeError:  # no HOME, and no entry in the password file
        return None
    return folder if folder != Path(folder.anchor) and folder.is_dir() else None


def home_variables(scratch: Path) -> dict[str, str]:
    """Return what a worker needs in its environment where this user has no home or no name: libraries ask for both."""
    variables = {} if home() is not None else {"HOME": str(scratch)}
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        variables |= {name: f"user{os.getuid()}" for name in ("USER", "LOGNAME") if not os.environ.get(name)}
    return variables


def default_root() -> Path:
    """Return the cache's folder: CONVKIT_CACHE_DIR, else the XDG cache folder, else one in the user's home.

    Where there is no home: one of this user's own in the temporary folder.

    Raises:
        MissingError: that one is another's, or open to others; or there is no temporary folder either.
    """
    if named := os.environ.get("CONVKIT_CACHE_DIR"):
        return Path(named).absolute()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg, "convkit")
    folder = home()
    if folder is not None and _can_be_made(folder / ".cache" / "convkit"):
        return folder / ".cache" / "convkit"
    return _private_temporary_folder()


def _can_be_made(folder: Path) -> bool:
    """Tell whether a folder can be written in, or be made."""
    there = next(path for path in (folder, *folder.parents) if os.access(path, os.F_OK))
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _private_temporary_folder() -> Path:
    """Return a folder that only this user can write in; nobody else may have laid it there.

    Raises:
        MissingError: see `default_root`.
    """
    hint = "name a writable folder in the environment variable CONVKIT_CACHE_DIR"
    try:
        folder = Path(tempfile.gettempdir(), f"convkit-{os.getuid()}")
    except FileNotFoundError as error:
        raise MissingError(
            "there is no folder for the cache: no home of this user, and no temporary folder that can be written in",
            hint=hint,
            code="cache.unwritable",
        ) from error
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except FileExistsError:  # a file, or a symbolic link to nowhere
        found = folder.lstat()
    except OSError as error:
        raise MissingError(
            f"the cache folder {folder} cannot be made: {error.strerror}", hint=hint, code="cache.unwritable"
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        what = (
            "no folder"
            if not stat.S_ISDIR(found.st_mode)
            else f"owned by user {found.st_uid}"
            if found.st_uid != os.getuid()
            else "open to others"
        )
        raise MissingError(
            f"the cache cannot be kept in {folder}, which is {what}: whoever made it could give this run wrong results",
            hint=hint + f", or remove {folder}",
            code="cache.foreign",
        )
    return folder
