"""Real control groups, where this user may make them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path("/sys/fs/cgroup")
JOIN = 'import os, sys; from pathlib import Path; Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))\n'
"""What a program that is given a group's folder does first."""


@contextmanager
def control_group(*, version_1: tuple[str, str, str], version_2: tuple[str, str]) -> Iterator[Path]:
    """Make a group with a limit: a controller (version 1 alone), the limit's file, and what is written into it.

    Skips the test where neither version lets it.
    """
    name = f"convkit-test-{uuid.uuid4().hex}"
    controller, *limit_1 = version_1
    for group, (file, content) in ((ROOT / controller / name, limit_1), (ROOT / name, version_2)):
        if _made(group, file, content):
            try:
                yield group
            finally:
                group.rmdir()
            return
    pytest.skip("no control group can be made here")


def _made(group: Path, file: str, content: str) -> bool:
    try:
        group.mkdir()
    except OSError:
        return False
    try:
        (group / file).write_text(content)
    except OSError:
        group.rmdir()
        return False
    return True
