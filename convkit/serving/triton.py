"""A model's config.pbtxt for Triton: how it is called, what it takes and gives, and how the server runs it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from convkit.errors import InputError, UsageError
from convkit.serving.triton_lint import Finding, lint
from convkit.serving.triton_plan import describe_plan
from convkit.serving.triton_text import ModelConfig, parse, proto, render
from convkit.spec.tensor import DType, Interface, TensorSpec
from convkit.targets.target import Accelerator
from convkit.targets.trt_profiles import Profile

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Finding",
    "ServingOptions",
    "Warmup",
    "WarmupInput",
    "cpu_config",
    "lint",
    "model_config",
    "parse",
    "render",
    "wants_gpu",
    "wire_bytes",
]

ONNXRUNTIME = "onnxruntime"
TENSORRT = "tensorrt"

KEPT_ONNX_FILE = "convkit/model.onnx"
"""Where, inside a version's directory, the ONNX model that an engine was built from is kept."""

_GRAPH_LEVELS = {"basic": -1, "extended": 1, "none": 2}

PositiveInt = Annotated[int, msgspec.Meta(ge=1)]
NaturalInt = Annotated[int, msgspec.Meta(ge=0)]


class ServingOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How Triton runs the model: the recipe's table `[triton]`."""

    release: str | None = None
    """The release that will serve the model, such as ``24.10``; by default the oldest that convkit writes for."""
    version_policy: Literal["latest", "all"] | tuple[PositiveInt, ...] = "latest"
    """Which versions are served: the highest, all of them, or those listed."""
    instances: PositiveInt = 1
    """Copies of the model that answer at the same time; on GPUs, on each of them."""
    kind: Literal["cpu", "gpu"] | None = None
    """Where the instances run; None: where the target runs."""
    gpus: tuple[NaturalInt, ...] = ()
    """The GPUs to use, by number; empty: every one that the server sees."""
    dynamic_batching: bool | None = None
    """Whether the server joins waiting requests into one batch; None: where the model has a batch dimension."""
    preferred_batch_sizes: tuple[PositiveInt, ...] = ()
    """Batch sizes that are sent off at once, without waiting for more."""
    max_queue_delay_us: NaturalInt = 100
    """How long, in microseconds, a request may wait for others to join it."""
    cuda_graphs: bool = False
    """TensorRT: whether the server captures CUDA graphs of the engine: small batches launch sooner, at more memory."""
    intra_op_threads: PositiveInt | None = None
    """ONNX Runtime: threads inside one operator; None: one for each physical core."""
    inter_op_threads: PositiveInt | None = None
    """ONNX Runtime: operators run at the same time; None: one at a time."""
    graph_optimization: Literal["none", "basic", "extended", "all"] = "all"
    """ONNX Runtime: how far it rewrites the graph as it loads it."""
    repository: str | None = None
    """Where the server sees the repository, such as ``/models``: libraries of custom operators are named by their whole
    path. By default where it is published."""
    warmup: bool = True
    """Whether the server runs real samples through a version before it calls it ready."""


class WarmupInput(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor of a warm-up request."""

    dtype: DType
    dims: tuple[int, ...]
    """The shape of the data, fixed; without the batch where the model has one, and () for a scalar."""
    file: str
    """A file in the model's folder `warmup/`, as `wire_bytes` writes it; it holds one sample, which Triton repeats."""


class Warmup(msgspec.Struct, frozen=True, kw_only=True):
    """One request that the server makes before it calls a version ready."""

    name: str
    batch_size: PositiveInt = 1
    """How often the sample is repeated along the batch; 1 for a model without a batch."""
    inputs: Mapping[str, WarmupInput]
    """By name on the wire; every input of the model."""


def model_config(
    *,
    name: str,
    interface: Interface,
    backend: str,
    filename: str,
    gpu: bool,
    options: ServingOptions | None = None,
    warmups: Sequence[Warmup] = (),
    parameters: Mapping[str, str] = MappingProxyType({}),
    accelerator: Accelerator | None = None,
    profiles: Sequence[Profile] = (),
    shape_tensors: Collection[str] = (),
    libraries: Sequence[str] = (),
) -> ModelConfig:
    """Say in Triton's words how a model is served; only fields that Triton 24.10 knows are set.

    Args:
        name: the model's name, which is its folder's.
        interface: what callers send and get; names on the wire, dims with the batch in front.
        backend: Triton's name for what runs the model: `onnxruntime`, `tensorrt`, `openvino`.
        filename: the model's file inside a version's directory.
        gpu: whether the target runs on a GPU; `options.kind` overrides it.
        options: the recipe's table `[triton]`.
        parameters: what the target tells its backend, in the backend's words.
        accelerator: what the backend is to hand the graph to.
        profiles: the shapes that a TensorRT plan is built for.
        shape_tensors: those of its inputs and outputs whose values are shapes.
        libraries: whole paths of the libraries that bring operators.
        warmups: requests to make before a version is ready; left out where `options.warmup` is off.

    Raises:
        UsageError: options that exclude each other or the model.
        InputError: an interface that Triton cannot serve; a warm-up that does not fit it.
    """
    options = options or ServingOptions()
    kind = options.kind or ("gpu" if gpu else "cpu")
    _refuse_contradictions(options, kind, backend, interface.max_batch_size)
    _refuse_unbatched(interface)
    _refuse_scalars(interface, backend)
    config = proto().ModelConfig(
        name=name, backend=backend, default_model_filename=filename, max_batch_size=interface.max_batch_size
    )
    for spec in interface.inputs:
        _describe(config.input.add(), spec, batched=interface.max_batch_size > 0)
    for spec in interface.outputs:
        _describe(config.output.add(), spec, batched=interface.max_batch_size > 0)
    _set_version_policy(config, options)
    _set_instances(config, options, kind)
    _set_dynamic_batching(config, options)
    for key, value in parameters.items():
        config.parameters[key].string_value = value
    if backend == ONNXRUNTIME:
        _set_onnxruntime(config, options)
    if accelerator is not None:
        _set_accelerator(config, accelerator)
    if backend == TENSORRT:
        describe_plan(config, interface, profiles, cuda_graphs=options.cuda_graphs, shape_tensors=shape_tensors)
    if libraries:
        config.model_operations.op_library_filename.extend(libraries)
    for warmup in warmups if options.warmup else ():
        _add_warmup(config, warmup)
    return _sound(config)


def wants_gpu(config: ModelConfig) -> bool:
    """Tell whether a configuration cannot be served on a machine without a GPU."""
    gpu = proto().ModelInstanceGroup.KIND_GPU
    return config.backend == TENSORRT or any(group.kind == gpu for group in config.instance_group)


def cpu_config(
    config: ModelConfig,
    *,
    options: ServingOptions | None = None,
    onnx_filename: str = KEPT_ONNX_FILE,
    as_written: bool = False,
) -> ModelConfig:
    """Derive `configs/cpu.pbtxt`, with which `tritonserver --model-config-name=cpu` serves a GPU's repository.

    The interface, the batching and the warm-ups stay. What only a GPU's runtime can load is replaced by the ONNX
    model that it was built from.

    Args:
        config: the main configuration.
        options: the recipe's table `[triton]`; only the settings for ONNX Runtime are used.
        onnx_filename: that ONNX model's file inside a version's directory.
        as_written: ONNX Runtime is not to optimize the graph, since it would spoil it (see `graph.session`).

    Raises:
        InputError: an interface that ONNX Runtime's backend cannot serve.
    """
    derived = proto().ModelConfig()
    derived.CopyFrom(config)
    if config.backend != ONNXRUNTIME:
        derived.backend = ONNXRUNTIME
        derived.default_model_filename = onnx_filename
        derived.ClearField("platform")
        derived.ClearField("parameters")
        derived.ClearField("optimization")
        for tensor in (*derived.input, *derived.output):
            tensor.ClearField("is_shape_tensor")
        _set_onnxruntime(derived, options or ServingOptions())
        if as_written:
            derived.optimization.graph.level = _GRAPH_LEVELS["none"]
    derived.ClearField("cc_model_filenames")
    derived.optimization.ClearField("execution_accelerators")
    if not derived.optimization.ListFields():
        derived.ClearField("optimization")
    derived.ClearField("instance_group")
    counts = [group.count for group in config.instance_group]
    derived.instance_group.add(kind=proto().ModelInstanceGroup.KIND_CPU, count=max([1, *counts]))
    return _sound(derived)


def wire_bytes(values: np.ndarray[Any, Any]) -> bytes:
    """Return an array as Triton sends it: little-endian in C order; a string as its length in 4 bytes, then its UTF-8.

    Args:
        values: an array of numbers, booleans, or objects that are `str` or `bytes`.
    """
    if values.dtype.kind not in "OSU":
        return values.astype(values.dtype.newbyteorder("<"), order="C").tobytes()
    items = (item if isinstance(item, bytes) else str(item).encode() for item in values.reshape(-1).tolist())
    return b"".join(len(item).to_bytes(4, "little") + item for item in items)


def _refuse_contradictions(options: ServingOptions, kind: str, backend: str, max_batch_size: int) -> None:
    if options.gpus and kind == "cpu":
        raise UsageError(
            f"[triton] gpus names GPUs {list(options.gpus)}, but the instances run on the CPU",
            hint='leave gpus out, or say kind = "gpu"',
            code="triton.gpus-on-cpu",
        )
    if backend == TENSORRT and kind == "cpu":
        raise UsageError(
            '[triton] kind = "cpu" cannot be: a TensorRT engine runs on a GPU only',
            hint="leave kind out; convkit writes configs/cpu.pbtxt beside it, for --model-config-name=cpu",
            code="triton.engine-on-cpu",
        )
    if options.cuda_graphs and backend != TENSORRT:
        raise UsageError(
            f"[triton] cuda_graphs is for TensorRT engines, and {backend} runs this model",
            hint="leave cuda_graphs out, or convert --to tensorrt",
            code="triton.cuda-graphs",
        )
    if options.dynamic_batching and max_batch_size == 0:
        raise UsageError(
            "[triton] dynamic_batching = true needs a batch dimension, and this model has none (max_batch_size 0)",
            hint="set batch_size in config.txt, or --max-batch-size, to the largest batch, or leave the option out",
            code="triton.batching-without-batch",
        )
    if options.preferred_batch_sizes and (options.dynamic_batching is False or max_batch_size == 0):
        raise UsageError(
            "[triton] preferred_batch_sizes are for dynamic batching, which is off",
            hint="leave preferred_batch_sizes out, or set dynamic_batching = true",
            code="triton.batching-off",
        )
    too_large = [size for size in options.preferred_batch_sizes if size > max_batch_size]
    if too_large:
        raise UsageError(
            f"[triton] preferred_batch_sizes has {too_large}, and the largest batch is {max_batch_size}",
            hint=f"keep them at or below {max_batch_size}, or raise --max-batch-size",
            code="triton.preferred-batch-too-large",
        )


def _refuse_unbatched(interface: Interface) -> None:
    if interface.max_batch_size == 0:
        return
    for spec in (*interface.inputs, *interface.outputs):
        if not spec.dims or spec.dims[0] == 0:
            raise InputError(
                f"'{spec.name}' has the shape [{', '.join(map(str, spec.dims))}]: its first dimension is no batch",
                hint="set batch_size to 0 in config.txt (--max-batch-size 0): every tensor then keeps its own shape",
                code="triton.no-batch-dimension",
            )


def _refuse_scalars(interface: Interface, backend: str) -> None:
    scalars = [spec.name for spec in (*interface.inputs, *interface.outputs) if not spec.dims]
    if scalars and backend != ONNXRUNTIME:
        raise InputError(
            f"'{scalars[0]}' is a scalar, for which Triton has no shape: its backend {backend} would refuse [1]",
            hint="give the tensor the shape [1] in the model, or convert --to onnxruntime, which serves scalars as [1]",
            code="triton.scalar",
        )


def _describe(tensor: Any, spec: TensorSpec, *, batched: bool) -> None:
    """Fill in one input or output; Triton has no empty `dims`, so one sample that is a single number is sent as [1]."""
    tensor.name = spec.name
    tensor.data_type = proto().DataType.Value(spec.dtype.triton)
    dims = [dim if isinstance(dim, int) else -1 for dim in (spec.dims[1:] if batched else spec.dims)]
    tensor.dims.extend(dims or [1])
    if batched and not dims:
        tensor.reshape.SetInParent()


def _set_version_policy(config: ModelConfig, options: ServingOptions) -> None:
    if options.version_policy == "latest":
        config.version_policy.latest.num_versions = 1
    elif options.version_policy == "all":
        config.version_policy.all.SetInParent()
    else:
        config.version_policy.specific.versions.extend(options.version_policy)


def _set_instances(config: ModelConfig, options: ServingOptions, kind: str) -> None:
    groups = proto().ModelInstanceGroup
    config.instance_group.add(
        kind=groups.KIND_GPU if kind == "gpu" else groups.KIND_CPU, count=options.instances, gpus=options.gpus
    )


def _set_dynamic_batching(config: ModelConfig, options: ServingOptions) -> None:
    if options.dynamic_batching is False or config.max_batch_size == 0:
        return
    config.dynamic_batching.preferred_batch_size.extend(options.preferred_batch_sizes)
    config.dynamic_batching.max_queue_delay_microseconds = options.max_queue_delay_us


def _set_onnxruntime(config: ModelConfig, options: ServingOptions) -> None:
    if options.intra_op_threads is not None:
        config.parameters["intra_op_thread_count"].string_value = str(options.intra_op_threads)
    if options.inter_op_threads is not None:
        config.parameters["inter_op_thread_count"].string_value = str(options.inter_op_threads)
    if options.graph_optimization != "all":
        config.optimization.graph.level = _GRAPH_LEVELS[options.graph_optimization]


def _set_accelerator(config: ModelConfig, accelerator: Accelerator) -> None:
    chosen = config.optimization.execution_accelerators
    place = chosen.gpu_execution_accelerator if accelerator.gpu else chosen.cpu_execution_accelerator
    place.add(name=accelerator.name, parameters=accelerator.parameters)


def _add_warmup(config: ModelConfig, warmup: Warmup) -> None:
    request = config.model_warmup.add(name=warmup.name, batch_size=warmup.batch_size)
    for name, tensor in sorted(warmup.inputs.items()):
        entry = request.inputs[name]
        entry.data_type = proto().DataType.Value(tensor.dtype.triton)
        entry.dims.extend(tensor.dims or (1,))
        entry.input_data_file = tensor.file


def _sound(config: ModelConfig) -> ModelConfig:
    """Return the configuration, or refuse it with everything that `lint` has against it."""
    findings = lint(config)
    if findings:
        raise InputError(
            f"Triton cannot serve {config.name}: " + "; ".join(finding.message for finding in findings),
            hint=findings[0].hint,
            code=findings[0].code,
        )
    return config
