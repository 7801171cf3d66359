"""One network with two inputs and two outputs in every form in which people have it.

A form is a function that writes a folder to convert. To add one, add it to `FORMS`: it is converted, and its answers
are held against `answers`, in ONNX Runtime and through Triton.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from e2e.published import Array

IDS, WEIGHTS, TAGS, POOLED = "ids", "weights", "tags", "pooled"
VOCABULARY, WIDTH, TAG_COUNT = 5, 8, 3

CODE = """
import torch
from torch import nn


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 8)
        self.mix = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, ids, weights):
        hidden = torch.tanh(self.mix(self.embed(ids))) * weights.unsqueeze(-1)
        return self.head(hidden), hidden.mean(dim=1)
"""
LOADER = """

def load_model():
    model = Tagger()
    model.load_state_dict(torch.load("model.pth"))
    return model
"""


class Weights(NamedTuple):
    """The numbers that every form holds: y = x · kernel + bias, as TensorFlow writes it."""

    embedding: Array
    mix: Array
    mix_bias: Array
    head: Array
    head_bias: Array


def weights() -> Weights:
    """Return the same weights every time."""
    draw = np.random.default_rng(7).standard_normal
    shapes = ((VOCABULARY, WIDTH), (WIDTH, WIDTH), (WIDTH,), (WIDTH, TAG_COUNT), (TAG_COUNT,))
    return Weights(*(draw(shape).astype(np.float32) for shape in shapes))


def answers(ids: Array, factors: Array) -> dict[str, Array]:
    """Return what the network answers, computed with numpy."""
    held = weights()
    hidden = np.tanh(held.embedding[ids] @ held.mix + held.mix_bias) * factors[..., None]
    return {TAGS: hidden @ held.head + held.head_bias, POOLED: hidden.mean(axis=1)}


def module() -> torch.nn.Module:
    """Return the network in PyTorch."""
    scope: dict[str, type[torch.nn.Module]] = {}
    exec(CODE, scope)
    net = scope["Tagger"]()
    held = weights()
    arrays = {
        "embed.weight": held.embedding,
        "mix.weight": held.mix.T,
        "mix.bias": held.mix_bias,
        "head.weight": held.head.T,
        "head.bias": held.head_bias,
    }
    net.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in arrays.items()})
    return net.eval()


def write_config(folder: Path) -> Path:
    """Write config.txt, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        "input": [(IDS, "long", [-1, -1], {"range": [0, VOCABULARY - 1]}), (WEIGHTS, "float", [-1, -1], {})],
        "output": [(TAGS, "float", [-1, -1, TAG_COUNT], {}), (POOLED, "float", [-1, WIDTH], {})],
    }
    config = {
        side: [{"name": n, "node_name": n, "data_type": kind, "dims": dims, **more} for n, kind, dims, more in listed]
        for side, listed in tensors.items()
    }
    (folder / "config.txt").write_text(json.dumps({"batch_size": 4, **config}), encoding="utf-8")
    return folder


def state_dict(folder: Path) -> Path:
    write_config(folder)
    (folder / "model.py").write_text(CODE + LOADER, encoding="utf-8")
    torch.save(module().state_dict(), folder / "model.pth")
    return folder


def nested_state_dict(folder: Path) -> Path:
    """A training script's checkpoint of a network in DataParallel, to be loaded with a definition."""
    write_config(folder)
    (folder / "net.py").write_text(CODE, encoding="utf-8")
    state = {f"module.{name}": value for name, value in module().state_dict().items()}
    torch.save({"model": state, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}, folder / "model.pth")
    return folder


def whole_module(folder: Path) -> Path:
    from sources.torch_models import defined, pickled_from

    write_config(folder)
    (folder / "model.py").write_text(CODE, encoding="utf-8")
    made = defined(CODE, "model")
    net = made.Tagger()
    net.load_state_dict(module().state_dict())
    with pickled_from("model", made):
        torch.save(net, folder / "model.pth")
    return folder


def torchscript(folder: Path) -> Path:
    write_config(folder)
    example = (torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3))
    torch.jit.save(torch.jit.trace(module(), example), folder / "model.pt")
    return folder


def exported_program(folder: Path) -> Path:
    write_config(folder)
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    example = (torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3))
    shapes = ({0: batch, 1: length}, {0: batch, 1: length})
    torch.export.save(torch.export.export(module(), example, dynamic_shapes=shapes), folder / "model.pt2")
    return folder


def onnx_file(folder: Path) -> Path:
    write_config(folder)
    example = (torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3))
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    torch.onnx.export(
        module(),
        example,
        folder / "model.onnx",
        dynamo=True,
        input_names=[IDS, WEIGHTS],
        output_names=[TAGS, POOLED],
        dynamic_shapes=(free, free),
        verbose=False,
    )
    return folder


def tensorflow_form(name: str) -> Callable[[Path], Path]:
    """Return what writes a form of TensorFlow's, in a process of its own: TensorFlow and torch are no good company."""

    def write(folder: Path) -> Path:
        tests = Path(__file__).parents[1]
        code = "import sys; from pathlib import Path; from e2e import tensorflow_forms as forms; "
        code += "getattr(forms, sys.argv[1])(Path(sys.argv[2]))"
        environment = {**os.environ, "PYTHONPATH": str(tests), "CUDA_VISIBLE_DEVICES": ""}
        subprocess.run([sys.executable, "-c", code, name, str(folder)], check=True, env=environment)
        return folder

    return write


class Form(NamedTuple):
    """How a form is written, and what `convkit convert` needs besides."""

    write: Callable[[Path], Path]
    arguments: Callable[[Path], tuple[str, ...]] = lambda _: ()
    soak: bool = False
    """Whether its own road is short, and tried by `make soak` alone."""


def _trusted(_: Path) -> tuple[str, ...]:
    return ("--trust",)


FORMS: dict[str, Form] = {
    "state dict": Form(state_dict, _trusted),
    "nested state dict": Form(nested_state_dict, lambda folder: ("--model-def", f"{folder}/net.py:Tagger"), soak=True),
    "whole module": Form(whole_module, _trusted, soak=True),
    "TorchScript": Form(torchscript),
    "exported program": Form(exported_program),
    "ONNX": Form(onnx_file),
    "SavedModel": Form(tensorflow_form("with_signature"), soak=True),
    "SavedModel without signature": Form(tensorflow_form("without_signature")),
    "SavedModel of TensorFlow 1": Form(tensorflow_form("tensorflow_1_without_signature"), soak=True),
    "frozen graph": Form(tensorflow_form("frozen_graph")),
    "Keras file": Form(tensorflow_form("keras_file")),
    "Keras HDF5": Form(tensorflow_form("hdf5_file"), soak=True),
    "Keras export": Form(tensorflow_form("keras_export"), soak=True),
}
