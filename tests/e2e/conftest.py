"""One cache and one set of conversions for the whole session, so that every model is exported once."""

from __future__ import annotations

from pathlib import Path

import pytest
from models.tf1_saved_model import make_tf1_saved_model

from e2e.command import Command
from e2e.matrix import Matrix
from e2e.networks import write_tagger


@pytest.fixture(scope="session")
def convkit(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command, with a cache that lasts as long as the session."""
    return Command(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def matrix(convkit: Command, tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    return Matrix(convkit, tmp_path_factory.mktemp("repositories"))


@pytest.fixture(scope="session")
def tagger_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PyTorch model with two inputs, one of integers, two outputs, and free batch and length."""
    return write_tagger(tmp_path_factory.mktemp("tagger") / "source")


@pytest.fixture(scope="session")
def tf1_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of dl_inference's README."""
    folder = tmp_path_factory.mktemp("tf1") / "source"
    make_tf1_saved_model(folder)
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The path of a repository that is not there yet."""
    return tmp_path / "repository"
