"""A real Triton reads a repository whose engines were built for two kinds of GPU, and serves it on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from triton_server.client import infer
from triton_server.server import TritonServer, validate_config

from deferred.machines import H100, L4, Container, Machine
from deferred.test_deferred import built

pytestmark = pytest.mark.triton


def test_plans_for_two_gpus_and_the_same_repository_on_a_cpu(
    repository: Path, on: Callable[[Machine], Container]
) -> None:
    built(on(L4), repository)
    built(on(H100), repository, "--all")

    assert validate_config(repository, "scaled") is None, "it misses its backend, and finds no fault"
    with TritonServer(repository, config_name="cpu") as server:
        answer = infer(server, "http", "scaled", {"x": np.ones((2, 3), np.float32)})
    np.testing.assert_array_equal(answer["y"], np.full((2, 3), 2, np.float32))


def test_a_repository_that_was_made_elsewhere_is_served(
    repository: Path, on: Callable[[Machine], Container], tmp_path: Path
) -> None:
    built(on(L4), repository, "--into", tmp_path / "engines")

    with TritonServer(tmp_path / "engines", config_name="cpu") as server:
        answer = infer(server, "grpc", "scaled", {"x": np.ones((1, 3), np.float32)})
    np.testing.assert_array_equal(answer["y"], np.full((1, 3), 2, np.float32))
