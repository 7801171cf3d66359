"""What is published once for all tests, and copied for each."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from check.repositories import publish


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    return publish(tmp_path_factory.mktemp("live"), cache)


@pytest.fixture(scope="session")
def published_pending(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    return publish(tmp_path_factory.mktemp("pending"), cache, to="tensorrt", engine="defer")


@pytest.fixture
def repository(published: Path, tmp_path: Path) -> Path:
    """A repository with one ONNX model, which a test may damage."""
    return Path(shutil.copytree(published, tmp_path / "repository"))


@pytest.fixture
def pending(published_pending: Path, tmp_path: Path) -> Path:
    """A repository whose one engine is still to be built."""
    return Path(shutil.copytree(published_pending, tmp_path / "repository"))
