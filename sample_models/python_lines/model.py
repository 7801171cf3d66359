"""A small transformer encoder that reads a line of Python character by character."""

from pathlib import Path

import torch
from torch import Tensor, nn

WIDTH, HEADS, LAYERS, HIDDEN = 64, 4, 2, 192
CHARACTERS, KINDS, TAGS = 128, 8, 7


class Attention(nn.Module):
    """Scaled dot-product attention of every position to every one that the mask has not hidden."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        batch, length, _ = x.shape
        query, key, value = (
            part(x).reshape(batch, length, HEADS, WIDTH // HEADS).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(2, 3) / (WIDTH // HEADS) ** 0.5 + hidden
        return self.out((scores.softmax(dim=3) @ value).transpose(1, 2).reshape(batch, length, WIDTH))


class Layer(nn.Module):
    """Attention, then two linear layers around GELU, each behind a LayerNorm and beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()
        self.feed_forward = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH))
        self.before_attention, self.before_feed_forward = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        x = x + self.attention(self.before_attention(x), hidden)
        return x + self.feed_forward(self.before_feed_forward(x))


class PythonLines(nn.Module):
    """`tokens` and `mask` [batch, length], int64, to logits: `kind` [batch, 8] of the line, `tags` [batch, length, 7].

    `tokens` are ASCII codes, `mask` is 1 where there is a character and 0 behind the line's end; at most 128 of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.characters = nn.Embedding(CHARACTERS, WIDTH)
        self.positions = nn.Embedding(128, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.kind = nn.Linear(WIDTH, KINDS)
        self.tags = nn.Linear(WIDTH, TAGS)

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        shown = mask.to(torch.float32).unsqueeze(2)
        x = self.characters(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        hidden = (shown.reshape(shown.shape[0], 1, 1, shown.shape[1]) - 1) * 1e4
        for layer in self.layers:
            x = layer(x, hidden)
        x = self.norm(x)
        mean = (x * shown).sum(dim=1) / shown.sum(dim=1).clamp(min=1)
        return self.kind(mean), self.tags(x)


def load_model() -> nn.Module:
    """The trained network, ready to infer."""
    model = PythonLines()
    weights = torch.load(Path(__file__).parent / "model.pth", map_location="cpu", weights_only=True)
    model.load_state_dict(weights)
    return model.eval()
