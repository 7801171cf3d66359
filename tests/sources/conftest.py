"""Models that several test files convert, made once; working files in their own folder; imports that leave no trace."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from convkit.pipeline.artifact import use_scratch
from convkit.sources import torch_module


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path) -> Path:
    """A folder for the files that steps make when they are called as plain functions."""
    folder = tmp_path / "scratch"
    use_scratch(folder)
    return folder


@pytest.fixture
def imports_leave_no_trace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A worker serves one model and its code; here one process serves them all."""
    temporary = str(tmp_path_factory.getbasetemp())
    path, finders, modules, writes = list(sys.path), list(sys.meta_path), dict(sys.modules), sys.dont_write_bytecode
    main = dict(vars(sys.modules["__main__"]))
    torch_module._loaded.clear()
    yield
    sys.path[:], sys.meta_path[:], sys.dont_write_bytecode = path, finders, writes
    for name in set(sys.modules) - set(modules):
        if str(getattr(sys.modules[name], "__file__", "")).startswith(temporary):
            del sys.modules[name]
    for name in set(vars(sys.modules["__main__"])) - set(main):
        delattr(sys.modules["__main__"], name)


@pytest.fixture(scope="session")
def tf1_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TensorFlow 1 SavedModel with its config.txt, as in dl_inference's README."""
    from models.tf1_saved_model import make_tf1_saved_model

    folder = tmp_path_factory.mktemp("tf1") / "model"
    make_tf1_saved_model(folder)
    return folder


@pytest.fixture(scope="session")
def two_by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel with the signatures `score` (two inputs, two outputs, free lengths) and `project`."""
    import tensorflow as tf

    from sources.tensorflow_models import TwoByTwo

    folder = tmp_path_factory.mktemp("two_by_two") / "model"
    module = TwoByTwo()
    tf.saved_model.save(module, str(folder), signatures={"score": module.score, "project": module.project})
    return folder
