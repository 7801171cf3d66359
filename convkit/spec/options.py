"""What a user may ask of each stage. Every structure here is a table of the recipe."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import msgspec

from convkit.errors import UsageError
from convkit.spec.duration import parse_duration
from convkit.spec.share import parse_share
from convkit.spec.size import parse_size

Positive = Annotated[int, msgspec.Meta(ge=1)]


class TensorNames(Enum):
    """Which of config.txt's names goes over the wire."""

    NODE_NAME = "node_name"
    NAME = "name"


class TensorLayout(Enum):
    """How callers see a TensorFlow model's images."""

    KEEP = "keep"
    """As the model has them: channels last."""
    NCHW = "nchw"
    """Channels first: every input and output of four dimensions is turned."""


class Precision(Enum):
    """What `--quantize` asks for."""

    NONE = "none"
    DYNAMIC = "dynamic"
    INT8 = "int8"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8_FP16 = "int8+fp16"
    INT4 = "int4"
    FP8 = "fp8"
    """E4M3, for the TensorRT family."""
    AUTO = "auto"
    """Whatever pays for the model on the target."""

    @property
    def is_calibrated(self) -> bool:
        """Tell whether the ranges of activations are taken from calibration data."""
        return self in (Precision.INT8, Precision.INT8_FP16, Precision.FP8)

    @property
    def methods(self) -> tuple[CalibrationMethod, ...]:
        """Return how ranges can be chosen for it, the default first.

        For even steps that is `mse`: of the four it left the least noise in the outputs of ResNet50, MobileNetV2 and an
        encoder (benchmarks/quantize.py), at the same speed. Entropy and mse are about even steps, and FP8's are not.
        """
        return FOR_UNEVEN_STEPS if self is Precision.FP8 else FOR_EVEN_STEPS

    @property
    def bits(self) -> int:
        """Return the bits that an operand of a multiplication has at most."""
        return {"none": 32, "fp16": 16, "bf16": 16, "int4": 4}.get(self.value, 8)


class CalibrationMethod(Enum):
    """How a range is chosen from what calibration saw."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"
    MSE = "mse"


FOR_UNEVEN_STEPS = (CalibrationMethod.MINMAX, CalibrationMethod.PERCENTILE)
FOR_EVEN_STEPS = (CalibrationMethod.MSE, *(each for each in CalibrationMethod if each is not CalibrationMethod.MSE))


class MeasureMode(Enum):
    """How long to measure: not at all, seconds, or until the interval is narrow."""

    NONE = "none"
    QUICK = "quick"
    FULL = "full"


class EngineMode(Enum):
    """Whether an engine is built now or prepared for `convkit build`."""

    AUTO = "auto"
    NOW = "now"
    DEFER = "defer"


class ExportOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[export]`: from the framework to ONNX."""

    model_def: str | None = None
    """``FILE.py:factory`` or ``module:factory``: a function that returns the torch.nn.Module of a state dict."""
    state_key: str | None = None
    """Where a checkpoint keeps the weights: keys joined by dots, as in ``ema.module``; by default where they fit."""
    signature: str | None = None
    """The SavedModel's signature; by default ``serving_default``, or the only one."""
    opset: Annotated[int, msgspec.Meta(ge=13, le=26)] | None = None
    """The ONNX opset to write; by default 20 from PyTorch, 18 from TensorFlow, an ONNX file's own."""
    layout: TensorLayout = TensorLayout.KEEP
    """``nchw`` turns every input and output of four dimensions of a TensorFlow model, for callers, samples and
    config.pbtxt; config.txt goes on to say what the model has."""
    tensor_names: TensorNames = TensorNames.NODE_NAME
    """Which of config.txt's names goes over the wire."""
    max_batch_size: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Triton's max_batch_size; by default config.txt's batch_size, else 8 for a dynamic batch and 0 for a fixed one."""
    samples: str | None = None
    """A ``.npz`` file of inputs for checks, measurements and warm-up."""
    custom_ops: tuple[str, ...] = ()
    """Operators of your own: libraries that ONNX Runtime loads, here and in the repository, and Python files that
    register PyTorch operators and say how they are written as ONNX."""


class Simplifier(Enum):
    """A library that folds constants and fuses nodes."""

    ONNXSLIM = "onnxslim"
    ONNXSIM = "onnxsim"


class SimplifyOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[simplify]`: fewer nodes, the same numbers."""

    chain: tuple[Simplifier, ...] = (Simplifier.ONNXSLIM, Simplifier.ONNXSIM)
    """The simplifiers to try, in order; empty leaves the graph as the exporter wrote it."""


class QuantizeOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[quantize]`: a smaller number format."""

    precision: Precision = Precision.NONE
    data: str | None = None
    """Calibration data: a ``.npz`` file whose arrays are stacked along the first axis, or a folder of such files."""
    method: CalibrationMethod | None = None
    """How a range is chosen from what calibration saw; by default mse, for FP8 minmax."""
    samples: Positive = 128
    """At most this many samples of the calibration data are used."""
    repair: bool = True
    """Rescale channels before INT8 or FP8 (equalization, SmoothQuant) where that leaves less noise in the outputs; the
    FP32 numbers stay what they are."""
    allow_random: bool = False
    """Calibrate on random inputs where no data are given. The scales then mean little."""


class CheckOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[check]`: how far the final model may differ from the source framework's outputs."""

    max_error: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Largest absolute difference of any element; replaces the precision's default tolerance."""
    min_sqnr: float | None = None
    """Least signal-to-quantization-noise ratio of any output, in dB; replaces the precision's default tolerance."""

    def where_judged(self, precision: Precision) -> CheckOptions:
        """Return the tolerance of a model whose accuracy is judged: where nothing was asked for, noise up to the signal
        (0 dB) once numbers have been narrowed."""
        return CheckOptions(min_sqnr=0.0) if self == CheckOptions() and precision is not Precision.NONE else self


class MeasureOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[measure]`: latency and throughput, before and after."""

    mode: MeasureMode = MeasureMode.QUICK


class SpeedupOver(Enum):
    """What `--min-speedup` compares the final model with."""

    SOURCE = "source"
    """The source framework."""
    BASELINE = "baseline"
    """The simplified FP32 graph in ONNX Runtime."""


class GateOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[gates]`: demands on the result; where one is missed, or cannot be judged for sure, nothing is published."""

    max_latency: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Longest median latency of one call of the final model, in ms."""
    min_speedup: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """How many times as fast the final model must be at least, both measured in alternation."""
    speedup_over: SpeedupOver = SpeedupOver.SOURCE
    """What `min_speedup` compares it with."""
    max_size: str | int | None = None
    """Largest size of what the runtime loads: bytes, or a text such as ``10MB`` (10^6 bytes) or ``10MiB`` (2^20)."""

    min_low_precision: str | float | None = None
    """Least share of multiply-accumulates that must run in the precision asked for, or a lower one: ``90%`` or 0.9."""

    @property
    def min_low_precision_share(self) -> float | None:
        """Return the least share, 0 to 1.

        Raises:
            UsageError: the text is no share.
        """
        if self.min_low_precision is None:
            return None
        share = parse_share(self.min_low_precision)
        if share is None:
            raise UsageError(
                f"'{self.min_low_precision}' is no share",
                hint="write a percentage such as '90%', or a number between 0 and 1",
                code="gates.share",
            )
        return share

    @property
    def max_size_bytes(self) -> int | None:
        """Return the largest size in bytes.

        Raises:
            UsageError: the text is no size.
        """
        if self.max_size is None:
            return None
        size = parse_size(self.max_size)
        if size is None:
            raise UsageError(
                f"'{self.max_size}' is no size",
                hint="write a number of bytes, or a text such as '10MB' or '10MiB'",
                code="gates.size",
            )
        return size


class LimitOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[limits]`: what the processes that do the work may take; one that takes more is ended."""

    memory: str | int | None = None
    """Most memory of all worker processes together: bytes, or a text such as ``8GB`` (8·10^9 bytes) or ``8GiB`` (2^33);
    by default what the machine or the container has, less a little for convkit itself."""
    time: str | float | None = None
    """Longest time that one step may run: seconds, or a text such as ``90s``, ``30m`` or ``1h30m``. By
    default any; but one run of the model, on one batch, 10 minutes."""

    @property
    def memory_bytes(self) -> int | None:
        """Return the most memory in bytes; None: whatever there is.

        Raises:
            UsageError: the text is no size, or 0.
        """
        if self.memory is None:
            return None
        size = parse_size(self.memory)
        if not size:
            raise UsageError(
                f"'{self.memory}' is no size that a process could keep to",
                hint="write a number of bytes, or a text such as '8GB' or '8GiB'",
                code="limits.memory",
            )
        return size

    @property
    def seconds(self) -> float | None:
        """Return the longest time of a step in seconds; None: any.

        Raises:
            UsageError: the text is no time, or 0.
        """
        if self.time is None:
            return None
        seconds = parse_duration(self.time)
        if not seconds:
            raise UsageError(
                f"'{self.time}' is no time that a step could keep to",
                hint="write a number of seconds, or a text such as '90s', '30m' or '1h30m'",
                code="limits.time",
            )
        return seconds
