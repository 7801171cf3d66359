"""TensorRT and TensorRT-RTX as targets.

trt_api        the seam to the modules `tensorrt` and `tensorrt_rtx`; trt_types says what of them is used
trt_profile    where Q/DQ pairs go
trt_options    the recipe's tables          trt_profiles   the shapes that an engine is built for
trt_values     inputs that hold shapes      trt_together   their values, and the sizes that go with them
trt_preflight  convkit's rules (trt_rules…) and the parser's verdict (trt_parse) in words (trt_findings)
trt_rewrite    operators that it lacks, written otherwise
trt_settings   TensorRT's own settings by name, held against what its releases have
trt_build      ONNX to an engine            trt_run        an engine on recorded inputs
trt_progress   how far a build is, and its end by Ctrl-C     trt_timings    the timing cache
trt_make       an engine refitted, else built    trt_refit  other weights for one that stands
trt_inspect    an engine's layers           trt_work       what of the graph runs in which precision
rtx_layout     what ONNX Runtime's RTX provider reads
build_plan     build.json, for an engine that is built elsewhere
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from convkit.errors import UsageError
from convkit.graph.model import MODEL_FILE, Model, Tensors
from convkit.graph.structure import structure_of
from convkit.pipeline.artifact import digest_bytes, digest_of_stored
from convkit.pipeline.events import Warned
from convkit.pipeline.runner import Contender, Runner
from convkit.spec.options import EngineMode, Precision
from convkit.targets.build_plan import FILE_NAME, BuildPlan, encode_build_plan
from convkit.targets.cuda_driver import Gpu, driver_present, gpu
from convkit.targets.engine_records import ENGINES, BuiltEngine, encode_engines
from convkit.targets.here import Here, tensorrt_version
from convkit.targets.rtx_layout import CONTEXT_FILE, README_FILE, readme, wrap_engine
from convkit.targets.target import Compiled, Job, Refusal
from convkit.targets.trt_ahead import begin_rtx
from convkit.targets.trt_api import Flavour, installed, no_gpu, not_installed
from convkit.targets.trt_build import ENGINE_FILES, Engine, build_rtx
from convkit.targets.trt_make import REFITTED, Made, make_plan
from convkit.targets.trt_options import (
    FP8_SINCE,
    RTX_COMPUTE_CAPABILITIES,
    TensorRTOptions,
    backend_flags,
    check_options,
    has_fp8,
    only_with_fp8,
)
from convkit.targets.trt_preflight import gate, warn_of_rules
from convkit.targets.trt_profile import TENSORRT_PROFILE
from convkit.targets.trt_profiles import Profile
from convkit.targets.trt_rewrite import rewritten, rewritten_ahead
from convkit.targets.trt_run import (
    ON_DEVICE,
    WITH_COPIES,
    answer_tensorrt,
    time_on_device,
    time_tensorrt,
)
from convkit.targets.trt_settings import not_everywhere, refuse_unknown
from convkit.targets.trt_together import choose_profiles
from convkit.targets.trt_work import with_layers, with_work

RECORDS = "convkit"
"""The folder in a version's directory that holds what its engine was built from."""

REFUSALS: Mapping[Precision, Refusal] = {
    Precision.DYNAMIC: Refusal(
        reason="TensorRT has no dynamic quantization: it takes scales that were calibrated beforehand",
        instead="use --quantize int8 --calibration-data FILE, or --quantize fp16, which needs no data",
    )
}


_FP8_GPUS = f"FP8 needs a GPU of compute capability {FP8_SINCE} or later: Ada, Hopper, Blackwell."


class TensorRT:
    """The target `tensorrt`: a plan, built where a GPU and TensorRT are, prepared elsewhere."""

    name = "tensorrt"
    title = Flavour.TENSORRT.product
    profile = TENSORRT_PROFILE
    refusals = REFUSALS
    backend: str | None = "tensorrt"
    filename = ENGINE_FILES[Flavour.TENSORRT]
    gpu = True
    emulated = True
    rewritten = staticmethod(rewritten)

    def require(self, engine: EngineMode) -> None:
        """Make sure that an engine that is to be built now can be.

        Raises:
            MissingError: TensorRT or a GPU is missing.
        """
        if engine is EngineMode.NOW:
            if not installed(Flavour.TENSORRT):
                raise not_installed(Flavour.TENSORRT, "it is not installed")
            if not driver_present():
                raise no_gpu("--engine now: TensorRT builds on a GPU only")

    def compile(self, run: Runner, model: Model, job: Job) -> Compiled:
        """Build the plan where that can be done; else parse the model and prepare the build.

        Raises:
            StepError: TensorRT does not take the model, or could not build it.
            UsageError: an option or a profile that cannot work.
        """
        table = _options(job.options, Flavour.TENSORRT)
        job = with_work(run, model, job)
        profiles = choose_profiles(run, model, table, seen=job.recorded)
        here = gpu() if job.engine is not EngineMode.DEFER and installed(Flavour.TENSORRT) else None
        structure = run(structure_of, model) if table.refit else None
        plan, sources = _sources(model, profiles, table, job, Flavour.TENSORRT, structure=structure)
        _tell_of_flags(run, table)
        if here is not None and job.precision is Precision.FP8 and not has_fp8(here.compute_capability):
            raise _no_fp8(here)
        if here is not None:
            warn_of_rules(run, model, profiles)
            made = _made(run, model, plan, job, here)
            engine = made.engine
            sources |= _record(made, here, sources)
            built = _built(engine, sources, answers=made.answers, refitted=made.refitted)
            built = with_layers(run.observe, built, engine.inspected, job)
            return msgspec.structs.replace(
                built,
                answered=lambda data, outputs, at_most: run(
                    answer_tensorrt,
                    engine.files,
                    interface=model.interface,
                    data=data,
                    outputs=outputs,
                    at_most=at_most,
                    on=here,
                ),
                timed=lambda inputs, seconds: Contender(
                    time_tensorrt, engine.files, inputs=inputs, seconds=seconds, on=here
                ),
                timed_alone=lambda inputs, seconds: Contender(
                    time_on_device, engine.files, inputs=inputs, seconds=seconds, on=here
                ),
                timed_how=(WITH_COPIES, ON_DEVICE),
            )
        for sentence in not_everywhere(table, Flavour.TENSORRT):
            run.observe(Warned(code="tensorrt.some-releases", message=f"[tensorrt] {sentence}"))
        return Compiled(
            engine="deferred",
            files=sources,
            profiles=profiles,
            facts=(
                gate(run, model, profiles),
                "The engine is still to be built: run 'convkit build' where the GPU is.",
                *((_FP8_GPUS,) if job.precision is Precision.FP8 else ()),
            ),
        )


class TensorRTRTX:
    """The target `tensorrt-rtx`: an engine for RTX GPUs, built on any machine. Triton does not load it."""

    name = "tensorrt-rtx"
    title = Flavour.TENSORRT_RTX.product
    profile = TENSORRT_PROFILE
    refusals = REFUSALS
    environments = ("tensorrt-rtx",)
    """The worker that builds; it starts with the others."""
    backend: str | None = None
    filename = ENGINE_FILES[Flavour.TENSORRT_RTX]
    gpu = True
    emulated = True
    rewritten = staticmethod(rewritten)
    rewritten_ahead = staticmethod(rewritten_ahead)

    def require(self, engine: EngineMode) -> None:
        """Make sure that TensorRT-RTX is here; it builds at once.

        Raises:
            MissingError: it is not installed.
            UsageError: its engine was to be deferred.
        """
        if engine is EngineMode.DEFER:
            raise UsageError(
                "--engine defer: TensorRT-RTX builds its engines without a GPU, there is nothing to defer",
                hint="leave --engine out, or choose --to tensorrt",
                code="usage.no-defer",
            )
        if not installed(Flavour.TENSORRT_RTX):
            raise not_installed(Flavour.TENSORRT_RTX, "it is not installed")

    def begin(self, run: Runner, model: Model, options: object, recorded: Tensors | None) -> None:
        """Let the engine be built while others check the model; see `convkit.targets.target.BuildsHere`."""
        begin_rtx(run, model, _options(options, Flavour.TENSORRT_RTX), recorded)

    def compile(self, run: Runner, model: Model, job: Job) -> Compiled:
        """Build the engine.

        Raises:
            StepError: TensorRT-RTX does not take the model, or could not build it.
            UsageError: an option or a profile that cannot work.
        """
        table = _options(job.options, Flavour.TENSORRT_RTX)
        if job.precision is Precision.FP8:
            table = _for_fp8(run, table)
        job = with_work(run, model, job)
        profiles = choose_profiles(run, model, table, seen=job.recorded)
        _, sources = _sources(model, profiles, table, job, Flavour.TENSORRT_RTX)
        warn_of_rules(run, model, profiles)
        engine = run(build_rtx, model, profiles, table)
        built = with_layers(run.observe, _built(engine, sources), engine.inspected, job)
        return msgspec.structs.replace(built, files={**built.files, **_for_onnxruntime(run, model, engine)})


def _for_onnxruntime(run: Runner, model: Model, engine: Engine) -> dict[str, Path | bytes]:
    """Return what lies beside an engine for ONNX Runtime's RTX provider, and tells how it is run."""
    file = ENGINE_FILES[engine.flavour]
    gpus = engine.compute_capabilities
    context = run(wrap_engine, model.interface, engine_file=file, version=engine.version, compute_capabilities=gpus)
    text = readme(
        model.interface,
        engine.profiles,
        engine_file=file,
        onnx_file=f"{RECORDS}/{MODEL_FILE}",
        version=engine.version,
        compute_capabilities=gpus,
    )
    return {CONTEXT_FILE: context.file(CONTEXT_FILE), README_FILE: text}


def _options(options: object, flavour: Flavour) -> TensorRTOptions:
    table = options if isinstance(options, TensorRTOptions) else TensorRTOptions()
    check_options(table, flavour)
    refuse_unknown(table, flavour)
    return table


def _for_fp8(run: Runner, options: TensorRTOptions) -> TensorRTOptions:
    """Leave out the GPUs that have no FP8, and say so."""
    fitting = only_with_fp8(options)
    left_out = [each for each in RTX_COMPUTE_CAPABILITIES if each not in fitting.compute_capabilities]
    if not options.compute_capabilities:
        run.observe(
            Warned(
                code="tensorrt.left-out",
                message=f"the engine is not built for compute capability {', '.join(left_out)}: it has no FP8",
            )
        )
    return fitting


def _no_fp8(here: Gpu) -> UsageError:
    return UsageError(
        f"--quantize fp8: {here.name} is of compute capability {here.compute_capability}, and has no FP8",
        hint=f"use --quantize int8 with the same data; or --engine defer, to build on a GPU of {FP8_SINCE} or later",
        code="tensorrt.no-fp8",
    )


def _sources(
    model: Model,
    profiles: tuple[Profile, ...],
    options: TensorRTOptions,
    job: Job,
    target: Flavour,
    *,
    structure: str | None = None,
) -> tuple[BuildPlan, dict[str, Path | bytes]]:
    """Return what an engine is built from, and held against, as the files of one folder: build.json names them all."""
    accuracy = job.accuracy
    if accuracy is not None and target is Flavour.TENSORRT_RTX:
        accuracy = accuracy.already_judged()
    evaluation = {name: job.evaluation[name] for name in accuracy.files} if accuracy is not None else {}
    models = {name: model.files.file(name) for name in model.files.files}
    samples = {f"samples/{name}": job.samples.files.file(name) for name in job.samples.files.files}
    references = {f"references/{name}": job.references.files.file(name) for name in job.references.files.files}
    plan = BuildPlan(
        target=target,
        interface=model.interface,
        profiles=profiles,
        options=options,
        precision=job.precision,
        model=_digests(models),
        samples=_digests(samples),
        references=_digests(references),
        check=job.check,
        gates=job.gates,
        accuracy=accuracy,
        work=dict(job.work),
        structure=structure,
    )
    return plan, {**models, **samples, **references, **evaluation, FILE_NAME: encode_build_plan(plan)}


def _made(run: Runner, model: Model, plan: BuildPlan, job: Job, on: Gpu) -> Made:
    """Refit an engine that stands, where the recipe asks for that and one suits, else build."""
    refitting = job.refitting
    candidate = refitting.find(plan, Here(gpu=on, tensorrt=tensorrt_version())) if refitting is not None else None
    holds = refitting.holds if refitting is not None else lambda _: True
    return make_plan(run, model, plan, job.samples, candidate=candidate, holds=holds, on=on)


def _record(made: Made, here: Gpu, sources: Mapping[str, Path | bytes]) -> dict[str, Path | bytes]:
    """Return engines.json for an engine that is built at once."""
    plan = sources[FILE_NAME]
    assert isinstance(plan, bytes)
    record = BuiltEngine(
        file=ENGINE_FILES[made.engine.flavour],
        digest=digest_of_stored(made.engine.files.file()),
        gpu=here,
        tensorrt=tensorrt_version(),
        built_from=digest_bytes(plan),
        refitted=made.refitted,
    )
    return {ENGINES: encode_engines([record])}


def _tell_of_flags(run: Runner, options: TensorRTOptions) -> None:
    """Say what the server has to be started with, where a plan wants it."""
    for flag in backend_flags(options):
        message = f"start Triton with {flag}, without which it refuses such a plan"
        run.observe(Warned(code="tensorrt.backend-flag", message=message))


def _digests(files: Mapping[str, Path]) -> dict[str, str]:
    return {name: digest_of_stored(path) for name, path in files.items()}


def _built(
    engine: Engine, sources: Mapping[str, Path | bytes], *, answers: Tensors | None = None, refitted: bool = False
) -> Compiled:
    on = f" on {engine.gpu.name}" if engine.gpu else ""
    by = f"{engine.flavour.product} {engine.version}"
    how = f"refitted the engine{on}" if refitted else f"built the engine{on} from {engine.layers} layers"
    return Compiled(
        engine="built",
        files={
            ENGINE_FILES[engine.flavour]: engine.files.file(),
            **{f"{RECORDS}/{name}": content for name, content in sources.items()},
        },
        profiles=engine.profiles,
        served_bytes=engine.files.bytes,
        answers=answers,
        facts=(
            f"{by} {how}, for compute capability {', '.join(engine.compute_capabilities)}.",
            *((REFITTED,) if refitted else ()),
        ),
    )
