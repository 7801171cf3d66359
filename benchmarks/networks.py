"""Three published networks with random weights, written out as plain torch.nn modules, and the folders convkit takes.

ResNet50: He et al., "Deep Residual Learning for Image Recognition" (2015), with the stride in the 3×3 convolution.
MobileNetV2: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (2018), width 1.0.
Encoder: Devlin et al., "BERT" (2018), in the size of MiniLM-L6-H384 (Wang et al., 2020), with BERT's pooler.

Parameter counts equal the published ones (25,557,032, 3,504,872 and 22,713,216); `write_model` asserts it.

    python networks.py resnet50 FOLDER        # model.pth, model.py (this file and a tail), config.txt
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch normalization, and where `activation` is given, that.

    `gamma` is only what the random normalization scale is drawn around.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: type[nn.Module] | None = None,
        gamma: float = 1.0,
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(channels_out),
        ]
        if activation is not None:
            layers.append(activation())
        super().__init__(*layers)
        self.gamma = gamma


class Bottleneck(nn.Module):
    """1×1 down, 3×3, 1×1 up to four times the width, added to the (projected) input."""

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        channels_out = 4 * width
        self.branch = nn.Sequential(
            ConvNorm(channels_in, width, 1, activation=nn.ReLU),
            ConvNorm(width, width, 3, stride=stride, activation=nn.ReLU),
            ConvNorm(width, channels_out, 1, gamma=0.25),
        )
        same_shape = stride == 1 and channels_in == channels_out
        self.shortcut = nn.Identity() if same_shape else ConvNorm(channels_in, channels_out, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [batch, channels, height, width] to [batch, 4·width, height/stride, width/stride]."""
        return functional.relu(self.branch(x) + self.shortcut(x))


class ResNet50(nn.Module):
    """Stages of 3, 4, 6 and 3 bottlenecks; image [batch, 3, 224, 224] to logits [batch, 1000].

    With 3, 8, 36 and 3 it is ResNet152.
    """

    def __init__(self, depths: tuple[int, ...] = (3, 4, 6, 3)) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvNorm(3, 64, 7, stride=2, activation=nn.ReLU), nn.MaxPool2d(3, 2, padding=1))
        blocks: list[nn.Module] = []
        channels = 64
        for stage, depth in enumerate(depths):
            width = 64 * 2**stage
            for index in range(depth):
                blocks.append(Bottleneck(channels, width, stride=2 if stage > 0 and index == 0 else 1))
                channels = 4 * width
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels, 1000)

    def forward(self, image: Tensor) -> Tensor:
        """Map float32 [batch, 3, 224, 224] to float32 logits [batch, 1000]."""
        features: Tensor = self.blocks(self.stem(image))
        logits: Tensor = self.classifier(functional.adaptive_avg_pool2d(features, 1).flatten(1))
        return logits


class InvertedResidual(nn.Module):
    """1×1 expansion, 3×3 depthwise, linear 1×1 projection; added to the input where the shapes agree."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels_in * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(ConvNorm(channels_in, hidden, 1, activation=nn.ReLU6))
        layers.append(ConvNorm(hidden, hidden, 3, stride=stride, groups=hidden, activation=nn.ReLU6))
        layers.append(ConvNorm(hidden, channels_out, 1, gamma=0.5))
        self.branch = nn.Sequential(*layers)
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [batch, channels_in, height, width] to [batch, channels_out, height/stride, width/stride]."""
        y: Tensor = self.branch(x)
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """The table of the paper: (expansion, channels, repeats, stride); image [batch, 3, 224, 224] to [batch, 1000]."""

    STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNorm(3, 32, 3, stride=2, activation=nn.ReLU6)]
        channels = 32
        for expansion, channels_out, repeats, stride in self.STAGES:
            for index in range(repeats):
                layers.append(InvertedResidual(channels, channels_out, stride if index == 0 else 1, expansion))
                channels = channels_out
        layers.append(ConvNorm(channels, 1280, 1, activation=nn.ReLU6))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(1280, 1000)

    def forward(self, image: Tensor) -> Tensor:
        """Map float32 [batch, 3, 224, 224] to float32 logits [batch, 1000]."""
        features: Tensor = self.features(image)
        logits: Tensor = self.classifier(functional.adaptive_avg_pool2d(features, 1).flatten(1))
        return logits


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network, each added to its input and normalized after."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.attended = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden, eps=1e-12)
        self.up = nn.Linear(hidden, 4 * hidden)
        self.down = nn.Linear(4 * hidden, hidden)
        self.output_norm = nn.LayerNorm(hidden, eps=1e-12)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Map float32 [batch, sequence, hidden] to the same; `bias` [batch, 1, 1, sequence] is added to the scores."""

        def per_head(y: Tensor) -> Tensor:
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        query, key, value = per_head(self.query(x)), per_head(self.key(x)), per_head(self.value(x))
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        x = self.attention_norm(x + self.attended(mixed.transpose(1, 2).flatten(2)))
        normed: Tensor = self.output_norm(x + self.down(functional.gelu(self.up(x))))
        return normed


class Encoder(nn.Module):
    """6 layers, hidden size 384, 12 heads, 30522 tokens, 512 positions; every token is of type 0."""

    def __init__(self, layers: int = 6, hidden: int = 384, heads: int = 12) -> None:
        super().__init__()
        self.tokens = nn.Embedding(30522, hidden)
        self.positions = nn.Embedding(512, hidden)
        self.types = nn.Embedding(2, hidden)
        self.norm = nn.LayerNorm(hidden, eps=1e-12)
        self.layers = nn.ModuleList(EncoderLayer(hidden, heads) for _ in range(layers))
        self.pooler = nn.Linear(hidden, hidden)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Map int64 [batch, sequence] twice to float32 [batch, sequence, 384] and, of the first token, [batch, 384]."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.norm(self.tokens(input_ids) + self.positions(positions) + self.types.weight[0])
        # The lowest finite number, not -inf: a row that masks everything then attends evenly instead of to NaN.
        bias = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        for layer in self.layers:
            x = layer(x, bias)
        return x, torch.tanh(self.pooler(x[:, 0]))


class Network(NamedTuple):
    """How to make a network, the parameters it must have, and its config.txt."""

    make: Callable[[], nn.Module]
    parameters: int
    config: dict[str, Any]


def _tensor(name: str, data_type: str, dims: list[int], **more: list[int]) -> dict[str, Any]:
    return {"name": name, "data_type": data_type, "dims": dims, "node_name": name, **more}


_IMAGE_CONFIG = {
    "batch_size": 8,
    "input": [_tensor("image", "float", [-1, 3, 224, 224])],
    "output": [_tensor("logits", "float", [-1, 1000])],
}
_SEQUENCES = {"min_dims": [1, 1], "opt_dims": [1, 128], "max_dims": [8, 512]}

NETWORKS = {
    "resnet50": Network(ResNet50, 25_557_032, _IMAGE_CONFIG),
    "mobilenetv2": Network(MobileNetV2, 3_504_872, _IMAGE_CONFIG),
    "encoder": Network(
        Encoder,
        22_713_216,
        {
            "batch_size": 8,
            "input": [
                _tensor("input_ids", "long", [-1, -1], range=[0, 30521], **_SEQUENCES),
                _tensor("attention_mask", "long", [-1, -1], range=[0, 1], **_SEQUENCES),
            ],
            "output": [
                _tensor("last_hidden_state", "float", [-1, -1, 384]),
                _tensor("pooled", "float", [-1, 384]),
            ],
        },
    ),
}


@torch.no_grad()
def randomize(network: nn.Module, seed: int) -> None:
    """Give `network` the same random weights for the same seed, and statistics that keep every activation finite.

    Convolutions keep the variance through a ReLU (He), so a running variance near 1 is what training would find;
    linear and embedding weights are drawn so that attention scores and logits are of the order of 1.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, ConvNorm):
            convolution, norm = module[0], module[1]
            fan_in = convolution.weight[0].numel()
            convolution.weight.normal_(0, math.sqrt(2 / fan_in), generator=generator)
            norm.weight.uniform_(0.8 * module.gamma, 1.2 * module.gamma, generator=generator)
            norm.bias.normal_(0, 0.1, generator=generator)
            norm.running_mean.normal_(0, 0.1, generator=generator)
            norm.running_var.uniform_(0.8, 1.2, generator=generator)
        elif isinstance(module, nn.Linear):
            module.weight.normal_(0, 1 / math.sqrt(module.in_features), generator=generator)
            module.bias.normal_(0, 0.02, generator=generator)
        elif isinstance(module, nn.LayerNorm):
            module.weight.uniform_(0.8, 1.2, generator=generator)
            module.bias.normal_(0, 0.1, generator=generator)
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(0, 0.05, generator=generator)


def load(name: str, weights: Path) -> nn.Module:
    """Return the network `name` in evaluation mode with the state dict in the file `weights`."""
    with torch.device("meta"):
        network = NETWORKS[name].make()
    network.load_state_dict(torch.load(weights, weights_only=True), assign=True)
    return network.eval()


def write_model(name: str, folder: Path, *, seed: int = 0) -> None:
    """Write `folder` for the network `name`: model.pth (state dict), model.py (with `load_model()`) and config.txt."""
    network = NETWORKS[name].make()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if parameters != NETWORKS[name].parameters:
        raise AssertionError(f"{name} has {parameters:,} parameters, published are {NETWORKS[name].parameters:,}")
    randomize(network, seed)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), folder / "model.pth")
    (folder / "model.py").write_text(Path(__file__).read_text() + _TAIL.format(name=name))
    (folder / "config.txt").write_text(json.dumps(NETWORKS[name].config, indent=1) + "\n")


_TAIL = '''

def load_model() -> nn.Module:
    """Return the network with the weights that lie beside this file."""
    return load({name!r}, Path(__file__).with_name("model.pth"))
'''

if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in NETWORKS:
        sys.exit(f"usage: {sys.argv[0]} {'|'.join(NETWORKS)} FOLDER")
    write_model(sys.argv[1], Path(sys.argv[2]))
