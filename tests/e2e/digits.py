"""The sample models, and what their own frameworks answer."""

from __future__ import annotations

import json
import runpy
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from e2e.published import Array

SAMPLE_MODELS = Path(__file__).resolve().parents[2] / "sample_models"


class Digits:
    """One sample model: where it lies, what convkit is told of it, and the framework's own answers."""

    def __init__(self, name: str, *, outputs: tuple[str, ...], max_batch_size: int, trust: bool) -> None:
        self.name = name
        self.folder = SAMPLE_MODELS / name
        self.outputs = outputs
        self.output = outputs[0]
        self.max_batch_size = max_batch_size
        self.arguments = ("--trust",) if trust else ()
        self.calibration = self.folder / "calibration.npz"

    @cached_property
    def held_out(self) -> Mapping[str, Array]:
        """The inputs under their wire names, and `labels`, of the first output."""
        with np.load(self.folder / "heldout.npz") as data:
            return {**self._on_the_wire(data), "labels": data["labels"]}

    def write_calibration(self, path: Path) -> None:
        """Write the calibration data under their wire names, for what knows no other."""
        with np.load(self.calibration) as data:
            np.savez(path, **self._on_the_wire(data))

    def _on_the_wire(self, data: Mapping[str, Array]) -> dict[str, Array]:
        config = json.loads((self.folder / "config.txt").read_text(encoding="utf-8"))
        return {tensor["node_name"]: data[tensor["name"]] for tensor in config["input"]}

    @property
    def inputs(self) -> dict[str, Array]:
        return {name: array for name, array in self.held_out.items() if name != "labels"}

    def rows(self, rows: slice) -> dict[str, Array]:
        """Inputs of some of the samples, as one request."""
        return {name: array[rows] for name, array in self.inputs.items()}

    @property
    def images(self) -> Array:
        return self.held_out["image"]

    @property
    def labels(self) -> Array:
        return self.held_out["labels"]

    @cached_property
    def scores(self) -> Array:
        """What the framework answers on the held-out data, the first output of it."""
        return _by_torch(self.folder, self.inputs) if (self.folder / "model.py").exists() else self._by_tensorflow()

    def _by_tensorflow(self) -> Array:
        import tensorflow as tf

        serving = tf.saved_model.load(str(self.folder)).signatures["serving_default"]
        names = serving.structured_input_signature[1]
        with np.load(self.folder / "heldout.npz") as data:
            answers = serving(**{name: tf.constant(data[name]) for name in names})
        [scores] = answers.values()
        found: Array = scores.numpy()
        return found

    @property
    def sources(self) -> dict[str, Path]:
        """The model's own files, as a manifest is to name them."""
        names = ["model.pth", "model.py"] if (self.folder / "model.py").exists() else ["saved_model.pb"]
        return {name: self.folder / name for name in [*names, "config.txt"]}


def _by_torch(folder: Path, inputs: Mapping[str, Array]) -> Array:
    import torch

    module: Any = runpy.run_path(str(folder / "model.py"))["load_model"]()
    with torch.inference_mode():
        found = module(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        scores: Array = (found[0] if isinstance(found, tuple) else found).numpy()
    return scores


CNN = Digits("digits_cnn", outputs=("logits",), max_batch_size=8, trust=True)
KERAS = Digits("digits_keras", outputs=("probs",), max_batch_size=0, trust=False)
MOBILE = Digits("digits_mobile", outputs=("logits",), max_batch_size=8, trust=True)
LINES = Digits("python_lines", outputs=("kind", "tags"), max_batch_size=8, trust=True)
NAMES = Digits("python_names", outputs=("uses", "defines"), max_batch_size=64, trust=True)
DOCS = Digits("python_docs", outputs=("StatefulPartitionedCall:0",), max_batch_size=16, trust=False)
