"""One library and one cache for all tests of operators that ONNX does not define."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e.command import Command

from custom_ops.operators import build, compiler, write_onnx


@pytest.fixture(scope="session")
def convkit(tmp_path_factory: pytest.TempPathFactory) -> Command:
    return Command(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if compiler() is None:
        pytest.skip("no C compiler: the library of operators cannot be built")
    return build(tmp_path_factory.mktemp("library") / "libscaled.so")


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_onnx(tmp_path_factory.mktemp("onnx") / "scaled.onnx")


@pytest.fixture(scope="session")
def published(convkit: Command, library: Path, onnx_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the ONNX file, published with its library."""
    repository = tmp_path_factory.mktemp("published") / "models"
    convkit.converted(onnx_file, "-o", repository, "--custom-ops", library)
    return repository
