"""ONNX to an engine, with any module of the TensorRT family."""

from __future__ import annotations

import re

import msgspec

from convkit.errors import StepError, UsageError
from convkit.graph.engine_layers import EngineLayers
from convkit.graph.model import Model
from convkit.pipeline import events
from convkit.pipeline.artifact import Artifact, gather, new_folder
from convkit.pipeline.hashing import HashedFile
from convkit.pipeline.kept import kept
from convkit.pipeline.step import step
from convkit.spec.wording import did_you_mean
from convkit.targets import trt_types as types
from convkit.targets.cuda_driver import Gpu, gpu
from convkit.targets.trt_api import Api, Flavour, Network, open_api
from convkit.targets.trt_findings import refuse, tidy
from convkit.targets.trt_inspect import layers_in_log, layers_of
from convkit.targets.trt_options import RTX_COMPUTE_CAPABILITIES, TensorRTOptions, check_options
from convkit.targets.trt_parse import parse_into, warn_of_log
from convkit.targets.trt_profiles import Profile
from convkit.targets.trt_progress import PERMILLE, progress_monitor, stoppable
from convkit.targets.trt_settings import apply_settings
from convkit.targets.trt_timings import kept_timings, timings_folder

ENGINE_FILES = {Flavour.TENSORRT: "model.plan", Flavour.TENSORRT_RTX: "model.engine"}


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """A built engine, and what it was built with."""

    files: Artifact
    """One file: ``model.plan`` of TensorRT, ``model.engine`` of TensorRT-RTX."""
    flavour: Flavour
    version: str
    """The module's version: a TensorRT plan runs on this one alone unless it was built version compatible."""
    compute_capabilities: tuple[str, ...]
    """The GPUs that it was built for: those asked for, or the one that it was built on."""
    gpu: Gpu | None
    """The GPU that it was built on; None where none was needed."""
    layers: int
    """Layers of the network before any fusion."""
    profiles: tuple[Profile, ...]
    options: TensorRTOptions
    inspected: EngineLayers | None = None
    """The layers after fusion; None where nobody tells."""


@step(version=1, stage="compile", title="Build the TensorRT-RTX engine", needs="tensorrt-rtx")
def build_rtx(model: Model, profiles: tuple[Profile, ...], options: TensorRTOptions) -> Engine:
    """Build an engine for the compute capabilities asked for; no GPU is needed.

    Raises:
        MissingError: TensorRT-RTX is not installed.
        StepError: it does not take the model (code ``tensorrt.unsupported``), or its builder failed.
        UsageError: an option that it does not have.
    """
    return _build(model, profiles, options, Flavour.TENSORRT_RTX, None)


@step(version=1, stage="compile", title="Build the TensorRT engine", needs="tensorrt")
def build_tensorrt(model: Model, profiles: tuple[Profile, ...], options: TensorRTOptions, *, on: Gpu) -> Engine:
    """Build a plan on and for the GPU of this machine.

    Args:
        model: a model that the parser takes.
        profiles: what `profiles_for` returned.
        options: the recipe's table.
        on: this machine's GPU as `cuda_driver.gpu` describes it, so that no plan of another GPU is taken for this one.

    Raises:
        MissingError: TensorRT is not installed, or there is no GPU here.
        StepError: it does not take the model (code ``tensorrt.unsupported``), or its builder failed.
        UsageError: an option that it does not have.
    """
    return _build(model, profiles, options, Flavour.TENSORRT, on)


def _build(
    model: Model, profiles: tuple[Profile, ...], options: TensorRTOptions, flavour: Flavour, on: Gpu | None
) -> Engine:
    check_options(options, flavour)
    api = open_api(flavour)
    network = api.network()
    if on is not None and on != gpu():
        raise StepError(
            f"the plan was to be built on {on.name}, and this is {gpu()}",
            hint="run 'convkit build' again: it looks at the GPU anew",
            code="tensorrt.other-gpu",
        )
    refuse(parse_into(network, model), flavour)
    config = network.builder.create_builder_config()
    apply_settings(api, network.builder, config, options)
    capabilities = _choose_compute_capabilities(api, config, options) or ((on.compute_capability,) if on else ())
    for number, profile in enumerate(profiles):
        _add_profile(network, config, profile, number)
    with stoppable() as told_to_stop, kept_timings(config, timings_folder(kept(), on, api.version)):
        config.progress_monitor = progress_monitor(api.module, told_to_stop)
        plan = network.builder.build_serialized_network(network.definition, config)
    if plan is None:
        raise _failure(api)
    events.progress(PERMILLE, PERMILLE)
    warn_of_log(api)
    folder = new_folder("engine")
    with HashedFile(folder / ENGINE_FILES[flavour]) as stream:
        stream.write(memoryview(plan))
    return Engine(
        files=gather(folder, known={ENGINE_FILES[flavour]: stream.digest}),
        flavour=flavour,
        version=api.version,
        compute_capabilities=capabilities,
        gpu=on,
        layers=network.definition.num_layers,
        profiles=profiles,
        options=options,
        inspected=_inspected(api, plan, on),
    )


def _inspected(api: Api, plan: types.IHostMemory, on: Gpu | None) -> EngineLayers | None:
    """Look at the engine's layers: through the inspector where it can be loaded here, else in the build's log."""
    if on is not None:
        engine = api.runtime().deserialize_cuda_engine(bytes(plan))
        told = layers_of(api, engine) if engine is not None else None
        if told is not None:
            return told
    return layers_in_log(api)


def _choose_compute_capabilities(api: Api, config: types.IBuilderConfig, options: TensorRTOptions) -> tuple[str, ...]:
    """Tell the builder what to build for; returns nothing where it builds for the GPU at hand."""
    if not isinstance(api.module, types.BuildsAheadOfTime) or not isinstance(config, types.TakesComputeCapabilities):
        return ()
    known = _compute_capabilities(api.module)
    chosen = tuple(dict.fromkeys(options.compute_capabilities or RTX_COMPUTE_CAPABILITIES))
    config.num_compute_capabilities = len(chosen)
    for index, capability in enumerate(chosen):
        if capability not in known:
            raise _unknown(api, "compute_capabilities", capability, list(known))
        config.set_compute_capability(known[capability], index)
    return chosen


def _compute_capabilities(module: types.BuildsAheadOfTime) -> dict[str, types.Enumerator]:
    """Return the API's members by the usual spelling: ``8.9`` for SM89, ``12.0`` for SM120."""
    members = module.ComputeCapability.__members__.items()
    numbers = {name.removeprefix("SM"): member for name, member in members if re.fullmatch(r"SM\d{2,3}", name)}
    return {f"{number[:-1]}.{number[-1]}": member for number, member in numbers.items()}


def _unknown(api: Api, option: str, value: str, known: list[str]) -> UsageError:
    return UsageError(
        f"[{api.flavour}] {option}: {api.flavour.product} {api.version} does not know '{value}'",
        hint=f"{did_you_mean(value, known)}It knows: {', '.join(known)}",
        code="tensorrt.option",
    )


def _add_profile(network: Network, config: types.IBuilderConfig, profile: Profile, number: int) -> None:
    added = network.builder.create_optimization_profile()
    for name, shapes in profile.shapes.items():
        added.set_shape(name, shapes.min, shapes.opt, shapes.max)
    for name, values in profile.values.items():
        added.set_shape_input(name, values.min, values.opt, values.max)
    if config.add_optimization_profile(added) < 0:
        raise StepError(
            f"TensorRT refused the optimization profile {number}: {msgspec.to_builtins(profile)}",
            hint="min ≤ opt ≤ max must hold in every dimension of every input",
            code="tensorrt.profile",
        )


_HINTS = (
    ("fp8", "leave GPUs before 8.9 out of compute_capabilities: they have no FP8"),
    ("workspace limit", "raise workspace in the recipe, or leave it out"),
    ("Turing", "leave 7.5 out of compute_capabilities, or use --quantize fp16"),
    ("profile", "correct min_dims, opt_dims and max_dims in config.txt, or the recipe's profiles"),
    ("out of memory", "give the machine more memory, or lower the profile's largest shape"),
)


def _failure(api: Api) -> StepError:
    texts = [tidy(text) for text in api.messages_of("ERROR", "INTERNAL_ERROR")]
    said = " ".join(texts) or "it gave no reason"
    hint = next((hint for mark, hint in _HINTS if mark.lower() in said.lower()), None)
    return StepError(
        f"{api.flavour.product} {api.version} could not build the engine: {said}",
        hint=hint
        or "the network was parsed well; try another --opset, or another builder_optimization_level in the recipe",
        code="tensorrt.build",
    )
