"""PyTorch models as users have them: folders with weights, code and config.txt."""

from __future__ import annotations

import contextlib
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from convkit.sources.find import find_model
from convkit.sources.open import open_source
from convkit.sources.torch_file import TorchFile
from convkit.spec.metadata import read_metadata
from convkit.spec.options import ExportOptions

NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x):
        return self.layers(x)
"""

LOADER = """
def load_model():
    net = Net()
    net.load_state_dict(torch.load("model.pth", weights_only=True))
    return net
"""

ONE_INPUT = {
    "batch_size": 4,
    "input": [{"name": "x", "data_type": "float", "dims": [-1, 4], "node_name": "x"}],
    "output": [{"name": "y", "data_type": "float", "dims": [-1, 3], "node_name": "y"}],
}


def write_folder(folder: Path, files: Mapping[str, str], *, config: Mapping[str, Any] = ONE_INPUT) -> Path:
    """Write Python files and config.txt; the model's weights are the caller's."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text), encoding="utf-8")
    (folder / "config.txt").write_text(json.dumps(config), encoding="utf-8")
    return folder


def defined(text: str, module: str) -> ModuleType:
    """Run a model's code as the module of that name, as its author's training script did."""
    made = ModuleType(module)
    exec(textwrap.dedent(text), vars(made))
    return made


def network() -> torch.nn.Module:
    """The network of NETWORK with seeded weights."""
    torch.manual_seed(0)
    net: torch.nn.Module = defined(NETWORK, "elsewhere").Net()
    return net


def state_dict_folder(folder: Path, *, code: str = NETWORK + LOADER, extra: Mapping[str, str] | None = None) -> Path:
    """A state dict with the model.py that loads it."""
    write_folder(folder, {"model.py": code, **(extra or {})})
    torch.save(network().state_dict(), folder / "model.pth")
    return folder


@contextlib.contextmanager
def pickled_from(module: str, made: ModuleType) -> Iterator[None]:
    """Let what is pickled within say that its classes belong to the module of that name."""
    saved = sys.modules.get(module)
    sys.modules[module] = made
    try:
        yield
    finally:
        del sys.modules[module]
        if saved is not None:
            sys.modules[module] = saved


def whole_module_folder(folder: Path, *, module: str) -> Path:
    """A whole module, pickled by a script in which its class belonged to `module`; model.py only defines the class."""
    write_folder(folder, {"model.py": NETWORK})
    made = defined(NETWORK, module)
    with pickled_from(module, made):
        torch.manual_seed(0)
        torch.save(made.Net(), folder / "model.pth")
    return folder


def opened(folder: Path, *, trust: Sequence[str] = (), model_def: str | None = None, **options: Any) -> TorchFile:
    """Open a folder as the command line does, without running anything."""
    found = find_model(folder)
    assert found.config is not None
    export = ExportOptions(model_def=model_def, **options)
    source = open_source(found, read_metadata(Path(found.config)), export, tuple(trust), f"convkit convert {folder}")
    assert isinstance(source, TorchFile)
    return source
