"""A SavedModel's graph to ONNX: variables become constants, functions are inlined, tf2onnx writes the rest.

The order of these three keeps the peak of memory low (ResNet50: 2.0 GB, against 7.6 GB of tf2onnx's own way from a
SavedModel to ONNX): the graph is read without Python functions, and no weight is held by two libraries for longer than
a step takes.
"""

from __future__ import annotations

import gc
import logging
import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from convkit.errors import InputError, StepError, UsageError
from convkit.graph.names import subgraphs
from convkit.sources.tensorflow_model import SavedModel, tensorflow
from convkit.sources.tensorflow_names import settle

if TYPE_CHECKING:
    import onnx

DEFAULT_OPSET = 18
_MOST_BYTES = 2_000_000_000
"""Weights above which TensorFlow cannot hold a graph with its constants in one message (2 GiB)."""
_VARIABLES = ("VarHandleOp", "Variable", "VariableV2")


def to_onnx(saved: SavedModel, inputs: Sequence[str], outputs: Sequence[str], opset: int) -> onnx.ModelProto:
    """Convert the part of the graph between two sets of tensors; their names stay, the data layout stays.

    Raises:
        UsageError: tf2onnx does not write this opset.
        InputError: the outputs need a placeholder that is not among `inputs`.
        StepError: an operation has no counterpart in ONNX, or the weights are too large for TensorFlow's format.
    """
    _check_opset(opset)
    inputs, outputs = (list(dict.fromkeys(names)) for names in (inputs, outputs))
    graph_def, tables = _frozen(saved, inputs, outputs)
    graph_def = _inlined(graph_def, [*inputs, *outputs])
    gc.collect()
    defaults = _defaults(graph_def, inputs)
    proto = _converted(graph_def, inputs, outputs, opset=opset, tables=tables, defaults=defaults)
    gc.collect()  # tf2onnx's nodes and graphs point at each other
    _refuse_leftovers(proto, opset)
    settle(proto)
    return proto


def count_parameters(saved: SavedModel, outputs: Sequence[str]) -> int:
    """Return the elements of all variables that the outputs depend on; of a frozen graph, of its constants."""
    graph_def = _reachable(saved, outputs)
    if variables := [node.attr["shape"].shape for node in graph_def.node if node.op in _VARIABLES]:
        return sum(map(_elements, variables))
    nodes = (*graph_def.node, *(node for function in graph_def.library.function for node in function.node_def))
    constants = (node.attr["value"].tensor for node in nodes if node.op == "Const")
    return sum(_elements(tensor.tensor_shape) for tensor in constants if _is_weight(tensor))


def _is_weight(tensor: Any) -> bool:
    return bool(tensor.tensor_shape.dim) and tensorflow().as_dtype(tensor.dtype).is_floating


def _elements(shape: Any) -> int:
    return math.prod(dim.size for dim in shape.dim)


def _check_opset(opset: int) -> None:
    from tf2onnx import constants

    newest = max(constants.OPSET_TO_IR_VERSION)
    if opset > newest:
        raise UsageError(
            f"opset {opset} was asked for, tf2onnx writes {newest} at most",
            hint=f"leave --opset out, or ask for {newest} or below",
            code="export.opset",
        )


def _reachable(saved: SavedModel, tensors: Sequence[str]) -> Any:
    tf1 = tensorflow().compat.v1
    names = [name.rpartition(":")[0] for name in tensors]
    return tf1.graph_util.extract_sub_graph(saved.graph.as_graph_def(add_shapes=True), names)


def _frozen(saved: SavedModel, inputs: list[str], outputs: list[str]) -> tuple[Any, dict[bytes, Any]]:
    """Return the graph with its variables as constants, and the content of its lookup tables."""
    tf1 = tensorflow().compat.v1
    graph_def = _reachable(saved, [*inputs, *outputs])
    weights = sum(
        _elements(node.attr["shape"].shape) * tensorflow().as_dtype(node.attr["dtype"].type).size
        for node in graph_def.node
        if node.op in _VARIABLES
    )
    if weights > _MOST_BYTES:
        raise StepError(
            f"the weights take {weights / 1e9:.1f} GB, and TensorFlow's graph format holds 2 GB",
            hint="export a smaller part of the model, or in float16",
            code="export.too-large",
        )
    names = [name.rpartition(":")[0] for name in (*inputs, *outputs)]
    with saved.graph.as_default():
        frozen = tf1.graph_util.convert_variables_to_constants(saved.session, graph_def, names)
        _mend_gathers(frozen)
        return frozen, _tables(saved, frozen)


def _mend_gathers(graph_def: Any) -> None:
    """Let gathers within functions read the constants that TensorFlow's freezing puts in place of their variables."""
    for function in graph_def.library.function:
        for node in function.node_def:
            if node.op in ("ResourceGather", "ResourceGatherNd") and not node.attr["batch_dims"].i:
                node.op = node.op.removeprefix("Resource")
                node.attr["Tparams"].type = node.attr["dtype"].type
                for name in ("dtype", "batch_dims"):
                    node.attr.pop(name, None)


def _tables(saved: SavedModel, graph_def: Any) -> dict[bytes, Any]:
    from tf2onnx.tf_utils import get_hash_table_info

    raw_ops = tensorflow().raw_ops
    tables = {}
    for info in get_hash_table_info(graph_def):
        if info.shared_name is not None:
            handle = raw_ops.HashTableV2(
                key_dtype=info.key_dtype, value_dtype=info.val_dtype, shared_name=info.shared_name
            )
            content = raw_ops.LookupTableExportV2(table_handle=handle, Tkeys=info.key_dtype, Tvalues=info.val_dtype)
            try:
                tables[info.shared_name] = tuple(saved.session.run(content))
            except tensorflow().errors.OpError as error:
                raise StepError(
                    f"the lookup table {info.shared_name.decode()} cannot be read: {error.message.splitlines()[-1]}",
                    hint="it is not filled when the SavedModel is loaded: export it with its initializer",
                    code="export.failed",
                ) from error
    return tables


def _inlined(graph_def: Any, kept: list[str]) -> Any:
    """Fold constants and inline functions with TensorFlow's own optimizer. Empties `graph_def`."""
    from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig
    from tensorflow.python.grappler.tf_optimizer import OptimizeGraph

    tf1 = tensorflow().compat.v1
    for nodes in (graph_def.node, *(function.node_def for function in graph_def.library.function)):
        for node in nodes:
            if "_lower_using_switch_merge" in node.attr:  # tf2onnx reads While and If, not what they are lowered to
                node.attr["_lower_using_switch_merge"].b = False
    config = tf1.ConfigProto()
    config.graph_options.infer_shapes = True
    rewrites = config.graph_options.rewrite_options
    rewrites.optimizers[:] = ["constfold", "function", "dependency"]
    rewrites.function_optimization = RewriterConfig.AGGRESSIVE
    rewrites.min_graph_nodes = -1  # small graphs too
    rewrites.experimental_disable_folding_quantization_emulation = True
    meta_graph = tf1.MetaGraphDef()
    meta_graph.graph_def.CopyFrom(graph_def)
    meta_graph.collection_def["train_op"].node_list.value.extend(kept)
    graph_def.Clear()
    return OptimizeGraph(config, meta_graph)


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
    graph_def: Any, inputs: list[str], outputs: list[str], *, opset: int, tables: dict[bytes, Any], defaults: list[str]
) -> onnx.ModelProto:
    """Let tf2onnx convert and optimize. Empties `graph_def`."""
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
                graph,
                opset=opset,
                input_names=inputs,
                output_names=outputs,
                initialized_tables=tables,
                use_default=defaults,
            )
            onnx_graph = tf2onnx.optimizer.optimize_graph(onnx_graph, catch_errors=False, optimizers=passes)
            proto: onnx.ModelProto = onnx_graph.make_model("")
        except Exception as error:
            complaints.refuse_unsupported()
            where = f" at {', '.join(complaints.failed)}" if complaints.failed else ""
            raise StepError(
                f"tf2onnx failed{where}: {type(error).__name__}: {' '.join(str(error).split())[:600]}",
                hint="the log has the whole of it; an operation that ONNX cannot express must leave the model",
                code="export.failed",
            ) from error
    complaints.refuse_unsupported()
    return proto


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
