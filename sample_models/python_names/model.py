"""A small multi-gate mixture of experts that says which names a module of Python uses, and which it defines."""

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

MODULES, PACKAGES, NAMES, FEATURES = 347, 11, 450, 9
WIDTH, EXPERTS, HIDDEN, OUT = 16, 4, 64, 32
SHARED = 3 * WIDTH + 4 + FEATURES


def dense(*widths: int) -> nn.Sequential:
    """Linear layers of these widths, each with dropout and a ReLU behind it."""
    layers = [layer for wide, out in pairwise(widths) for layer in (nn.Linear(wide, out), nn.ReLU(), nn.Dropout(0.2))]
    return nn.Sequential(*layers)


class Task(nn.Module):
    """A gate that weighs the experts, and a tower that makes two logits of what they say together."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(SHARED, EXPERTS)
        self.tower = nn.Sequential(dense(OUT, 16), nn.Linear(16, 2))

    def forward(self, shared: Tensor, experts: Tensor) -> Tensor:
        weights = self.gate(shared).softmax(dim=1).unsqueeze(1)
        return self.tower((weights @ experts).squeeze(1))


class PythonNames(nn.Module):
    """`module`, `package` and `name` [batch, 1], int64, `features` [batch, 9], float32, to logits `uses` and `defines`.

    Both are [batch, 2]: no, yes. After Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts", KDD 2018; beside the embeddings their product goes in.
    """

    def __init__(self) -> None:
        super().__init__()
        self.modules_of_python, self.names = nn.Embedding(MODULES, WIDTH), nn.Embedding(NAMES, WIDTH)
        self.packages = nn.Embedding(PACKAGES, 4)
        self.dropout = nn.Dropout(0.2)
        self.experts = nn.ModuleList(dense(SHARED, HIDDEN, OUT) for _ in range(EXPERTS))
        self.uses, self.defines = Task(), Task()

    def forward(self, module: Tensor, package: Tensor, name: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        of_module, of_name, of_package = self.modules_of_python(module), self.names(name), self.packages(package)
        embedded = torch.cat([of_module, of_name, of_module * of_name, of_package], dim=2).squeeze(1)
        shared = torch.cat([self.dropout(embedded), features], dim=1)
        experts = torch.stack([expert(shared) for expert in self.experts], dim=1)
        return self.uses(shared, experts), self.defines(shared, experts)


def load_model() -> nn.Module:
    """The trained network, ready to infer."""
    model = PythonNames()
    weights = torch.load(Path(__file__).parent / "model.pth", map_location="cpu", weights_only=True)
    model.load_state_dict(weights)
    return model.eval()
