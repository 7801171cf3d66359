"""A repository with a live model and an engine that still has to be built, and a server's program on PATH."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from triton_server.server import installation, lay_out_backends

from serve.repositories import publish, small


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    models = tmp_path_factory.mktemp("served") / "models"
    publish(models, cache, "small", small())
    publish(models, cache, "engine", small(), to="tensorrt", engine="defer")
    return models


@pytest.fixture
def server_on_path(tmp_path: Path) -> Iterator[str]:
    """A PATH with a program `tritonserver` that is told where its libraries and backends are, as in a container."""
    found = installation()
    lay_out_backends(tmp_path / "backends", found, ("onnxruntime", "openvino"))
    prefix = f"convkit_serve_{os.getpid()}_"
    variables = [f"{name}={value}" for name, value in found.variables().items() if name in ("PATH", "LD_LIBRARY_PATH")]
    words = ["env", "-u", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE=1", *variables, str(found.server)]
    words += [
        f"--backend-directory={tmp_path / 'backends'}",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
    ]
    program = tmp_path / "bin" / "tritonserver"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    program.chmod(0o755)
    yield f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    for left in Path("/dev/shm").glob(f"{prefix}*"):
        left.unlink(missing_ok=True)
