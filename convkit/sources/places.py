"""Where in the user's code a graph's nodes come from: module, file and line."""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from convkit.errors import StepError
from convkit.sources.torch_blame import last_place

if TYPE_CHECKING:
    import onnx

_PREFIX = "pkg.torch.onnx."
_FINDING = re.compile(r"^  (?P<node>\S+) \((?P<operator>\w+)\): ", re.MULTILINE)


def places_of(proto: onnx.ModelProto) -> dict[str, str]:
    """Return, for each node of which torch's exporter says it, ``in layers.3 (Attention), net.py, line 12``.

    It is to be asked before the metadata is taken out, which holds whole stack traces with absolute paths.
    """
    found: dict[str, str] = {}
    for node in proto.graph.node:
        said = {entry.key.removeprefix(_PREFIX): entry.value for entry in node.metadata_props}
        line = last_place(said.get("stack_trace", ""))
        if line is not None:
            found.setdefault(node.name, ", ".join((*_module(said), line)))
    return found


def _module(said: Mapping[str, str]) -> list[str]:
    """Return the innermost module's path and class; the last entry of both lists is the operator."""
    scopes, kinds = (ast.literal_eval(said.get(key) or "[]") for key in ("name_scopes", "class_hierarchy"))
    if len(scopes) < 2 or len(kinds) != len(scopes):
        return []
    path, kind = scopes[-2] or "the module itself", kinds[-2].rpartition(".")[2]
    return [f"in {path} ({kind})"]


@contextlib.contextmanager
def naming_places(places: Mapping[str, str]) -> Iterator[None]:
    """Let an error that lists nodes of the graph also say where in the user's code they come from.

    Raises:
        StepError: what was raised within, with the places.
    """
    try:
        yield
    except StepError as error:
        error.message = _FINDING.sub(lambda each: _placed(each, places), error.message)
        error.args = (error.message,)
        raise


def _placed(found: re.Match[str], places: Mapping[str, str]) -> str:
    node, operator = found["node"], found["operator"]
    return f"  {node} ({operator}, {places[node]}): " if node in places else found[0]
