"""What is wrong with a graph as a whole: tensors from nowhere, names given twice, its opset, its weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from convkit.graph.facts import Facts, Placed
from convkit.graph.names import subgraphs
from convkit.targets.finding import Finding, Weight
from convkit.targets.trt_rules import CONVKIT
from convkit.targets.trt_rules_forms import OLDEST_OPSET


def graph_findings(facts: Facts, folder: Path) -> Iterator[Finding]:
    """Find what concerns names, order and files."""
    yield from _weights(facts, folder)
    yield from _from_nowhere(facts)
    yield from _twice(facts)
    yield from _order(facts)
    yield from _opset(facts)
    yield from _unread_inputs(facts)


def _weights(facts: Facts, folder: Path) -> Iterator[Finding]:
    for name, tensor in facts.weights.items():
        places = {entry.key: entry.value for entry in tensor.external_data}
        if tensor.data_location == tensor.EXTERNAL and not (folder / places.get("location", "")).is_file():
            reader = facts.readers.get(name, [None])[0]
            yield Finding(
                code="missing-weights",
                node=reader.name if reader else name,
                operator=reader.operator if reader else "graph",
                reason=f"the weight '{name}' lies in {places.get('location') or 'a file without a name'}, "
                "which is not there",
                fix="bring that file along: it belongs beside the .onnx file",
                found_by=(CONVKIT,),
            )
            return  # one file is missing, not a thousand weights


def _from_nowhere(facts: Facts) -> Iterator[Finding]:
    known = set(facts.makers) | set(facts.weights)
    for graph in subgraphs(facts.graph):
        known |= {value.name for value in graph.input}
        known |= {tensor.values.name for tensor in graph.sparse_initializer}
    for node in facts.nodes:
        missing = [name for name in node.proto.input if name and name not in known]
        if missing:
            yield _at(node, "undefined", f"it reads '{missing[0]}', which nothing makes", "export the model again")
    for value in facts.graph.output:
        if value.name not in known:
            yield Finding(
                code="undefined",
                node=value.name,
                operator="output",
                reason="no node makes it",
                fix="take it out of the graph's outputs, or export the model again",
                found_by=(CONVKIT,),
            )


def _twice(facts: Facts) -> Iterator[Finding]:
    for graph in subgraphs(facts.graph):
        made = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        names: set[str] = set()
        for node in (Placed(node, node.name or f"node {index}") for index, node in enumerate(graph.node)):
            again = [name for name in node.proto.output if name and name in made]
            if again:
                yield _at(node, "made-twice", f"'{again[0]}' has been made before", "give its output another name")
            made.update(node.proto.output)
            if node.proto.name and node.proto.name in names:
                reason = "another node has this name: TensorRT tells layers apart by it"
                yield _at(node, "name-twice", reason, "give every node a name of its own", "names", Weight.WARNING)
            names.add(node.proto.name)


def _order(facts: Facts) -> Iterator[Finding]:
    made = {value.name for value in facts.graph.input} | {tensor.name for tensor in facts.graph.initializer}
    for index, node in enumerate(facts.graph.node):
        late = [name for name in node.input if name in facts.makers and name not in made]
        if late:
            reason = f"it stands before the node that makes '{late[0]}': ONNX wants the order in which nodes can run"
            placed = Placed(node, node.name or f"node {index}")
            yield _at(placed, "order", reason, "sort the nodes", "sort", Weight.WARNING)
            return
        made.update(node.output)


def _opset(facts: Facts) -> Iterator[Finding]:
    from onnx import defs

    newest = defs.onnx_opset_version()
    if 0 < facts.opset < OLDEST_OPSET:
        reason = f"it is in opset {facts.opset}; TensorRT's parser knows those from {OLDEST_OPSET} on"
        yield _whole("old-opset", reason, "raise the opset: --opset 18 in the exporter", "opset")
    elif facts.opset > newest:
        reason = (
            f"it is in opset {facts.opset}, and onnx {newest} is the newest known here: its operators may mean others"
        )
        yield _whole("new-opset", reason, f"export with an opset of {newest} or less", "")


def _whole(code: str, reason: str, fix: str, mend: str) -> Finding:
    return Finding(
        severity=Weight.WARNING,
        code=code,
        node="the model",
        operator="graph",
        reason=reason,
        fix=fix,
        mend=mend,
        found_by=(CONVKIT,),
        beyond_parser=True,
    )


def _unread_inputs(facts: Facts) -> Iterator[Finding]:
    for value in facts.inputs:
        if not facts.is_read(value.name):
            yield Finding(
                severity=Weight.NOTE,
                code="unread-input",
                node=value.name,
                operator="input",
                reason="nothing reads it: an engine keeps it, and a server wants it from every client",
                fix="leave it out of the export",
                found_by=(CONVKIT,),
                beyond_parser=True,
            )


def _at(node: Placed, code: str, reason: str, fix: str, mend: str = "", severity: Weight = Weight.ERROR) -> Finding:
    return Finding(
        severity=severity,
        code=code,
        node=node.name,
        operator=node.operator,
        reason=reason,
        fix=fix,
        mend=mend,
        found_by=(CONVKIT,),
        beyond_parser=severity is not Weight.ERROR,
    )
