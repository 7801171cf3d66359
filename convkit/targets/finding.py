"""One thing that stands between a model and a runtime: which node, why, and what to do about it."""

from __future__ import annotations

from enum import Enum

import msgspec


class Weight(Enum):
    """How much a finding weighs: only an error makes a preflight fail."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a runtime does not take, or takes in another way than the model means it."""

    severity: Weight = Weight.ERROR
    code: str = "parser"
    """Which rule of convkit's found it; ``parser``: none, the runtime itself did."""
    node: str
    """The ONNX node's name, or ``node 7`` where it has none; for an input or output the tensor's."""
    operator: str
    """The ONNX operator type; ``input`` or ``output`` for a tensor of the interface, ``graph`` for the whole."""
    reason: str
    """What is wrong, in the runtime's words where they say something."""
    fix: str
    """What to do about it."""
    mend: str = ""
    """The repair that `--fix` makes; empty: none that is mechanical."""
    found_by: tuple[str, ...] = ()
    """Who says so: ``convkit``, the runtime with its version, or both."""
    wants_plugin: bool = False
    """TensorRT-RTX has none of TensorRT's plugins, and TensorRT may have this one: there it can be a false alarm."""
    beyond_parser: bool = False
    """No parser sees it: it shows when the engine is built, or in its numbers."""

    def __str__(self) -> str:
        return f"{self.node} ({self.operator}): {self.reason}"
