"""The recipe's tables `[tensorrt]` and `[tensorrt-rtx]`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import msgspec

from convkit.errors import UsageError
from convkit.spec.size import parse_size as parse_any_size
from convkit.targets.trt_api import Flavour

Size = Annotated[int, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Memory = str | int
"""Bytes, or a text such as ``4GiB``."""

_TYPED = "networks are strongly typed: precision is in the graph, and --quantize chooses it"

RTX_COMPUTE_CAPABILITIES = ("8.6", "8.9", "12.0")
"""GeForce and RTX GPUs since Ampere. Turing (7.5) is left out: it has no FP32 matrix product in TensorRT-RTX, so an
FP32 model cannot be built for it."""


FP8_SINCE = "8.9"
"""The first compute capability with FP8: TensorRT-RTX 1.7.1 refuses to build an FP8 network for 8.6."""


def has_fp8(compute_capability: str) -> bool:
    """Tell whether GPUs of that compute capability multiply in FP8."""
    return _version(compute_capability) >= _version(FP8_SINCE)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdecimal())


class ShapeRange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shapes that one input may take in a profile, batch included; `opt` is the one to be fastest at."""

    min: tuple[Size, ...]
    opt: tuple[Size, ...]
    max: tuple[Size, ...]


class TensorRTOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[tensorrt]`, `[tensorrt-rtx]`: how an engine is built. Each flavour refuses what it does not have."""

    profiles: tuple[dict[str, ShapeRange], ...] = ()
    """Optimization profiles: tables from an input's wire name to its `min`, `opt` and `max` shape; of an input whose
    values are a shape, these values. Empty: one profile, from config.txt's min_dims, opt_dims, max_dims and batch size,
    and the values in the samples."""
    workspace: str | int | None = None
    """The most scratch memory that a layer may take on the GPU: bytes, or a text such as ``4GiB``. None: no limit."""
    builder_optimization_level: Annotated[int, msgspec.Meta(ge=0, le=5)] | None = None
    """From 0, built soonest, to 5, searched longest. None: TensorRT's default, 3."""
    hardware_compatibility: str | None = None
    """TensorRT's HardwareCompatibilityLevel by name, such as ``AMPERE_PLUS``: the plan then runs on other GPU
    architectures too, more slowly. `tensorrt` only."""
    version_compatible: bool = False
    """The plan then runs on later TensorRT releases too. `tensorrt` only."""
    refit: bool = False
    """The plan takes other weights later: of a model that was trained again with the same graph, `convkit build`, and
    `convkit convert` where a GPU is, make the plan from the version before instead of building it, which takes seconds.
    `tensorrt` only."""
    compute_capabilities: tuple[str, ...] = ()
    """The GPUs to build for, such as ``8.9`` and ``12.0``. Empty: 8.6, 8.9 and 12.0. `tensorrt-rtx` only."""

    flags: tuple[str, ...] = ()
    """Members of TensorRT's BuilderFlag to set, such as ``WEIGHT_STREAMING``."""
    clear_flags: tuple[str, ...] = ()
    """Members of BuilderFlag to clear: ``TF32`` is set unless it is cleared."""
    preview_features: tuple[str, ...] = ()
    """Members of PreviewFeature to switch on."""
    tactic_sources: tuple[str, ...] | None = None
    """Members of TacticSource to choose from, and no others. None: TensorRT's default."""
    memory_pools: dict[str, Memory] = {}
    """The most that each pool may take, by its name in MemoryPoolType; WORKSPACE is `workspace`."""
    avg_timing_iterations: Count | None = None
    """How often each tactic is timed."""
    max_aux_streams: Size | None = None
    """Streams beside the caller's own on which an engine may run."""
    max_num_tactics: Annotated[int, msgspec.Meta(ge=-1)] | None = None
    """The most tactics that are tried for a layer; -1: TensorRT decides."""
    max_threads: Count | None = None
    """Threads that the builder may use."""
    tiling_optimization_level: str | None = None
    """A member of TilingOptimizationLevel, such as ``FAST``."""
    l2_limit_for_tiling: Memory | None = None
    """The most of the L2 cache that tiling may use."""
    profiling_verbosity: str | None = None
    """A member of ProfilingVerbosity. None: DETAILED, without which nobody can tell what a layer runs in."""
    engine_capability: str | None = None
    """A member of EngineCapability."""
    default_device_type: str | None = None
    """A member of DeviceType: ``DLA`` runs what it can on the deep learning accelerator."""
    DLA_core: Size | None = None
    """The deep learning accelerator's number."""
    runtime_platform: str | None = None
    """A member of RuntimePlatform: where the plan is to run."""
    plugins_to_serialize: tuple[str, ...] = ()
    """Paths, on the machine that builds, of plugin libraries that go into a version compatible plan."""
    remote_auto_tuning_config: str | None = None
    """TensorRT's configuration of remote auto tuning. `tensorrt` only."""
    build_route: str | None = None
    """Which of its ways TensorRT builds by; since TensorRT 11 and in TensorRT-RTX."""

    REFUSED: ClassVar[Mapping[str, str]] = {
        "int8_calibrator": _TYPED,
        "quantization_flags": _TYPED,
        "algorithm_selector": "it is an object, which no recipe can name; leave the choice of tactics to TensorRT",
        "progress_monitor": "convkit shows the progress itself",
        "profile_stream": "it is an address in a process; convkit has a stream of its own",
        "hardware_compatibility_level": "write hardware_compatibility",
        "num_compute_capabilities": "write compute_capabilities: their number follows",
    }
    """Keys of the API that are no keys here, and why."""

    @property
    def workspace_bytes(self) -> int | None:
        """Return the workspace limit in bytes.

        Raises:
            UsageError: the text is no size.
        """
        return None if self.workspace is None else parse_size(self.workspace)


def parse_size(text: str | int) -> int:
    """Return the bytes that a size such as ``4GiB``, ``512 MB`` or ``1073741824`` means.

    Raises:
        UsageError: it is no size, or not above 0.
    """
    size = parse_any_size(text) or 0
    if size < 1:
        raise UsageError(
            f"'{text}' is not a size of memory for the workspace",
            hint="write a number of bytes, or a text such as '4GiB' or '512MB'",
            code="tensorrt.workspace",
        )
    return size


def check_options(options: TensorRTOptions, flavour: Flavour) -> None:
    """Refuse what the flavour does not have. Needs no TensorRT.

    Raises:
        UsageError: names the option.
    """
    options.workspace_bytes  # noqa: B018 - refuses a malformed one
    if flavour is Flavour.TENSORRT and options.compute_capabilities:
        raise _without(
            flavour,
            "compute_capabilities",
            'TensorRT builds for the GPU that it runs on; hardware_compatibility = "AMPERE_PLUS" widens that',
        )
    if flavour is Flavour.TENSORRT_RTX and options.hardware_compatibility:
        raise _without(flavour, "hardware_compatibility", "name the GPUs in compute_capabilities")
    if flavour is Flavour.TENSORRT_RTX and options.refit:
        raise _without(flavour, "refit", "leave it out: these engines are built in seconds, and without a GPU")
    if flavour is Flavour.TENSORRT_RTX and options.version_compatible:
        raise _without(flavour, "version_compatible", "leave it out, and build again for another version")


def backend_flags(options: TensorRTOptions) -> tuple[str, ...]:
    """Return what a Triton server has to be started with to load the plan.

    https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/tensorrt_backend/README.html
    """
    return ("--backend-config=tensorrt,version-compatible=true",) if options.version_compatible else ()


def only_with_fp8(options: TensorRTOptions) -> TensorRTOptions:
    """Return `[tensorrt-rtx]` for an FP8 model: of the default GPUs those that have it.

    Raises:
        UsageError: one was asked for that has none.
    """
    wanted = options.compute_capabilities or RTX_COMPUTE_CAPABILITIES
    without = [each for each in wanted if not has_fp8(each)]
    if without and options.compute_capabilities:
        raise UsageError(
            f"--quantize fp8: GPUs of compute capability {', '.join(without)} have no FP8; {FP8_SINCE} is the first",
            hint="leave them out of compute_capabilities, or use --quantize int8 with the same data",
            code="tensorrt.no-fp8",
        )
    return msgspec.structs.replace(options, compute_capabilities=tuple(each for each in wanted if each not in without))


def _without(flavour: Flavour, option: str, instead: str) -> UsageError:
    return UsageError(
        f"[{flavour}] {option}: {flavour.product} has no such setting", hint=instead, code="tensorrt.option"
    )
