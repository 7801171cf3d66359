"""What onnx publishes: models, inputs, and the answers that a backend must give."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

KINDS = ("simple", "pytorch-converted", "pytorch-operator")
EVERYTHING = os.environ.get("CONVKIT_BACKEND") == "all"
"""`make backend`: every case; else some of them, the same ones each time."""


def chosen(names: Iterable[str], *, one_in: int = 6) -> list[str]:
    return [name for name in names if EVERYTHING or zlib.crc32(name.encode()) % one_in == 0]


def model_folders() -> dict[str, Path]:
    """The folders of the model files, by their names."""
    return {case.name: Path(case.model_dir) for kind in KINDS for case in load_model_tests(kind=kind)}


def data_sets(folder: Path) -> list[tuple[dict[str, np.ndarray], list[np.ndarray]]]:
    """Inputs by name and outputs in order, of each set; nothing where one is no tensor."""
    graph = onnx.load(str(folder / "model.onnx")).graph
    weights = {tensor.name for tensor in graph.initializer}
    names = [value.name for value in graph.input if value.name not in weights]
    if any(value.type.WhichOneof("value") != "tensor_type" for value in (*graph.input, *graph.output)):
        return []
    return [
        (dict(zip(names, tensors(place, "input"), strict=True)), tensors(place, "output"))
        for place in sorted(folder.glob("test_data_set_*"))
    ]


def tensors(folder: Path, side: str) -> list[np.ndarray]:
    files = sorted(folder.glob(f"{side}_*.pb"), key=lambda file: int(file.stem.rpartition("_")[2]))
    return [numpy_helper.to_array(onnx.TensorProto.FromString(file.read_bytes())) for file in files]


def difference(answers: Sequence[Any], wanted: Sequence[Any], *, rtol: float, atol: float) -> str:
    """How answers differ from those that are published; nothing where they hold."""
    return "; ".join(
        f"output {number}: {found}"
        for number, (one, other) in enumerate(zip(answers, wanted, strict=True))
        if (found := _difference(np.asarray(one), np.asarray(other), rtol, atol))
    )


def _difference(one: np.ndarray, other: np.ndarray, rtol: float, atol: float) -> str:
    if one.shape != other.shape:
        return f"the shape is {one.shape}, published is {other.shape}"
    if one.dtype.kind in "OUS" or other.dtype.kind in "OUS":
        return "" if (one.astype("U") == other.astype("U")).all() else "other texts"
    if one.dtype != other.dtype:
        return f"the type is {one.dtype}, published is {other.dtype}"
    if np.allclose(one.astype(np.float64), other.astype(np.float64), rtol=rtol, atol=atol, equal_nan=True):
        return ""
    return f"values differ by {np.nanmax(np.abs(one.astype(np.float64) - other.astype(np.float64))):.3g}"


def answers(session: Any, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """What a session of ONNX Runtime gives; inputs go by their order, since an emitted model may rename them."""
    found: list[np.ndarray] = session.run(
        None, dict(zip((value.name for value in session.get_inputs()), inputs.values(), strict=True))
    )
    return found
