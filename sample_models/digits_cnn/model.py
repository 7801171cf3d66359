"""A small residual network for 8x8 handwritten digits."""

from pathlib import Path

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is a 1x1 convolution where the channels change."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        same = channels_in == channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels, 1, bias=False)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.branch(x) + self.shortcut(x))


class DigitsCNN(nn.Module):
    """Images [batch, 1, 8, 8], float32 from 0 to 1, to logits [batch, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(Residual(16, 32), nn.MaxPool2d(2), Residual(32, 32), nn.MaxPool2d(2))
        self.head = nn.Linear(32 * 2 * 2, 10)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.body(self.stem(image)).flatten(1))


def load_model() -> nn.Module:
    """The trained network, ready to infer."""
    model = DigitsCNN()
    weights = torch.load(Path(__file__).parent / "model.pth", map_location="cpu", weights_only=True)
    model.load_state_dict(weights)
    return model.eval()
