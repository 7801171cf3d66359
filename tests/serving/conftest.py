"""A repository for what is tried hundreds of times."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """The path of a repository that is not there yet, in memory where that can be had: it need not reach a disk."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tmp_path
    with tempfile.TemporaryDirectory(dir=place, prefix="convkit-tests-") as folder:
        yield Path(folder, "work", "models")
