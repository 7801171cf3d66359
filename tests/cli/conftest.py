"""A cache that the session's conversions share, and small ONNX files to convert."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper
from sources.onnx_files import FLOAT, X, model, node, value, write

from cli.program import Program


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def convkit(tmp_path: Path, shared_cache: Path) -> Program:
    return Program(tmp_path, shared_cache)


@pytest.fixture(scope="session")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = x w, an ONNX file."""
    return write(tmp_path_factory.mktemp("net"), model())


@pytest.fixture(scope="session")
def unsteady(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model left in training mode: its dropout makes every answer another one."""
    nodes = [node("Dropout", ["x", "ratio", "training"], ["d"]), node("Identity", ["d"], ["y"])]
    weights = [numpy_helper.from_array(np.float32(0.5), "ratio"), numpy_helper.from_array(np.array(True), "training")]
    return write(tmp_path_factory.mktemp("unsteady"), model(nodes, [X], [value("y", FLOAT, ["N", 4])], weights))


@pytest.fixture(scope="session")
def unknown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with an operator that nobody has."""
    nodes = [node("Mine", ["x"], ["y"], domain="my.own")]
    proto = model(nodes, [X], [value("y", FLOAT, ["N", 4])], [], domains=[("my.own", 1)])
    return write(tmp_path_factory.mktemp("unknown"), proto)
