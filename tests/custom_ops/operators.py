"""An operator of nobody's but ours, as its users have it: a C library, a network in PyTorch, an ONNX file."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

SOURCE = Path(__file__).with_name("scaled_sigmoid.c")
ALPHA = 2.0

REGISTERED = """
import torch


@torch.library.custom_op("example::scaled_sigmoid", mutates_args=())
def scaled_sigmoid(x: torch.Tensor, alpha: float) -> torch.Tensor:
    return torch.sigmoid(x * alpha)


@scaled_sigmoid.register_fake
def _(x, alpha):
    return torch.empty_like(x)
"""

IN_STANDARD_OPERATORS = (
    REGISTERED
    + """

from onnxscript import opset18 as op


def translated(x, alpha: float):
    return op.Sigmoid(op.Mul(x, op.CastLike(op.Constant(value_float=alpha), x)))


ONNX_TRANSLATIONS = {torch.ops.example.scaled_sigmoid.default: translated}
"""
)

IN_THE_LIBRARYS = (
    REGISTERED
    + """

from onnx.defs import OpSchema
from onnxscript.values import Op, Opset

SCHEMA = OpSchema(
    "ScaledSigmoid",
    "example.ops",
    1,
    inputs=[OpSchema.FormalParameter("X", "T")],
    outputs=[OpSchema.FormalParameter("Y", "T")],
    type_constraints=[("T", ["tensor(float)"], "")],
    attributes=[OpSchema.Attribute("alpha", OpSchema.AttrType.FLOAT)],
)
scaled = Op(Opset("example.ops", 1), "ScaledSigmoid", op_schema=SCHEMA)


def translated(x, alpha: float):
    return scaled(x, alpha=alpha)


ONNX_TRANSLATIONS = {torch.ops.example.scaled_sigmoid.default: translated}
"""
)

NETWORK = """
import torch


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(4, 8)
        self.second = torch.nn.Linear(8, 3)

    def forward(self, x):
        return self.second(torch.ops.example.scaled_sigmoid(self.first(x), 2.0))
"""

CONFIG = {
    "batch_size": 4,
    "input": [{"name": "x", "data_type": "float", "dims": [-1, 4], "node_name": "x"}],
    "output": [{"name": "y", "data_type": "float", "dims": [-1, 3], "node_name": "y"}],
}


def compiler() -> str | None:
    """Return the C compiler of this machine, where it has one."""
    return shutil.which("cc") or shutil.which("gcc")


def build(path: Path, *flags: str, source: Path = SOURCE) -> Path:
    """Compile a library."""
    program = compiler()
    assert program is not None
    flags = ("-std=gnu11", "-O1", "-shared", "-fPIC", *flags)
    subprocess.run([program, *flags, source, "-o", path, "-lm"], check=True)
    return path


def scaled_sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-ALPHA * x))


def write_onnx(path: Path) -> Path:
    """Write a graph with the operator: y = 2 scaled_sigmoid(x)."""
    nodes = [
        helper.make_node("ScaledSigmoid", ["x"], ["h"], domain="example.ops", alpha=ALPHA),
        helper.make_node("Add", ["h", "h"], ["y"]),
    ]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "scaled", tensors[:1], tensors[1:])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("example.ops", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def write_network(folder: Path) -> Path:
    """Write a state dict, the network that it belongs to, and config.txt; the operator is defined elsewhere."""
    import torch

    folder.mkdir()
    (folder / "network.py").write_text(NETWORK, encoding="utf-8")
    (folder / "config.txt").write_text(json.dumps(CONFIG), encoding="utf-8")
    torch.manual_seed(0)
    first, second = torch.nn.Linear(4, 8), torch.nn.Linear(8, 3)
    named = {"first": first, "second": second}
    weights = {f"{name}.{key}": value for name, layer in named.items() for key, value in layer.state_dict().items()}
    torch.save(weights, folder / "model.pth")
    return folder


def operators_of(path: Path) -> set[str]:
    return {f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in onnx.load(path).graph.node}
