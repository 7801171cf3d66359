"""What a hardened container takes from a process, taken by mounts in a namespace of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

USER = 12345
"""A user that is but a number: the password file has no entry for it."""

_BEGIN = """
set -e
mount --make-rprivate /
"""


def unavailable() -> str | None:
    """Say why no such container can be had here; None where it can."""
    if os.geteuid() != 0:
        return "only root can mount"
    if not shutil.which("unshare") or not shutil.which("setpriv"):
        return "unshare and setpriv are missing"
    tried = subprocess.run(["unshare", "-m", "mount", "--make-rprivate", "/"], capture_output=True, check=False)
    return None if tried.returncode == 0 else "this system forbids mounts"


def contained(
    command: Sequence[str | Path],
    *,
    scratch: Path,
    user: int | None = None,
    writable: Sequence[Path] = (),
    read_only: bool = False,
    shm: str | None = None,
    variables: Mapping[str, str | None],
) -> subprocess.CompletedProcess[str]:
    """Run a command as a container would.

    Args:
        command: the program and its arguments.
        scratch: a folder for mount points, outside what the command sees.
        user: run as this user and group, and no other group.
        writable: folders that stay writable where the rest is read-only.
        read_only: mount the root file system so.
        shm: the size of ``/dev/shm``.
        variables: what the environment has besides PATH; None: is not there.
    """
    lines = [_BEGIN, *(_within_reach(scratch) if user is not None else ())]
    if shm is not None:
        lines.append(f"mount -t tmpfs -o size={shm},mode=1777 tmpfs /dev/shm")
    lines += [f"mount --bind '{folder}' '{folder}'" for folder in writable]
    if read_only:
        lines.append("mount -o remount,bind,ro /")
    identity = [] if user is None else ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"]
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", "\n".join([*lines, 'exec "$@"']), "sh", *identity, *map(str, command)],
        env={"PATH": os.environ["PATH"], **{name: value for name, value in variables.items() if value is not None}},
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _within_reach(scratch: Path) -> list[str]:
    """Put the interpreter where another user reaches it, if it lies in somebody's home."""
    python = Path(os.path.realpath(sys.executable)).parent.parent
    closed = [folder for folder in reversed(python.parents) if not folder.stat().st_mode & 0o001]
    if not closed:
        return []
    return [
        f"mkdir -p '{scratch}/python'",
        f"mount --bind '{python}' '{scratch}/python'",
        f"mount -t tmpfs -o mode=755 tmpfs '{closed[0]}'",
        f"mkdir -p '{python}'",
        f"mount --bind '{scratch}/python' '{python}'",
    ]
