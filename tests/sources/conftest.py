"""SavedModels that several test files convert, made once."""

from __future__ import annotations

from pathlib import Path

import pytest


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
