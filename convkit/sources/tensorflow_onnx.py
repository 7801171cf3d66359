"""A SavedModel's graph to ONNX: variables become constants, functions are inlined, tf2onnx writes the rest.

Its large weights stay out of TensorFlow's passes and out of what tf2onnx writes (see `tensorflow_freeze`): ResNet50
peaks at 1.3 GB, of which TensorFlow and its session are 0.9, against 7.6 GB of tf2onnx's own way from a SavedModel to
ONNX (benchmarks/tensorflow_memory.py).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convkit.errors import InputError, StepError, UsageError
from convkit.graph.names import subgraphs
from convkit.sources.tensorflow_freeze import (
    LARGE,
    VARIABLES,
    Weights,
    elements,
    frozen,
    give_back,
    inlined,
    put_back,
    reachable,
)
from convkit.sources.tensorflow_model import SavedModel, tensorflow
from convkit.sources.tensorflow_names import settle

if TYPE_CHECKING:
    import onnx

DEFAULT_OPSET = 18


def to_onnx(
    saved: SavedModel, inputs: Sequence[str], outputs: Sequence[str], opset: int, *, turned: Collection[str] = ()
) -> onnx.ModelProto:
    """Convert the part of the graph between two sets of tensors; their names stay.

    The data layout stays, but for the inputs and outputs that are `turned`: they get their channels first.

    Raises:
        UsageError: tf2onnx does not write this opset.
        InputError: the outputs need a placeholder that is not among `inputs`.
        StepError: an operation has no counterpart in ONNX, or a weight is too large for TensorFlow's format.
    """
    _check_opset(opset)
    inputs, outputs = (list(dict.fromkeys(names)) for names in (inputs, outputs))
    graph_def, weights, tables = frozen(saved, inputs, outputs)
    graph_def = inlined(graph_def, [*inputs, *outputs])
    put_back(graph_def, weights)
    give_back()
    defaults = _defaults(graph_def, inputs)
    options: dict[str, Any] = {"opset": opset, "initialized_tables": tables, "use_default": defaults}
    for side, names in (("inputs", inputs), ("outputs", outputs)):
        options[f"{side}_as_nchw"] = [name for name in names if name in turned]
    proto = _converted(graph_def, inputs, outputs, weights, options)
    _refuse_leftovers(proto, opset)
    settle(proto)
    return proto


def count_parameters(saved: SavedModel, outputs: Sequence[str]) -> int:
    """Return the elements of all variables that the outputs depend on; of a frozen graph, of its constants."""
    graph_def = reachable(saved, outputs)
    if variables := [node.attr["shape"].shape for node in graph_def.node if node.op in VARIABLES]:
        return sum(map(elements, variables))
    nodes = (*graph_def.node, *(node for function in graph_def.library.function for node in function.node_def))
    constants = (node.attr["value"].tensor for node in nodes if node.op == "Const")
    return sum(elements(tensor.tensor_shape) for tensor in constants if _is_weight(tensor))


def _is_weight(tensor: Any) -> bool:
    return bool(tensor.tensor_shape.dim) and tensorflow().as_dtype(tensor.dtype).is_floating


def _check_opset(opset: int) -> None:
    from tf2onnx import constants

    newest = max(constants.OPSET_TO_IR_VERSION)
    if opset > newest:
        raise UsageError(
            f"opset {opset} was asked for, tf2onnx writes {newest} at most",
            hint=f"leave --opset out, or ask for {newest} or below",
            code="export.opset",
        )


def _defaults(graph_def: Any, inputs: list[str]) -> list[str]:
    """Return the placeholders that take their default because nobody feeds them.

    Raises:
        InputError: one has none.
    """
    fed = {name.rpartition(":")[0] for name in inputs}
    free = [node for node in graph_def.node if node.name not in fed]
    if unfed := [node.name for node in free if node.op == "Placeholder"]:
        raise InputError(
            f"the outputs depend on {', '.join(unfed)}, which is not among the inputs",
            hint="list it in config.txt, or export a signature that takes it",
            code="source.missing-input",
        )
    return [node.name for node in free if node.op == "PlaceholderWithDefault"]


def _converted(
    graph_def: Any, inputs: list[str], outputs: list[str], weights: Weights, options: Mapping[str, Any]
) -> onnx.ModelProto:
    """Let tf2onnx convert, with these arguments of `process_tf_graph`, and optimize.

    Empties `graph_def` and `weights`, each as soon as tf2onnx has it in a form of its own.
    """
    import tf2onnx.optimizer
    import tf2onnx.utils
    from tf2onnx.tfonnx import process_tf_graph

    tf2onnx.utils.INTERNAL_NAME = 1  # it numbers nodes on and on; the same model shall give the same file
    tf1 = tensorflow().compat.v1
    passes = {name: _sparing(make) for name, make in tf2onnx.optimizer._get_optimizers().items()}
    with _Complaints() as complaints, tf1.Graph().as_default() as graph:
        tf1.import_graph_def(graph_def, name="")
        graph_def.Clear()
        try:
            onnx_graph = process_tf_graph(
                graph, input_names=inputs, output_names=outputs, const_node_values=weights, **options
            )
            weights.clear()
            give_back()
            onnx_graph = tf2onnx.optimizer.optimize_graph(onnx_graph, catch_errors=False, optimizers=passes)
            content = _emptied(onnx_graph)
            proto: onnx.ModelProto = onnx_graph.make_model("")
            del onnx_graph
        except Exception as error:
            complaints.refuse_unsupported()
            where = f" at {', '.join(complaints.failed)}" if complaints.failed else ""
            raise StepError(
                f"tf2onnx failed{where}: {type(error).__name__}: {' '.join(str(error).split())[:600]}",
                hint="the log has the whole of it; an operation that ONNX cannot express must leave the model",
                code="export.failed",
            ) from error
    complaints.refuse_unsupported()
    give_back()  # tf2onnx's nodes and graphs point at each other
    for tensor in proto.graph.initializer:
        if tensor.name in content:
            tensor.raw_data = content.pop(tensor.name)
    return proto


def _emptied(graph: Any) -> dict[str, bytes]:
    """Take the content of large constants out of tf2onnx's graph, and return it by the name that a model gives it.

    What the model is made of is copied twice on the way.
    """
    from onnx import TensorProto, helper

    content = {}
    for node in graph.get_nodes():
        if node.is_const() and len(data := node.attr["value"].t.raw_data) >= LARGE:
            tensor = node.attr["value"].t
            content[node.output[0]] = data
            light = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            node.set_attr_onnx(helper.make_attribute("value", light))
    return content


def _sparing(make: Callable[[], Any]) -> Callable[[], Any]:
    """Wrap an optimizer's factory: each pass starts with its nodes in order, and fresh messages for the constants.

    A pass leaves the nodes in the order of their addresses in memory, and the next one numbers what it makes in that
    order. And a protobuf message gives back no memory before it dies, but every pass writes each weight into its node's
    message once more: without fresh ones, ResNet50's optimization takes 2.5 GB in place of 0.1 GB.
    """

    def made() -> Any:
        optimizer = make()
        optimize = optimizer.optimize

        def sparing(graph: Any, iteration: int) -> Any:
            _tidy(graph)
            return optimize(graph, iteration)

        optimizer.optimize = sparing
        return optimizer

    return made


def _tidy(graph: Any) -> None:
    from onnx import NodeProto

    for node in graph.get_nodes():
        for body in (node.get_body_graphs() or {}).values():
            _tidy(body)
        if node.is_const():
            node._op = NodeProto(name=node.name, op_type=node.type, domain=node.domain)
    graph.topological_sort(graph.get_nodes())


class _Complaints(logging.Handler):
    """Listens to tf2onnx, which tells only its log of operations that it leaves as they are."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.unsupported: dict[str, list[str]] = {}
        """Operation to the names of its nodes."""
        self.failed: list[str] = []
        """Nodes whose conversion raised."""

    def __enter__(self) -> _Complaints:
        logging.getLogger("tf2onnx").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("tf2onnx").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what the two messages on single nodes say."""
        message = record.getMessage()
        if found := re.match(r"Tensorflow op \[(.+): (\S+)\] is not supported", message):
            self.unsupported.setdefault(found.group(2), []).append(found.group(1))
        elif found := re.match(r"Failed to convert node '([^']+)'", message):
            self.failed.append(found.group(1))

    def refuse_unsupported(self) -> None:
        """Raise a StepError where an operation was left."""
        if self.unsupported:
            raise _unsupported(self.unsupported)


def _refuse_leftovers(proto: onnx.ModelProto, opset: int) -> None:
    """Look at every node for an operation that is none of ONNX's, should the log have kept quiet."""
    import onnx

    unknown: dict[str, list[str]] = {}
    for graph in subgraphs(proto.graph):
        for node in graph.node:
            if not onnx.defs.has(node.op_type, opset, node.domain):
                unknown.setdefault(node.op_type, []).append(node.name)
    if unknown:
        raise _unsupported(unknown)


def _unsupported(nodes: dict[str, list[str]]) -> StepError:
    listed = "; ".join(f"{operation} ({', '.join(names[:3])})" for operation, names in sorted(nodes.items()))
    return StepError(
        f"operations of TensorFlow without a counterpart in ONNX: {listed}",
        hint="write that part of the model with other operations, or take it out of the signature (before or after it)",
        code="export.unsupported-operator",
    )
