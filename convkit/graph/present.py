"""The face of an exported graph: wire names, named dimensions, and an IR version that servers read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from convkit.errors import InputError, MetadataError
from convkit.graph.names import name_nodes, rename_tensors, separate_outputs, strip_origins
from convkit.spec.metadata import Metadata, TensorMetadata
from convkit.spec.options import TensorNames
from convkit.spec.tensor import DType, Interface, TensorSpec

if TYPE_CHECKING:
    import onnx

BATCH = "batch"
MAX_IR_VERSION = 10
"""What ONNX Runtime 1.19 reads, which Triton 24.10 carries; nothing that convkit writes needs a newer one."""
_MIN_IR_VERSION = 8
"""Below 4 every weight must be an input too; functions inside the model came with 8."""
DEFAULT_MAX_BATCH = 8


def wanted_interface(metadata: Metadata, names: TensorNames, max_batch_size: int | None) -> Interface:
    """Return the interface that config.txt describes; its -1 become named dimensions, the first one ``batch``."""
    batch = metadata.batch_size if max_batch_size is None else max_batch_size
    return Interface(
        inputs=tuple(_spec(tensor, names, batch) for tensor in metadata.inputs),
        outputs=tuple(_spec(tensor, names, batch) for tensor in metadata.outputs),
        max_batch_size=batch,
    )


def _spec(tensor: TensorMetadata, names: TensorNames, max_batch_size: int) -> TensorSpec:
    wire, other = tensor.node_name, tensor.name
    if names is TensorNames.NAME:
        wire, other = other, wire
    return TensorSpec(
        name=wire,
        alias=other if other != wire else None,
        dtype=tensor.dtype,
        dims=tuple(
            _dim_name(wire, axis) if dim == -1 or (axis == 0 and max_batch_size) else dim
            for axis, dim in enumerate(tensor.dims)
        ),
        range=tensor.range,
        min_dims=tensor.min_dims,
        opt_dims=tensor.opt_dims,
        max_dims=tensor.max_dims,
    )


def _dim_name(tensor: str, axis: int) -> str:
    if axis == 0:
        return BATCH
    return "".join(c if c.isalnum() else "_" for c in tensor) + f"_{axis}"


def interface_of(proto: onnx.ModelProto, *, max_batch_size: int | None = None) -> Interface:
    """Read the interface that a graph itself declares. A dimension without a name or number gets a name.

    A first dimension that is dynamic in every input and output, and stands nowhere else, is the batch: it is called
    ``batch``, and `max_batch_size` is 8 unless given.

    Raises:
        InputError: an input or output is a sequence, map or optional, or of a type that no server takes.
    """
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = tuple(_declared(value) for value in proto.graph.input if value.name not in weights)
    outputs = tuple(_declared(value) for value in proto.graph.output)
    for side, specs in (("inputs", inputs), ("outputs", outputs)):
        if not specs:
            raise InputError(
                f"the model has no {side}", hint="export it with what a server is to send and to get", code="model.none"
            )
    firsts = {spec.dims[0] if spec.dims else 0 for spec in (*inputs, *outputs)}
    others = {dim for spec in (*inputs, *outputs) for dim in spec.dims[1:]}
    batched = bool(firsts) and all(isinstance(dim, str) and dim not in others for dim in firsts)
    if batched:
        inputs, outputs = (
            tuple(
                msgspec.structs.replace(spec, dims=tuple(BATCH if dim in firsts else dim for dim in spec.dims))
                for spec in specs
            )
            for specs in (inputs, outputs)
        )
    default = DEFAULT_MAX_BATCH if batched else 0
    return Interface(
        inputs=inputs, outputs=outputs, max_batch_size=default if max_batch_size is None else max_batch_size
    )


def _declared(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise InputError(
            f"'{value.name}' holds a value of the kind '{(kind or 'none').removesuffix('_type')}', not a tensor",
            hint="servers send and take tensors; convert the model without it (for scikit-learn: zipmap off)",
            code="model.not-a-tensor",
        )
    dtype = DType.from_onnx(value.type.tensor_type.elem_type)
    if dtype is None:
        raise InputError(
            f"'{value.name}' has ONNX's element type {value.type.tensor_type.elem_type}, which servers do not take",
            hint="cast it inside the model to a type that config.txt can name",
            code="model.element-type",
        )
    shape = value.type.tensor_type.shape.dim
    if any(_fixed(dim) == 0 for dim in shape):
        raise InputError(
            f"'{value.name}' has a dimension of 0: it can hold nothing",
            hint="export the model again with that dimension free, or with its real size",
            code="model.empty-dimension",
        )
    dims = tuple(_fixed(dim) or _usable(dim.dim_param) or _dim_name(value.name, axis) for axis, dim in enumerate(shape))
    return TensorSpec(name=value.name, dtype=dtype, dims=dims)


def _fixed(dim: onnx.TensorShapeProto.Dimension) -> int | None:
    """Return a dimension's size; None where it is free, which some exporters write as -1."""
    return int(dim.dim_value) if dim.HasField("dim_value") and dim.dim_value >= 0 else None


def _usable(name: str) -> str:
    return "" if name.startswith("unk__") else name  # tf2onnx numbers the dimensions that it does not know


def agreed_interface(
    proto: onnx.ModelProto, wanted: Interface, *, inputs: Sequence[str], outputs: Sequence[str]
) -> Interface:
    """Hold `wanted` against the graph's `inputs` and `outputs` (its tensors, in the order of `wanted`).

    Dimensions that the graph gives one symbol get one name, and an output's free dimension that the graph knows its
    size.

    Raises:
        MetadataError: a type, rank or size in config.txt contradicts the graph; a batch that should be free is fixed.
    """
    return _agree(proto, wanted, inputs, outputs)[0]


def _agree(
    proto: onnx.ModelProto, wanted: Interface, inputs: Sequence[str], outputs: Sequence[str]
) -> tuple[Interface, dict[str, int | str]]:
    """Return the interface that holds, and what became of the graph's own names of dimensions."""
    declared = {value.name: value for value in (*proto.graph.input, *proto.graph.output)}
    symbols: dict[str, int | str] = {}
    new_inputs = tuple(
        _agreed(spec, declared[name], symbols, wanted.max_batch_size)
        for spec, name in zip(wanted.inputs, inputs, strict=True)
    )
    new_outputs = tuple(
        _agreed(spec, declared[name], symbols, wanted.max_batch_size, output=True)
        for spec, name in zip(wanted.outputs, outputs, strict=True)
    )
    return msgspec.structs.replace(wanted, inputs=new_inputs, outputs=new_outputs), symbols


def present(
    proto: onnx.ModelProto, wanted: Interface, *, inputs: Sequence[str], outputs: Sequence[str]
) -> tuple[onnx.ModelProto, Interface]:
    """Give the graph's `inputs` and `outputs` the wanted names and shapes.

    The graph is changed in place and returned with the interface that then holds.

    Raises:
        MetadataError: see `agreed_interface`.
    """
    interface, symbols = _agree(proto, wanted, inputs, outputs)
    new_inputs, new_outputs = interface.inputs, interface.outputs
    strip_origins(proto)
    graph = proto.graph
    name_nodes(graph)
    _reorder(graph, inputs, outputs)
    separate_outputs(graph)
    rename_tensors(graph, dict(zip((v.name for v in graph.input), (s.name for s in new_inputs), strict=True)))
    rename_tensors(graph, dict(zip((v.name for v in graph.output), (s.name for s in new_outputs), strict=True)))
    _forget_shapes_of_weights(graph)
    for value in graph.value_info:
        _rename_dims(value, symbols)
    for values, specs in ((graph.input, new_inputs), (graph.output, new_outputs)):
        for value, spec in zip(values, specs, strict=True):
            _declare(value, spec)
    proto.ir_version = min(max(proto.ir_version, _MIN_IR_VERSION), MAX_IR_VERSION)
    return proto, interface


def _reorder(graph: onnx.GraphProto, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    for values, names in ((graph.input, inputs), (graph.output, outputs)):
        by_name = {value.name: value for value in values}
        ordered = [by_name[name] for name in names]
        copies = [type(value).FromString(value.SerializeToString()) for value in ordered]
        del values[:]
        values.extend(copies)


def _forget_shapes_of_weights(graph: onnx.GraphProto) -> None:
    """Take out what is said of weights besides themselves: a quantizer that transposes one would leave it behind."""
    weights = {tensor.name for tensor in graph.initializer}
    others = [value for value in graph.value_info if value.name not in weights]
    del graph.value_info[:]
    graph.value_info.extend(others)


def _rename_dims(value: onnx.ValueInfoProto, symbols: dict[str, int | str]) -> None:
    """Carry the inputs' dimension names into the graph: simplifiers conclude from them which shapes are equal."""
    for dim in value.type.tensor_type.shape.dim:
        known = symbols.get(dim.dim_param)
        if isinstance(known, int):
            dim.dim_value = known
        elif known is not None:
            dim.dim_param = known


def _declare(value: onnx.ValueInfoProto, spec: TensorSpec) -> None:
    import onnx

    value.CopyFrom(onnx.helper.make_tensor_value_info(spec.name, spec.dtype.onnx, spec.dims))


def _agreed(
    spec: TensorSpec, value: onnx.ValueInfoProto, symbols: dict[str, int | str], max_batch: int, *, output: bool = False
) -> TensorSpec:
    side = "output" if output else "input"
    tensor = value.type.tensor_type
    if tensor.elem_type and tensor.elem_type != spec.dtype.onnx:
        actual = DType.from_onnx(tensor.elem_type)
        raise MetadataError(
            f"config.txt: {side} '{spec.name}' is declared as {spec.dtype.value}, the model has "
            f"{actual.value if actual else tensor.elem_type}",
            hint=f"write data_type '{actual.value if actual else '?'}' for it",
            code="metadata.type-mismatch",
        )
    if not tensor.HasField("shape"):
        return spec
    dims = list(tensor.shape.dim)
    if len(dims) != len(spec.dims):
        raise MetadataError(
            f"config.txt: {side} '{spec.name}' is declared with {len(spec.dims)} dims, the model has {len(dims)}",
            hint="dims is the whole shape, the batch first",
            code="metadata.rank-mismatch",
        )
    return msgspec.structs.replace(
        spec,
        dims=tuple(
            _agreed_dim(spec, side, axis, want, dim, symbols, max_batch)
            for axis, (want, dim) in enumerate(zip(spec.dims, dims, strict=True))
        ),
    )


def _agreed_dim(
    spec: TensorSpec,
    side: str,
    axis: int,
    want: int | str,
    dim: onnx.TensorShapeProto.Dimension,
    symbols: dict[str, int | str],
    max_batch: int,
) -> int | str:
    fixed = _fixed(dim)
    if fixed is not None:
        if want == fixed:
            return want
        free = isinstance(want, str)
        if free and side == "output" and not (axis == 0 and max_batch):
            return fixed
        raise MetadataError(
            f"config.txt: {side} '{spec.name}': dims[{axis}] is {'to be free' if free else want}, "
            f"the model has it fixed at {fixed}",
            hint=(
                'export a model whose batch is free, or say "batch_size": 0 and write the fixed dims'
                if axis == 0 and free
                else f"write {fixed} in config.txt"
            ),
            code="metadata.dims-mismatch",
        )
    return symbols.setdefault(dim.dim_param, want) if dim.dim_param else want
