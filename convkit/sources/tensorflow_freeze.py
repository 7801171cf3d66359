"""A SavedModel's graph without its variables: large weights are left where they are until tf2onnx asks for them.

TensorFlow's own way makes every weight a constant of one message, and each of its passes copies that message, in
Python, in C++ and back: ResNet50's 100 MB took 0.9 GB there. Here a large weight is a placeholder while TensorFlow
works on the graph, and a constant without content, which tf2onnx knows how to take, once it has.
"""

from __future__ import annotations

import ctypes
import gc
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convkit.errors import StepError
from convkit.sources.tensorflow_model import SavedModel, tensorflow

if TYPE_CHECKING:
    import numpy as np

VARIABLES = ("VarHandleOp", "Variable", "VariableV2")
_MOST_BYTES = 2_000_000_000
"""What one weight may take: TensorFlow and ONNX each hold a tensor in a message, which has 2 GiB at most."""
LARGE = 1 << 16
"""Bytes from which a weight is left out of the graph. Smaller ones may be shapes, or are cheap to fold into others."""


class _Zero(float):
    """A zero that says it had a shape: TensorFlow writes it as one number for all elements."""

    def __new__(cls, shape: tuple[int, ...]) -> _Zero:
        made = super().__new__(cls, 0.0)
        made.shape = shape
        return made

    shape: tuple[int, ...]


class Weights(Mapping[str, bytes]):
    """The content of large weights by the name of their node."""

    def __init__(self, saved: SavedModel) -> None:
        self._saved = saved
        self._variables: dict[str, np.ndarray] = {}
        self._constants: dict[str, bytes] = {}
        self.types: dict[str, int] = {}
        """Each one's element type, TensorFlow's number for it."""
        self.shapes: dict[str, tuple[int, ...]] = {}

    def __getitem__(self, name: str) -> bytes:
        if name in self._constants:
            return self._constants[name]
        return self._variables[name].tobytes()

    def __contains__(self, name: object) -> bool:
        return name in self.types

    def __iter__(self) -> Iterator[str]:
        return iter(self.types)

    def __len__(self) -> int:
        return len(self.types)

    def clear(self) -> None:
        """Let go of the content; names, types and shapes stay."""
        self._variables.clear()
        self._constants.clear()

    def run(self, names: list[str]) -> list[Any]:
        """Stand for the session in TensorFlow's freezing: a large variable's value is a zero, for the time being."""
        values = list(self._saved.session.run(names))  # at once: each run prunes the whole graph anew
        for position, name in enumerate(names):
            tensor = self._saved.graph.get_tensor_by_name(name)
            dtype = tensor.dtype.base_dtype
            if (dtype.is_floating or dtype.is_integer) and values[position].nbytes >= LARGE:
                node = tensor.op.inputs[0].op.name if tensor.op.inputs else tensor.op.name
                self._variables[node] = values[position]
                self._note(node, dtype.as_datatype_enum, values[position].shape)
                values[position] = _Zero(values[position].shape)
        return values

    def take_constants(self, graph_def: Any) -> None:
        """Take the content of the graph's own large constants."""
        for node in graph_def.node:
            tensor = node.attr["value"].tensor if node.op == "Const" else None
            if tensor is not None and len(tensor.tensor_content) >= LARGE:
                self._constants[node.name] = tensor.tensor_content
                self._note(node.name, tensor.dtype, [dim.size for dim in tensor.tensor_shape.dim])

    def _note(self, node: str, type_number: int, shape: Sequence[int]) -> None:
        self.types[node], self.shapes[node] = type_number, tuple(shape)


def reachable(saved: SavedModel, tensors: Sequence[str]) -> Any:
    """Return the part of the graph that these tensors depend on."""
    tf1 = tensorflow().compat.v1
    names = [name.rpartition(":")[0] for name in tensors]
    return tf1.graph_util.extract_sub_graph(saved.graph.as_graph_def(add_shapes=True), names)


def frozen(saved: SavedModel, inputs: Sequence[str], outputs: Sequence[str]) -> tuple[Any, Weights, dict[bytes, Any]]:
    """Return the graph with its variables as constants, its large weights, and the content of its lookup tables.

    The large weights are placeholders in the graph; `put_back` makes constants of them.

    Raises:
        StepError: a weight is too large for TensorFlow's format, or a table cannot be read.
    """
    tf1 = tensorflow().compat.v1
    graph_def = reachable(saved, [*inputs, *outputs])
    _refuse_too_large(graph_def)
    names = [name.rpartition(":")[0] for name in (*inputs, *outputs)]
    held = Weights(saved)
    with saved.graph.as_default():
        found = tf1.graph_util.convert_variables_to_constants(held, graph_def, names)
        held.take_constants(found)
        _take_out(found, held)
        _mend_gathers(found)
        return found, held, _tables(saved, found)


def _refuse_too_large(graph_def: Any) -> None:
    for node in graph_def.node:
        if node.op in VARIABLES:
            size = elements(node.attr["shape"].shape) * tensorflow().as_dtype(node.attr["dtype"].type).size
            if size > _MOST_BYTES:
                raise StepError(
                    f"the weight '{node.name}' takes {size / 1e9:.1f} GB, and a tensor's format holds 2 GB",
                    hint="split it (an embedding by its rows), or keep it in float16",
                    code="export.too-large",
                )


def _take_out(graph_def: Any, held: Weights) -> None:
    for node in graph_def.node:
        if node.name in held.types:
            node.op = "Placeholder"
            node.attr.pop("value", None)
            node.attr["dtype"].type = held.types[node.name]
            _write_shape(node.attr["shape"].shape, held.shapes[node.name])


def put_back(graph_def: Any, held: Weights) -> None:
    """Make constants of the placeholders for large weights; their content is left out, as tf2onnx reads it itself."""
    for node in graph_def.node:
        if node.name in held.types and node.op == "Placeholder":
            node.op = "Const"
            node.attr.pop("shape", None)
            node.attr["value"].tensor.dtype = held.types[node.name]
            _write_shape(node.attr["value"].tensor.tensor_shape, held.shapes[node.name])


def _write_shape(message: Any, dims: Sequence[int]) -> None:
    message.Clear()
    for size in dims:
        message.dim.add(size=size)


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


def inlined(graph_def: Any, kept: Sequence[str]) -> Any:
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


def elements(shape: Any) -> int:
    """Return the elements of a tensor of this shape, a message of TensorFlow's."""
    return math.prod(dim.size for dim in shape.dim)


def give_back() -> None:
    """Let the process give back the memory that nothing holds any more, of which TensorFlow leaves much in pieces."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
