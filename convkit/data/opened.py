"""Which files the user's code reads, so that its result is made anew where one of them has changed."""

from __future__ import annotations

import os
import stat
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from convkit.pipeline.artifact import digest_bytes, digest_file

_watching: list[set[str]] = []
_hooked: list[bool] = []
_LISTED = ("os.listdir", "os.scandir")


@contextmanager
def watching() -> Iterator[set[str]]:
    """Give the files and folders that this process opens for reading meanwhile, by Python's audit events.

    What libraries open without Python is not seen, nor what other processes do. Left out are Python's own files and
    installed packages, the system's pseudo files, and the scratch space.
    """
    if not _hooked:
        sys.addaudithook(_hook)  # for ever: it cannot be taken away
        _hooked.append(True)
    found: set[str] = set()
    _watching.append(found)
    try:
        yield found
    finally:
        _watching.remove(found)
        kept = {path for path in found if not path.startswith(_left_out()) and Path(path).exists()}
        found.clear()
        found.update(kept)


def state_of(paths: Sequence[str]) -> str:
    """Return the digest of what these files hold and these folders list now."""
    return digest_bytes("".join(f"{_content(Path(path))} {path}\n" for path in sorted(paths)).encode())


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching or (event != "open" and event not in _LISTED):
        return
    path = arguments[0]
    if path is None and event in _LISTED:
        path = "."
    if not isinstance(path, str | bytes | os.PathLike):
        return
    if sys._getframe(1).f_code.co_filename.startswith("<frozen importlib"):
        return  # looking for modules; those that are found are code
    if event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
        return
    for found in _watching:
        found.add(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100 - links are kept as they are


def _content(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return digest_bytes("\n".join(sorted(entry.name for entry in path.iterdir())).encode())
        return digest_file(path) if stat.S_ISREG(mode) else "special"
    except OSError:
        return "absent"


def _left_out() -> tuple[str, ...]:
    places = {sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), tempfile.gettempdir()}
    return tuple(place.rstrip("/") + "/" for place in (*places, "/proc", "/sys", "/dev", "/etc"))
