"""Which operators TensorRT has: what its parser said of each, read from trt_operators.json."""

from __future__ import annotations

import functools
from pathlib import Path

import msgspec


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """What the parser said of one of ONNX's operators."""

    known: bool
    """Whether it has an importer for it at all."""
    taken: int = 0
    tried: int = 0
    """Of onnx's own cases of this operator."""
    crashed: int = 0
    plugin: bool = False
    """Some form of it is imported as a plugin, of which TensorRT has more than TensorRT-RTX."""
    constants: tuple[int, ...] = ()
    """Inputs that must be constants."""
    refused_types: tuple[str, ...] = ()
    """Element types of the first input with which no case was taken, though others were."""


class OperatorTable(msgspec.Struct, frozen=True, kw_only=True):
    """The file; `tests/preflight/measure_operators.py` writes it anew."""

    measured: str
    by: str
    operators: dict[str, Operator]


@functools.cache
def operator_table() -> OperatorTable:
    """Return what was measured."""
    return msgspec.json.decode(Path(__file__).with_suffix(".json").read_bytes(), type=OperatorTable)
