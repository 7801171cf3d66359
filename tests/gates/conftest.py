"""One cache for all tests of gates: the sample model is exported and measured once."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e.command import Command

from gates.made_up import build_here as build_here


@pytest.fixture(scope="session")
def convkit(tmp_path_factory: pytest.TempPathFactory) -> Command:
    return Command(tmp_path_factory.mktemp("gates-cache"))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The path of a repository that is not there yet."""
    return tmp_path / "repository"
