"""What every test of the sources needs: working files in a folder of its own, and imports that leave no trace."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from convkit.pipeline.artifact import use_scratch


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    use_scratch(folder)
    return folder


@pytest.fixture(autouse=True)
def imports_leave_no_trace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A worker serves one model; here one process serves them all."""
    temporary = str(tmp_path_factory.getbasetemp())
    path, finders, modules, writes = list(sys.path), list(sys.meta_path), dict(sys.modules), sys.dont_write_bytecode
    main = dict(vars(sys.modules["__main__"]))
    yield
    sys.path[:], sys.meta_path[:], sys.dont_write_bytecode = path, finders, writes
    for name in set(sys.modules) - set(modules):
        if str(getattr(sys.modules[name], "__file__", "")).startswith(temporary):
            del sys.modules[name]
    for name in set(vars(sys.modules["__main__"])) - set(main):
        delattr(sys.modules["__main__"], name)
