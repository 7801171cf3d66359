"""A request held against the disk and this machine, so that what cannot work fails before anything runs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import msgspec

from convkit import custom_ops
from convkit.data.open import Data, open_data
from convkit.errors import InputError, UsageError
from convkit.graph.present import wanted_interface
from convkit.graph.quant_profile import QuantProfile
from convkit.pipeline.artifact import Artifact, digest_file
from convkit.pipeline.extensions import Extension
from convkit.pipeline.runner import Runner
from convkit.request import Request, target_options
from convkit.serving.holding import require_usable
from convkit.serving.releases import OLDEST, TritonRelease, release
from convkit.sources.find import Found, find_model
from convkit.sources.open import open_source, require_extra
from convkit.sources.source import Describing, Source
from convkit.spec.metadata import Metadata, read_metadata
from convkit.spec.options import CalibrationMethod, Precision, SpeedupOver
from convkit.spec.tensor import Interface
from convkit.targets.accelerators import accelerated
from convkit.targets.target import Target, open_target, refuse_impossible

_MOST_SAMPLES = 128
"""Samples for checks and warm-up that are prepared: more than any of them takes."""


class Order:
    """Everything that a conversion needs is there; nothing has run."""

    def __init__(
        self,
        *,
        request: Request,
        found: Found,
        metadata: Metadata | None,
        source: Source,
        target: Target,
        server: TritonRelease,
        samples: Data | None,
        calibration: Data | None,
        evaluation: Data | None,
        extensions: tuple[Extension, ...] = (),
    ) -> None:
        self.request = request
        self.precision = request.quantize.precision
        """What is being made: where `auto` is asked for, what is being tried, and at the end what was chosen."""
        self.found = found
        self.metadata = metadata
        self.source = source
        self.target = target
        self.release = server
        self.extensions = extensions
        """The user's operators."""
        self._data = {"samples": samples, "calibration": calibration, "evaluation": evaluation}
        self.samples: Artifact | None = None
        """The user's inputs for checks: --samples, else the calibration data."""
        self.calibration: Artifact | None = None
        self.evaluation: Artifact | None = None

    @property
    def profile(self) -> QuantProfile:
        """Return what the target makes of a quantized graph in the precision that is being made."""
        profile = self.target.profile
        return profile.in_fp8() if self.precision is Precision.FP8 else profile

    @property
    def method(self) -> CalibrationMethod:
        """Return how ranges are chosen: as asked for, else what suits the precision that is being made."""
        return self.request.quantize.method or self.precision.methods[0]

    def prepare_data(self, run: Runner) -> None:
        """Bring samples, calibration and evaluation data into the form that everything else reads.

        Raises:
            InputError: they cannot be read, or do not fit the model.
            StepError: the user's code raised.
        """
        for name, data in self._data.items():
            if data is not None:
                setattr(self, name, data.prepared(run, lambda: self._interface(run)))

    def _interface(self, run: Runner) -> Interface:
        if isinstance(self.source, Describing):
            return self.source.describe(run)
        if self.metadata is None:
            raise InputError(
                f"a source of the kind '{self.source.kind}' does not say what its inputs are, so that data of this "
                "kind cannot be prepared for them",
                hint="write a config.txt beside the model, or give the data as .npz",
                code="data.no-interface",
            )
        options = self.request.export
        return wanted_interface(self.metadata, options.tensor_names, options.max_batch_size)

    def declared(self) -> dict[str, Any]:
        """Return what was asked for, as the manifest records it: every option that shapes the result, and no path."""
        request = self.request
        return {
            "name": self.found.name,
            "target": request.to,
            "export": {
                **_options(request.export),
                "model_def": Path(request.export.model_def).name if request.export.model_def else None,
                "samples": None,
                "custom_ops": [Path(name).name for name in request.export.custom_ops],
            },
            "simplify": _options(request.simplify),
            "quantize": {**_options(request.quantize), "data": None},
            **self._declared_data(),
            "check": _options(request.check),
            "triton": _options(request.triton),
            request.to: _options(target_options(request, request.to)),
        }

    def sources(self) -> dict[str, str]:
        """Return the digest of every file that the result was made from."""
        digests = _digests("", self.source.files)
        if self.found.config:
            digests["config.txt"] = digest_file(Path(self.found.config))
        digests |= custom_ops.digests(self.extensions)
        for name, data in self._data.items():
            if data is not None and (name != "evaluation" or self.request.accuracy.max_drop is not None):
                digests |= _digests(f"{name}/", data.files) if data.is_plain else {name: data.digest}
        return digests

    def _declared_data(self) -> dict[str, Any]:
        """Return what was asked for of data, where the result depends on it."""
        declared = {}
        options = self.request.preprocess
        if any(data is not None and not data.is_plain for data in self._data.values()):
            function = Path(options.function).name if options.function else None
            declared["preprocess"] = {**_options(options), "function": function}
        if self.request.accuracy.max_drop is not None:
            metric = Path(self.request.accuracy.metric).name if self.request.accuracy.metric else None
            declared["accuracy"] = {**_options(self.request.accuracy), "data": None, "metric": metric}
        return declared


def _digests(prefix: str, files: Artifact) -> dict[str, str]:
    return {prefix + name: digest_file(files.file(name)) for name in files.files}


def _options(table: Any) -> dict[str, Any]:
    return dict(msgspec.to_builtins(table)) if table is not None else {}


def prepare(request: Request) -> Order:
    """Hold a request against the disk and this machine.

    Raises:
        UsageError: options that cannot work together, or not with this target.
        InputError: the model, its config.txt, its data or its name is refused.
        TrustError: code beside the model would run, and nobody said that it may.
        MissingError: an extra or a GPU is missing here.
    """
    target = accelerated(
        open_target(request.to),
        request.onnxruntime,
        kind=request.triton.kind,
        warmup=request.triton.warmup,
        latest_only=request.triton.version_policy == "latest",
    )
    refuse_impossible(target, request.quantize.precision)
    _refuse_unjudgeable(target, request)
    server = release(request.triton.release) if request.triton.release else OLDEST
    _refuse_opset(request, server)
    found = find_model(Path(request.model), config=Path(request.config) if request.config else None, name=request.name)
    if request.framework not in (None, found.framework):
        raise InputError(
            f"the model is said to be {request.framework.value}; {found.path} is {found.written_by}",
            hint="correct MODEL_TYPE (framework in a recipe), or leave it out",
            code="source.other-framework",
        )
    metadata = read_metadata(Path(found.config)) if found.config else None
    calibration = _calibration(request)
    samples = _samples(request) if request.export.samples else calibration
    command = f"convkit convert {shlex.quote(request.model)}"
    source = open_source(found, metadata, request.export, request.trust, command)
    extensions = custom_ops.find_extensions(request.export.custom_ops)
    custom_ops.refuse_useless(extensions, environment=source.environment, target=request.to, backend=target.backend)
    require_extra("onnx")
    target.require(request.engine)
    require_usable(Path(request.output), "--output")
    if request.report_dir is not None:
        require_usable(Path(request.report_dir), "--report-dir")
    return Order(
        request=request,
        found=found,
        metadata=metadata,
        source=source,
        target=target,
        server=server,
        samples=samples,
        calibration=calibration,
        evaluation=_evaluation(request),
        extensions=extensions,
    )


def _refuse_unjudgeable(target: Target, request: Request) -> None:
    """Refuse a gate that nothing could ever be held against.

    Raises:
        UsageError: names the gate and what to ask for instead.
    """
    gates = request.gates
    if gates.min_speedup is not None and target.emulated:
        raise UsageError(
            f"--min-speedup with --to {target.name}: the engine never runs beside the source framework, so there is no "
            "speed-up to measure",
            hint="ask for --max-latency, which is measured where the engine runs"
            if target.backend and not hasattr(target, "accelerator")
            else "leave the gate out, and measure where the engine runs",
            code="gates.impossible",
        )
    never_runs = target.emulated and (target.backend is None or hasattr(target, "accelerator"))
    if gates.max_latency is not None and never_runs:
        raise UsageError(
            f"--max-latency with {target.title}: convkit does not run its engines",
            hint="leave the gate out, and measure where the engine runs",
            code="gates.impossible",
        )
    if (
        gates.min_speedup is not None
        and gates.speedup_over is SpeedupOver.BASELINE
        and request.quantize.precision is Precision.NONE
    ):
        raise UsageError(
            "[gates] speedup_over = 'baseline' compares with the FP32 graph, and without --quantize that is the result",
            hint="leave speedup_over out to compare with the source framework, or add --quantize",
            code="gates.impossible",
        )


def _refuse_opset(request: Request, server: TritonRelease) -> None:
    if request.export.opset is not None and request.export.opset > server.opset:
        raise UsageError(
            f"--opset {request.export.opset}: Triton {server.name} carries ONNX Runtime {server.onnxruntime}, which "
            f"reads opset {server.opset} at most",
            hint=f"ask for --opset {server.opset} or less, or name the release that will serve it with --triton",
            code="usage.opset",
        )


def _calibration(request: Request) -> Data | None:
    options = request.quantize
    if options.data is not None and options.precision is Precision.NONE:
        raise UsageError(
            "--calibration-data is given, and nothing is to be quantized",
            hint="add --quantize int8",
            code="quantize.data-unused",
        )
    if options.precision.is_calibrated and options.data is None and not options.allow_random:
        raise UsageError(
            f"--quantize {options.precision.value} needs calibration data: real inputs from which the ranges are taken",
            hint="--calibration-data FILE.npz (arrays named like the inputs, stacked along the first axis); "
            "--allow-random-calibration to try the pipeline without",
            code="quantize.no-data",
        )
    if options.method is not None and options.method not in options.precision.methods:
        raise UsageError(
            f"--calibration-method {options.method.value} weighs a grid of even steps, and {options.precision.value} "
            "has none",
            hint="use " + " or ".join(method.value for method in options.precision.methods),
            code="quantize.method",
        )
    if options.data is None:
        return None
    return _open(options.data, "--calibration-data", request, at_most=options.samples)


def _samples(request: Request) -> Data:
    return _open(str(request.export.samples), "--samples", request, at_most=_MOST_SAMPLES)


def _evaluation(request: Request) -> Data | None:
    options = request.accuracy
    return _open(options.data, "--eval-data", request, at_most=options.samples) if options.data is not None else None


def _open(text: str, option: str, request: Request, *, at_most: int | None) -> Data:
    return open_data(text, option, options=request.preprocess, labels=request.accuracy.labels, at_most=at_most)
