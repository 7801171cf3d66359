"""Source models as users have them: a folder with weights, the code beside them, and config.txt."""

from __future__ import annotations

import contextlib
import json
import runpy
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from e2e.published import Array

TAGGER = """
import torch
from torch import nn


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 8)
        self.mix = nn.Linear(8, 8)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(8, 3)

    def forward(self, ids, weights):
        hidden = torch.tanh(self.mix(self.embed(ids))) * weights.unsqueeze(-1)
        return self.head(self.dropout(hidden)), hidden.mean(dim=1)


def load_model():
    model = Tagger()
    model.load_state_dict(torch.load("model.pth"))
    return model
"""
"""Two inputs, one of integers, and two outputs; batch and length are free. Its dropout is off only in evaluation."""

TYPES = """
import torch
from torch import nn


class Types(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))

    def forward(self, flags, pixels, halves):
        picked = torch.where(flags, pixels.float() * self.scale, 0.0)
        return picked, halves + halves, torch.logical_not(flags)


def load_model():
    model = Types()
    model.load_state_dict(torch.load("model.pth"))
    return model
"""
"""Booleans, bytes and half precision in; float, half precision and booleans out."""

SCALE = """
import torch
from torch import nn


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        return self.linear(x)
"""

UNREPEATABLE = SCALE.replace("self.linear(x)", "self.linear(x) + float(torch.compiler.is_exporting())")

LOAD_MODEL = """

def load_model():
    model = Scale()
    model.load_state_dict(torch.load("model.pth"))
    return model
"""

Tensor = tuple[str, str, Sequence[int]]


def write_config(folder: Path, batch_size: int, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    """Write config.txt; a tensor is its name, data type and dims."""

    def entries(tensors: Sequence[Tensor]) -> list[dict[str, Any]]:
        return [{"name": n, "data_type": t, "dims": list(dims), "node_name": n} for n, t, dims in tensors]

    config = {"batch_size": batch_size, "input": entries(inputs), "output": entries(outputs)}
    (folder / "config.txt").write_text(json.dumps(config, indent=2), encoding="utf-8")


def write_state_dict(folder: Path, code: str, *, seed: int = 0) -> None:
    """Write model.py and, as model.pth, the state dict of the module that it defines."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(code, encoding="utf-8")
    torch.save(_made(code, seed).state_dict(), folder / "model.pth")


def write_tagger(folder: Path, *, batch_size: int = 4) -> Path:
    write_state_dict(folder, TAGGER)
    inputs = [("ids", "long", [-1, -1]), ("weights", "float", [-1, -1])]
    write_config(folder, batch_size, inputs, [("tags", "float", [-1, -1, 3]), ("pooled", "float", [-1, 8])])
    return folder


def write_types(folder: Path) -> Path:
    write_state_dict(folder, TYPES)
    inputs = [("flags", "bool", [-1, 3]), ("pixels", "uint8", [-1, 3]), ("halves", "half", [-1, 3])]
    outputs = [("picked", "float", [-1, 3]), ("doubled", "half", [-1, 3]), ("inverse", "bool", [-1, 3])]
    write_config(folder, 4, inputs, outputs)
    return folder


def write_scale(folder: Path, *, seed: int = 0, code: str = SCALE + LOAD_MODEL) -> Path:
    write_state_dict(folder, code, seed=seed)
    write_config(folder, 0, [("x", "float", [-1, 4])], [("y", "float", [-1, 2])])
    return folder


def write_whole_module(folder: Path) -> Path:
    """Write a module saved whole by a script that defined its class itself, and model.py with the class alone.

    Its tensors say that they lay on a GPU, as those of a checkpoint from training do.
    """
    write_scale(folder, code=SCALE)
    main = sys.modules["__main__"]
    module = _made(SCALE, 0)
    type(module).__module__ = "__main__"
    main.Scale = type(module)  # type: ignore[attr-defined]
    own = torch.serialization.location_tag
    torch.serialization.location_tag = lambda storage: "cuda:0"
    try:
        torch.save(module, folder / "model.pth")
    finally:
        torch.serialization.location_tag = own
        del main.Scale  # type: ignore[attr-defined]
    return folder


def _made(code: str, seed: int) -> torch.nn.Module:
    """Return an instance of the one module class that the code defines."""
    made = types.ModuleType("model")
    exec(code, vars(made))
    [kind] = [value for value in vars(made).values() if isinstance(value, type) and issubclass(value, torch.nn.Module)]
    torch.manual_seed(seed)
    return kind()


def torch_answers(folder: Path, *inputs: Array) -> list[Array]:
    """Run a folder's load_model() and return its outputs, in evaluation mode."""
    with contextlib.chdir(folder):
        module = runpy.run_path("model.py")["load_model"]().eval()
    with torch.inference_mode():
        outputs = module(*map(torch.from_numpy, inputs))
    return [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]


def write_affine(path: Path, *, scale: float) -> Path:
    """Write an ONNX file: y = scale · x + scale, with a batch, three numbers a sample."""
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "scale"], ["scaled"]), helper.make_node("Add", ["scaled", "scale"], ["y"])],
        "affine",
        [tensor("x", onnx.TensorProto.FLOAT, ["batch", 3])],
        [tensor("y", onnx.TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.float32(scale).reshape(1), "scale")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def write_unparsable(path: Path) -> Path:
    """Write an ONNX file with an operator that ONNX Runtime has and TensorRT has not."""
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Det", ["x"], ["y"], name="the_determinant")],
        "determinant",
        [tensor("x", onnx.TensorProto.FLOAT, ["batch", 3, 3])],
        [tensor("y", onnx.TensorProto.FLOAT, ["batch"])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def write_without_counterpart(folder: Path) -> Path:
    """Write a SavedModel with an operation that tf2onnx cannot express."""
    import tensorflow as tf

    class Model(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
        def serve(self, x: Any) -> dict[str, Any]:
            return {"y": tf.math.bessel_i0(x)}

    model = Model()
    tf.saved_model.save(model, str(folder), signatures={"serving_default": model.serve})
    return folder
