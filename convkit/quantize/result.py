"""What every way of quantizing hands on."""

from __future__ import annotations

import msgspec

from convkit.graph.model import Model


class Quantized(msgspec.Struct, frozen=True, kw_only=True):
    """An INT8 model and what its scales were taken from."""

    model: Model
    method: str
    samples: int
    """Samples that the ranges were taken from; 0 where they are taken at run time."""
    nodes: tuple[str, ...] = ()
    """Products that were quantized, by name."""
    kept: tuple[str, ...] = ()
    """Nodes that could be quantized and stay in floating point: the target's profile or the caller wants it so."""


class Narrowed(msgspec.Struct, frozen=True, kw_only=True):
    """The model as the target will be given it."""

    model: Model
    judged: Model
    """What ONNX Runtime can run of it here: the model itself, or the same numbers in types that it has kernels for."""
    quantized: Quantized | None = None
    """Where the scales come from; None where none were needed."""
