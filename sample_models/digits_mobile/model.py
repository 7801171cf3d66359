"""A small MobileNetV2 for handwritten digits of 32x32 pixels."""

from pathlib import Path

import torch
from torch import Tensor, nn


def normalized(channels_in: int, channels: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution without a bias, and BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels),
    )


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 projection without activation; around them a shortcut where shapes allow it."""

    def __init__(self, channels_in: int, channels: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = channels_in * expansion
        self.expand = normalized(channels_in, hidden, 1)
        self.depthwise = normalized(hidden, hidden, 3, stride=stride, groups=hidden)
        self.project = normalized(hidden, channels, 1)
        self.activation = nn.ReLU()
        self.has_shortcut = stride == 1 and channels_in == channels

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.activation(self.depthwise(self.activation(self.expand(x))))
        projected = self.project(hidden)
        return x + projected if self.has_shortcut else projected


class DigitsMobile(nn.Module):
    """Images [batch, 1, 32, 32], float32 from 0 to 1, to logits [batch, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(normalized(1, 16, 3, stride=2), nn.ReLU())
        self.body = nn.Sequential(
            InvertedResidual(16, 16, expansion=4, stride=1),
            InvertedResidual(16, 24, expansion=4, stride=2),
            InvertedResidual(24, 24, expansion=4, stride=1),
            InvertedResidual(24, 32, expansion=4, stride=2),
            InvertedResidual(32, 32, expansion=4, stride=1),
        )
        self.last = nn.Sequential(normalized(32, 96, 1), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(96, 10)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.pool(self.last(self.body(self.stem(image)))).flatten(1))


def load_model() -> nn.Module:
    """The trained network, ready to infer."""
    model = DigitsMobile()
    weights = torch.load(Path(__file__).parent / "model.pth", map_location="cpu", weights_only=True)
    model.load_state_dict(weights)
    return model.eval()
