"""Repositories with engines to be built, prepared on a machine without a GPU, and machines to build them on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from e2e.command import Command
from serving.publications import scaled

from deferred.machines import Container, Machine

Prepare = Callable[..., Path]


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deferred")


@pytest.fixture(scope="session")
def converter(workplace: Path) -> Callable[..., Path]:
    """Return `convkit convert --to tensorrt` of y = factor * x where no GPU is, into a repository."""
    (workplace / "converting").mkdir()
    command = Command(workplace / "converting")
    calls = iter(range(1000))

    def convert(repository: Path, factor: float = 2.0, *, width: int = 3, asked: tuple[str, ...] = ()) -> Path:
        model = workplace / str(next(calls)) / "scaled.onnx"
        model.parent.mkdir()
        onnx.save(scaled(factor, width=width), model)
        command.converted(model, "-o", repository, "--to", "tensorrt", *asked)
        return repository

    return convert


@pytest.fixture(scope="session")
def prepared(converter: Prepare, workplace: Path) -> Path:
    """A repository with one pending engine; nobody writes in it."""
    return converter(workplace / "prepared")


@pytest.fixture
def repository(prepared: Path, tmp_path: Path) -> Path:
    """A copy of it, as if it had been shipped."""
    return Path(shutil.copytree(prepared, tmp_path / "models"))


@pytest.fixture(scope="session")
def on(workplace: Path) -> Callable[[Machine], Container]:
    """Return a container on a machine; all share one cache."""
    return lambda machine: Container(machine, workplace)
