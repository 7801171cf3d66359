"""An operator of nobody's but ours, as its users have it: a C library, a network in PyTorch, an ONNX file."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

SOURCE = Path(__file__).with_name("scaled_sigmoid.c")
ALPHA = 2.0

PAGE = Path(__file__).parents[2] / "docs" / "custom_ops.md"
IN_STANDARD_OPERATORS, IN_THE_LIBRARYS = re.findall(
    r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL
)
"""The Python files that the page shows; the second goes on where the first has registered the operator."""
REGISTERED = IN_STANDARD_OPERATORS.partition("def as_onnx")[0]
SHOWN = re.findall(r"^convkit (.*)$", PAGE.read_text(), re.MULTILINE)
"""The arguments of the commands that it shows."""

NETWORK = """
import torch


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(4, 8)
        self.second = torch.nn.Linear(8, 3)

    def forward(self, x):
        return self.second(torch.ops.mine.scaled_sigmoid(self.first(x), 2.0))


def load_model():
    network = Network()
    network.load_state_dict(torch.load("model.pth", weights_only=True))
    return network
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
    (folder / "model.py").write_text(NETWORK, encoding="utf-8")
    (folder / "config.txt").write_text(json.dumps(CONFIG), encoding="utf-8")
    torch.manual_seed(0)
    first, second = torch.nn.Linear(4, 8), torch.nn.Linear(8, 3)
    named = {"first": first, "second": second}
    weights = {f"{name}.{key}": value for name, layer in named.items() for key, value in layer.state_dict().items()}
    torch.save(weights, folder / "model.pth")
    return folder


def operators_of(path: Path) -> set[str]:
    return {f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in onnx.load(path).graph.node}
