"""Small torch modules, each with a layer or an idea that exporters write in a way of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.layer(self.words(x))
        return hidden.mean(1)


class Calls(nn.Module):
    """A function of its input."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


def modules() -> dict[str, tuple[nn.Module, torch.Tensor]]:
    """Return modules by name, with an input each."""
    image, sequence = torch.randn(2, 3, 32, 32), torch.randn(2, 7, 8)
    functional = nn.functional
    return {
        "cnn": (
            nn.Sequential(
                nn.Conv2d(3, 8, 3, padding=1),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(8, 4),
            ),
            image,
        ),
        "mobile": (
            nn.Sequential(
                nn.Conv2d(3, 8, 3, 2, 1),
                nn.ReLU6(),
                nn.Conv2d(8, 8, 3, 1, 1, groups=8),
                nn.Hardswish(),
                nn.SiLU(),
                nn.GELU(),
                nn.GroupNorm(2, 8),
            ),
            image,
        ),
        "encoder": (Encoder(), torch.randint(0, 50, (2, 7))),
        "deconvolution": (
            nn.Sequential(nn.ConvTranspose2d(3, 4, 2, 2), nn.InstanceNorm2d(4), nn.LeakyReLU(), nn.PixelShuffle(2)),
            image,
        ),
        "norm": (nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.Softmax(-1), nn.Dropout()), sequence),
        "conv1d": (nn.Sequential(nn.Conv1d(7, 4, 3), nn.AvgPool1d(2), nn.ELU(), nn.Softplus()), sequence),
        "gru": (nn.GRU(8, 4, batch_first=True), sequence),
        "lstm": (nn.LSTM(8, 6, batch_first=True), sequence),
        "upsampled": (Calls(lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear")), image),
        "reshaped": (Calls(lambda x: x.reshape(x.shape[0], -1)[:, :5]), image),
        "largest": (Calls(lambda x: x.topk(3)), sequence),
        "chosen": (Calls(lambda x: torch.where(x > 0, x, x * 0.1).clamp(-1, 1).argmax(1)), sequence),
        "causal": (
            Calls(lambda x: functional.scaled_dot_product_attention(x, x, x, is_causal=True)),
            torch.randn(2, 2, 4, 8),
        ),
        "masked": (
            Calls(lambda x: (x * (torch.arange(x.shape[1])[None, :, None] < 3)).cumsum(1)),
            sequence,
        ),
    }


def exported(folder: Path) -> Iterator[Path]:
    """Export each with both of torch's exporters, its batch free."""
    batch = torch.export.Dim("batch")
    for name, (module, example) in modules().items():
        module.eval()
        new, old = folder / f"{name}_dynamo.onnx", folder / f"{name}_older.onnx"
        torch.onnx.export(
            module,
            (example,),
            str(new),
            dynamo=True,
            dynamic_shapes=({0: batch},) if not isinstance(module, Calls) else {"x": {0: batch}},
            verbose=False,
            external_data=False,
        )
        yield new
        torch.onnx.export(
            module,
            (example,),
            str(old),
            dynamo=False,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}},
        )
        yield old
