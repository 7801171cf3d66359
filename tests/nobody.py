"""Doing something without root's rights, which pass over every permission."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user, and mount")


def open_to_all(folder: Path) -> None:
    """Let every user pass through the folders above a test's that pytest has made, wherever --basetemp is."""
    temporary = Path(tempfile.gettempdir()).resolve()
    for above in (folder, *folder.parents):
        if "pytest" in str(above) or temporary in above.parents:
            above.chmod(above.stat().st_mode | 0o055)


def as_nobody(function: Callable[[], object], *, user: int = 65534) -> type[BaseException] | None:
    """Call a function in a process of the user nobody, or of another; return the class of what it raised, or None."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        name = ""
        try:
            os.setgroups([])
            os.setuid(user)
            function()
        except BaseException as error:  # noqa: BLE001 - it is told to the parent
            name = f"{type(error).__module__}:{type(error).__name__}"
        finally:
            os.write(send, name.encode())
            os._exit(0)
    os.close(send)
    with os.fdopen(receive) as stream:
        module, _, name = stream.read().partition(":")
    os.waitpid(child, 0)
    found: type[BaseException] | None = getattr(sys.modules[module], name) if name else None
    return found
