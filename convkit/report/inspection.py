"""What `convkit inspect` tells of a model, as one typed document."""

from __future__ import annotations

import msgspec

from convkit.spec.tensor import DType, Interface


class TensorFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One input or output."""

    name: str
    """What clients call it."""
    dtype: str | None
    """As numpy calls it; None where the model does not say, or servers have no such type."""
    dims: tuple[int | str, ...] | None
    """Sizes, and names of dynamic dimensions; None where not even their number is known."""
    tensor: str | None = None
    """The graph's own name for it, where that is another one."""


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """A way to call a model that has several; ``--signature`` chooses."""

    name: str
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]


class DynamicDim(msgspec.Struct, frozen=True, kw_only=True):
    """A dimension that may have several sizes; everywhere the same one in one call."""

    name: str
    places: tuple[str, ...]
    """Where it stands, as ``tokens[1]``: the tensor, and the axis counted from 0."""
    low: int | None = None
    high: int | None = None
    """What config.txt or the server's configuration bounds it by."""


class StoredWeights(msgspec.Struct, frozen=True, kw_only=True):
    """What a PyTorch file stores, told without running anything in it."""

    tensors: int
    elements: int
    bytes: int
    largest: tuple[TensorFacts, ...]
    """The largest ones, with their keys joined by dots."""


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """The ONNX graph that convkit makes of it, simplified."""

    nodes: int
    operators: dict[str, int]
    """Operator types (``domain::Type`` outside ONNX's own domain) and their number, most frequent first."""
    opset: int
    ir_version: int
    exporter: str
    """What wrote it, with the road taken."""


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What one call costs."""

    shapes: dict[str, tuple[int, ...]]
    """The inputs' shapes in that call."""
    macs: int
    """Multiply-accumulates."""
    macs_by_precision: dict[str, int]
    """The same by ``fp32``, ``fp16``, ``bf16``, ``int8``, ``fp8``, ``int4``, as the graph declares it."""
    macs_by_operator: dict[str, int]
    """The same by operator type, most first."""
    bytes_moved: int
    """What the operators read and write, weights included, after ONNX Runtime has fused them."""
    bytes_least: int
    """The weights, the inputs and the outputs: what is moved at least, if caches hold everything else. Tables of
    which a few rows are taken are not counted."""
    intensity: float
    """FLOP (two for each multiply-accumulate) for each byte moved."""


class Roofline(msgspec.Struct, frozen=True, kw_only=True):
    """What bounds a call on this machine's CPU."""

    flops: float
    """FP32 operations a second that this machine has reached, in ONNX Runtime's product of two matrices."""
    bytes_per_s: float
    """Bytes read and written a second that it has reached, copying arrays that no cache holds."""
    threads: int
    ridge: float
    """The intensity, FLOP for each byte, above which arithmetic bounds."""
    bound: str
    """``memory`` or ``arithmetic``."""
    least_ms: float
    """The least time of a call in FP32: all operations at full speed, or `bytes_least` at full bandwidth."""


class Untrusted(msgspec.Struct, frozen=True, kw_only=True):
    """A file that runs code when it is loaded."""

    path: str
    runs: tuple[str, ...]
    """What would be imported or called."""


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """What could not be told."""

    what: str
    why: str
    hint: str
    code: str | None = None
    """That of the error which `convert` would end with; None where nothing went wrong."""


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """A version in a model repository."""

    version: int | None
    pending: bool
    """Its engine is still to be built."""
    backend: str | None
    """Triton's platform or backend."""
    target: str | None = None
    precision: str | None = None
    created: str | None = None
    """As its report says; None where convkit did not make it."""


class EngineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A serialized TensorRT engine; nothing in it is loaded."""

    file: str
    bytes: int
    flavour: str | None
    """``TensorRT`` or ``TensorRT-RTX``, by the file's first bytes; None: they are neither's."""
    version: str | None
    """The version that built it, which alone loads it, unless it was built to be compatible."""
    gpu: str | None = None
    """The GPU that it was built for, as convkit recorded it."""
    layers: int | None = None
    """How many layers it runs, as convkit recorded it."""


class Inspection(msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="convkit.inspection/1"):
    """What `convkit inspect --json` prints."""

    status: str
    """``ok``, or ``partial`` where something is left out that was asked for."""
    exit_code: int
    model: str
    name: str
    """What it would be called in a repository."""
    kind: str
    files: dict[str, int]
    """Its files, with their bytes."""
    config: str | None = None
    """The config.txt that was heeded."""
    framework: str | None = None
    """With its version, where it was loaded."""
    inputs: tuple[TensorFacts, ...] = ()
    outputs: tuple[TensorFacts, ...] = ()
    max_batch_size: int | None = None
    """Triton's; None where it is not known."""
    dynamic: tuple[DynamicDim, ...] = ()
    signatures: tuple[Signature, ...] = ()
    """All that a SavedModel has."""
    arguments: tuple[str, ...] = ()
    """Those of a TorchScript module's ``forward``, where nothing else tells its inputs."""
    parameters: int | None = None
    """Elements of all weights, as the framework counts them."""
    weight_bytes: int | None = None
    stored: StoredWeights | None = None
    graph: Graph | None = None
    work: Work | None = None
    roofline: Roofline | None = None
    untrusted: tuple[Untrusted, ...] = ()
    """Empty: loading it runs nothing but the framework's own code."""
    trusted: bool = False
    """Whether that was allowed to run."""
    published: Published | None = None
    engine: EngineFacts | None = None
    left_out: tuple[LeftOut, ...] = ()
    draft: str | None = None
    """The config.txt that was written."""


def tensor_facts(interface: Interface) -> tuple[tuple[TensorFacts, ...], tuple[TensorFacts, ...]]:
    """Return an interface's inputs and outputs."""
    inputs, outputs = (
        tuple(TensorFacts(name=spec.name, dtype=_named(spec.dtype), dims=spec.dims, tensor=spec.alias) for spec in side)
        for side in (interface.inputs, interface.outputs)
    )
    return inputs, outputs


def _named(dtype: DType | None) -> str | None:
    return dtype.value if dtype is not None else None


def dynamic_dims(interface: Interface) -> tuple[DynamicDim, ...]:
    """Return the dynamic dimensions of inputs and outputs, in order of appearance."""
    places: dict[str, list[str]] = {}
    bounds: dict[str, tuple[int | None, int | None]] = {}
    for spec in (*interface.inputs, *interface.outputs):
        for axis, dim in enumerate(spec.dims):
            if isinstance(dim, str):
                places.setdefault(dim, []).append(f"{spec.name}[{axis}]")
                if spec.max_dims or spec.min_dims:
                    low = spec.min_dims[axis] if spec.min_dims else None
                    bounds.setdefault(dim, (low, spec.max_dims[axis] if spec.max_dims else None))
    if interface.max_batch_size and "batch" in places:
        bounds["batch"] = (1, interface.max_batch_size)
    unbound = (None, None)
    return tuple(
        DynamicDim(name=name, places=tuple(where), low=bounds.get(name, unbound)[0], high=bounds.get(name, unbound)[1])
        for name, where in places.items()
    )


def with_interface(told: Inspection, interface: Interface) -> Inspection:
    """Add a signature."""
    inputs, outputs = tensor_facts(interface)
    return msgspec.structs.replace(
        told,
        inputs=inputs,
        outputs=outputs,
        dynamic=dynamic_dims(interface),
        max_batch_size=interface.max_batch_size,
    )
