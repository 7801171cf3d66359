"""Operators that ONNX does not define: the libraries that bring them, and what is said where none does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from convkit.errors import StepError
from convkit.graph.names import subgraphs
from convkit.pipeline.extensions import libraries

if TYPE_CHECKING:
    import onnx

_KNOWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview", "ai.onnx.preview.training")
_OF_ONNXRUNTIME = "com.microsoft"
"""How the names of ONNX Runtime's own domains begin."""
_UNKNOWN = re.compile(
    r"Fatal error: (?P<domain>[^\s:]+):(?P<operator>[^\s:(]+)\([^)]*\) is not a registered function/op"
)


def register_libraries(options: Any) -> None:
    """Let a session under these `onnxruntime.SessionOptions` load the run's libraries.

    Raises:
        StepError: one cannot be loaded, or does not register its operators.
    """
    for library in libraries():
        try:
            options.register_custom_ops_library(str(library))
        except Exception as error:  # ONNX Runtime's errors have no common class
            reason = " ".join(str(error).split()).rpartition("] : ")[2]
            raise StepError(
                f"ONNX Runtime cannot load {library.name}: {reason}",
                hint="--custom-ops takes a library built for this machine that exports RegisterCustomOps",
                code="custom-ops.library",
            ) from error


def unknown_operator(reason: str) -> StepError | None:
    """Return what to say where ONNX Runtime's `reason` is an operator that nobody has registered.

    None where ONNX itself defines it: no library of the user's is missing then.
    """
    found = _UNKNOWN.search(reason)
    if found is None or found["domain"] in _KNOWN_DOMAINS:
        return None
    loaded = ", ".join(path.name for path in libraries())
    return StepError(
        f"the graph has the operator {found['operator']} of the domain {found['domain']}, which "
        + (f"{loaded} does not bring either" if loaded else "ONNX Runtime does not have"),
        hint="name the library that has it: --custom-ops LIB.so; or, from PyTorch, write the operator in ONNX's own: "
        "--custom-ops FILE.py",
        code="custom-ops.unknown",
    )


def foreign_operators(proto: onnx.ModelProto) -> tuple[str, ...]:
    """Return the operators, as ``domain::operator``, that neither ONNX nor ONNX Runtime defines, nor the model."""
    own = {(function.domain, function.name) for function in proto.functions}
    nodes = [node for graph in subgraphs(proto.graph) for node in graph.node]
    nodes += [node for function in proto.functions for node in function.node]
    return tuple(
        dict.fromkeys(
            f"{node.domain}::{node.op_type}"
            for node in nodes
            if node.domain not in _KNOWN_DOMAINS
            and not node.domain.startswith(_OF_ONNXRUNTIME)
            and (node.domain, node.op_type) not in own
        )
    )
