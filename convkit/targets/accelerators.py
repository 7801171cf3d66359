"""ONNX Runtime with an execution accelerator: the ONNX file is what the server loads, and compiles as it loads it.

The names of the parameters are those of Triton's onnxruntime backend (its README, "ONNX Runtime with TensorRT
optimization"); one that it does not know keeps it from loading a model, so that only those of Triton 24.10 are written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from convkit.errors import UsageError
from convkit.graph.model import MODEL_FILE, Model
from convkit.graph.quant_profile import QuantProfile
from convkit.graph.shape_inputs import shape_inputs
from convkit.pipeline.events import Warned
from convkit.pipeline.runner import Runner
from convkit.spec.options import EngineMode, Precision
from convkit.targets.onnxruntime import OnnxRuntime
from convkit.targets.onnxruntime_options import AcceleratorName, OnnxRuntimeOptions
from convkit.targets.onnxruntime_profile import PROFILE
from convkit.targets.openvino_profile import PROFILE as OPENVINO_PROFILE
from convkit.targets.ort_profiles import provider_options, tuned_for_largest, unreadable_name
from convkit.targets.target import Accelerator, Compiled, Job, Refusal, Target
from convkit.targets.trt_api import Flavour, installed
from convkit.targets.trt_options import TensorRTOptions
from convkit.targets.trt_parse import parse_rtx
from convkit.targets.trt_profile import TENSORRT_PROFILE
from convkit.targets.trt_profiles import Profile
from convkit.targets.trt_together import choose_profiles

PRECISION_MODES: Mapping[Precision, str] = {
    Precision.NONE: "FP32",
    Precision.FP16: "FP16",
    Precision.INT8: "INT8",
}
"""The backend's `precision_mode`: one word, which lets TensorRT compute in that type besides FP32."""


class _Accelerated:
    """What all accelerators have in common: the target `onnxruntime`, of which this machine cannot run the result."""

    name = OnnxRuntime.name
    backend: str | None = OnnxRuntime.backend
    filename = MODEL_FILE
    emulated = True
    options = OnnxRuntimeOptions
    accelerator: AcceleratorName
    gpu: bool

    def require(self, engine: EngineMode) -> None:
        """Refuse a wish for an engine, as the target without an accelerator does.

        Raises:
            UsageError: an engine was asked for.
        """
        OnnxRuntime().require(engine)


class WithTensorRT(_Accelerated):
    """TensorRT builds engines of the graph when the server loads the model; Triton waits for them."""

    title = "ONNX Runtime with TensorRT"
    accelerator = AcceleratorName.TENSORRT
    gpu = True
    profile: QuantProfile = TENSORRT_PROFILE
    refusals: Mapping[Precision, Refusal] = {
        Precision.DYNAMIC: Refusal(
            reason="TensorRT has no dynamic quantization: it takes scales that were calibrated beforehand",
            instead="use --quantize int8 --calibration-data FILE, or --quantize fp16, which needs no data",
        ),
        Precision.BF16: Refusal(
            reason="Triton's onnxruntime backend has precision modes for fp32, fp16 and int8 alone",
            instead="--quantize fp16, or --to tensorrt",
        ),
        Precision.INT8_FP16: Refusal(
            reason="Triton's onnxruntime backend takes one precision mode, fp16 or int8",
            instead="--quantize int8 with the same data, or --to tensorrt",
        ),
        Precision.FP8: Refusal(
            reason="Triton's onnxruntime backend has no precision mode for FP8",
            instead="--quantize int8 with the same data, or --to tensorrt",
        ),
        Precision.INT4: Refusal(
            reason="ONNX Runtime builds TensorRT networks that take no INT4 weights",
            instead="--quantize int8 with calibration data, or --to tensorrt",
        ),
    }

    def compile(self, run: Runner, model: Model, job: Job) -> Compiled:
        """Let TensorRT's parser judge the model, and write down how the server is to build its engines.

        Raises:
            UsageError: a profile or an option that cannot work.
        """
        table = job.options if isinstance(job.options, OnnxRuntimeOptions) else OnnxRuntimeOptions()
        whole, verdict = _judged(run, model)
        profiles = self._profiles(run, model, table, job) if whole else ()
        return Compiled(
            engine="none",
            files={name: model.files.file(name) for name in model.files.files},
            accelerator=Accelerator(
                name=self.accelerator,
                gpu=True,
                parameters=tensorrt_parameters(table, job.precision, profiles, digest=model.files.digest),
                warm_largest_batch=True,
            ),
            facts=(
                verdict,
                "The server builds the engine as it loads the model, and is ready when the warm-up has run through it; "
                f"it keeps it in {cache_folder(table, model.files.digest)}.",
            ),
        )

    def _profiles(self, run: Runner, model: Model, table: OnnxRuntimeOptions, job: Job) -> tuple[Profile, ...]:
        """Return the profiles that can be written down: none where an input's name would be cut in pieces."""
        names = run(shape_inputs, model)
        if names and not table.profiles and job.recorded is None:
            _without_profiles(run, f"{_quoted(names)} holds a shape, and nothing says which come (--samples)")
            return ()
        profiles = choose_profiles(run, model, TensorRTOptions(profiles=table.profiles), seen=job.recorded)
        name = unreadable_name(profiles)
        if name is not None:
            _without_profiles(run, f"ONNX Runtime cannot read a profile for an input called '{name}'")
            return ()
        if len(profiles) > 1 and not table.profiles:
            _without_profiles(run, f"no single range of what {_quoted(names)} holds fits the other inputs' sizes")
            return ()
        if len(profiles) > 1:
            message = (
                "ONNX Runtime runs the first of several profiles alone, and refuses a request that only another one "
                "holds: write one that holds them all"
            )
            run.observe(Warned(code="tensorrt.one-profile", message=message))
        return tuned_for_largest(profiles)


class WithCuda(_Accelerated):
    """ONNX Runtime's CUDA kernels: nothing is built."""

    title = "ONNX Runtime with CUDA"
    accelerator = AcceleratorName.CUDA
    gpu = True
    profile: QuantProfile = PROFILE
    refusals: Mapping[Precision, Refusal] = {
        **dict.fromkeys(
            (Precision.DYNAMIC, Precision.INT8, Precision.INT8_FP16),
            Refusal(
                reason="ONNX Runtime's CUDA provider has no kernels for INT8 convolutions and products: they would run "
                "in floating point, between casts",
                instead="--quantize fp16; or --accelerator tensorrt with --quantize int8",
            ),
        ),
        **dict.fromkeys(
            (Precision.BF16, Precision.FP8),
            Refusal(
                reason="ONNX Runtime's CUDA provider has not every kernel for it",
                instead="--quantize fp16, or --to tensorrt",
            ),
        ),
    }

    def compile(self, run: Runner, model: Model, job: Job) -> Compiled:
        """Hand the model on as it is: instances on a GPU are all that the backend needs to be told."""
        del run, job
        return Compiled(engine="none", files={name: model.files.file(name) for name in model.files.files})


class WithOpenVINO(_Accelerated):
    """OpenVINO compiles the graph on the CPU when the server loads the model."""

    title = "ONNX Runtime with OpenVINO"
    accelerator = AcceleratorName.OPENVINO
    gpu = False
    profile: QuantProfile = OPENVINO_PROFILE
    refusals: Mapping[Precision, Refusal] = dict.fromkeys(
        [each for each in Precision if each not in (Precision.NONE, Precision.INT8, Precision.AUTO)],
        Refusal(
            reason="OpenVINO computes in int8 and fp32 on a CPU, and gains nothing from it inside ONNX Runtime",
            instead="--quantize int8, or leave --accelerator out",
        ),
    )

    def compile(self, run: Runner, model: Model, job: Job) -> Compiled:
        """Hand the model on as it is, and name the accelerator; it takes no parameters."""
        del run, job
        return Compiled(
            engine="none",
            files={name: model.files.file(name) for name in model.files.files},
            accelerator=Accelerator(name=self.accelerator, gpu=False),
        )


_CLASSES: Mapping[AcceleratorName, type[WithTensorRT | WithCuda | WithOpenVINO]] = {
    each.accelerator: each for each in (WithTensorRT, WithCuda, WithOpenVINO)
}


def accelerated(
    target: Target, table: OnnxRuntimeOptions, *, kind: str | None, warmup: bool, latest_only: bool
) -> Target:
    """Return the target that the accelerator asked for makes of `target`; that itself where none is.

    Args:
        target: what `--to` names.
        table: the recipe's `[onnxruntime]`.
        kind: where Triton's instances are to run, `cpu`, `gpu` or None: wherever the target runs.
        warmup: whether Triton is to make warm-up requests.
        latest_only: whether no other version than the latest is served.

    Raises:
        UsageError: the accelerator does not go with the target, or not with the instances.
    """
    name = table.accelerator
    if name is None:
        return target
    if target.name != OnnxRuntime.name:
        raise UsageError(
            f"--accelerator {name} --to {target.name}: it is ONNX Runtime that hands the graph to an accelerator",
            hint=f"leave --accelerator out, or say --to {OnnxRuntime.name}",
            code="usage.accelerator",
        )
    chosen = _CLASSES[name]()
    runs = "gpu" if chosen.gpu else "cpu"
    if kind not in (None, runs):
        raise UsageError(
            f'--accelerator {name} works on a {runs.upper()}, and [triton] kind = "{kind}"',
            hint="leave kind out; convkit writes configs/cpu.pbtxt for machines without a GPU",
            code="usage.accelerator",
        )
    if name is AcceleratorName.TENSORRT and not warmup:
        raise UsageError(
            "--accelerator tensorrt with [triton] warmup = false: the first caller would wait for the engine",
            hint="leave warmup out: Triton is then ready when the engine stands",
            code="usage.accelerator",
        )
    if name is AcceleratorName.TENSORRT and not latest_only:
        raise UsageError(
            "--accelerator tensorrt with [triton] version_policy: versions served together share one engine cache, in "
            "which ONNX Runtime tells engines apart by names and not by weights",
            hint='leave version_policy at "latest", or convert --to tensorrt',
            code="usage.accelerator",
        )
    if not table.engine_cache.startswith("/"):
        raise UsageError(
            f"[onnxruntime] engine_cache = '{table.engine_cache}' would be sought wherever the server was started",
            hint="write an absolute path, as the server sees it",
            code="usage.accelerator",
        )
    return chosen


def tensorrt_parameters(
    table: OnnxRuntimeOptions, precision: Precision, profiles: tuple[Profile, ...], *, digest: str
) -> dict[str, str]:
    """Return the parameters of Triton's accelerator `tensorrt`.

    Raises:
        UsageError: the workspace is no size.
    """
    found = {
        "precision_mode": PRECISION_MODES[precision],
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": cache_folder(table, digest),
    }
    if table.timing_cache:
        found |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": cache_folder(table, digest)}
    if table.workspace is not None:
        found["max_workspace_size_bytes"] = str(table.workspace_bytes)
    if table.builder_optimization_level is not None:
        found["trt_builder_optimization_level"] = str(table.builder_optimization_level)
    return found | provider_options(profiles, prefix="trt")


def cache_folder(table: OnnxRuntimeOptions, digest: str) -> str:
    """Return where the server keeps a model's engines.

    ONNX Runtime knows an engine by the names in its graph, not by the weights: retrained ones would get the old engine
    from a folder that two versions share. And it makes one folder, not the folders above it.
    """
    return f"{table.engine_cache.rstrip('/')}/convkit-{digest.removeprefix('sha256:')[:16]}"


def _judged(run: Runner, model: Model) -> tuple[bool, str]:
    """Tell whether TensorRT takes the whole graph, as far as its parser is here to say so, and what it said."""
    if not installed(Flavour.TENSORRT_RTX):
        message = "no TensorRT parser has seen the model: pip install 'convkit[tensorrt-rtx]' for one that needs no GPU"
        run.observe(Warned(code="tensorrt.not-parsed", message=message))
        return True, "No TensorRT parser has seen the model."
    parsed = run(parse_rtx, model)
    for finding in parsed.findings:
        left = f"TensorRT-RTX does not take {finding}; ONNX Runtime will run it between two engines"
        run.observe(Warned(code="tensorrt.split", message=left))
    stood_in = f"TensorRT-RTX {parsed.version} parsed the model in TensorRT's place"
    if not parsed.findings:
        return True, f"{stood_in}: it takes every node ({parsed.layers} layers)."
    _without_profiles(run, "the graph is cut in pieces, of whose inputs no profile can be written")
    return False, f"{stood_in}: {len(parsed.findings)} nodes are left to ONNX Runtime, and cut the graph in pieces."


def _quoted(names: Sequence[str]) -> str:
    return " or ".join(f"'{name}'" for name in names)


def _without_profiles(run: Runner, why: str) -> None:
    message = (
        f"{why}: the server builds the engine for the shapes of the warm-up (batch 1 and the largest), and builds it "
        "again for a request that is larger or smaller in any dimension"
    )
    run.observe(Warned(code="tensorrt.no-profiles", message=message))
