"""Real engines, built by TensorRT-RTX on whatever machine this is."""

from pathlib import Path

import pytest
from onnx import helper

from convkit.errors import StepError, UsageError
from convkit.graph.model import Model
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import Event, StepProgress
from convkit.pipeline.runner import Runner
from convkit.targets.trt_api import Flavour, open_api
from convkit.targets.trt_build import Engine, build_rtx
from convkit.targets.trt_options import ShapeRange, TensorRTOptions
from convkit.targets.trt_profiles import Profile, profiles_for
from convkit.targets.trt_progress import Phases
from targets.tensorrt_networks import (
    SYMMETRIC,
    conv_network,
    external_model,
    model_of,
    network,
    quantized,
)

ADA = TensorRTOptions(compute_capabilities=("8.9",))
MAGIC = b"vtrt"  # what an engine of TensorRT-RTX begins with


def build(model: Model, options: TensorRTOptions = ADA) -> Engine:
    return build_rtx(model, profiles_for(model.interface, options), options)


def test_an_engine_is_built_for_a_dynamic_batch_and_says_what_it_is() -> None:
    model = model_of(conv_network())

    engine = build(model, TensorRTOptions())

    assert engine.files.files == ("model.engine",)
    assert engine.files.file().read_bytes().startswith(MAGIC)
    assert (engine.flavour, engine.version) == (Flavour.TENSORRT_RTX, open_api("tensorrt-rtx").version)
    assert engine.compute_capabilities == ("8.6", "8.9", "12.0")
    assert engine.gpu is None
    [profile] = engine.profiles
    assert profile.shapes["x"].max == (8, 3, 16, 16)


def test_an_engine_is_built_in_half_precision() -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    engine = build(model_of(convert_float_to_float16(conv_network(), keep_io_types=True)))

    assert engine.files.file().read_bytes().startswith(MAGIC)


def test_an_engine_is_built_in_int8(tmp_path: Path) -> None:
    engine = build(model_of(quantized(conv_network(), tmp_path, per_channel=True, extra_options=SYMMETRIC)))

    assert engine.files.file().read_bytes().startswith(MAGIC)


def test_an_engine_is_built_from_weights_that_lie_beside_the_model(tmp_path: Path) -> None:
    assert build(external_model(conv_network(), tmp_path)).files.bytes > 0


def test_a_model_of_fixed_shapes_is_built_without_a_profile() -> None:
    assert build(model_of(conv_network(2))).profiles == ()


def test_every_profile_of_the_recipe_and_every_setting_reaches_the_builder() -> None:
    one = {"x": ShapeRange(min=(1, 3, 16, 16), opt=(1, 3, 16, 16), max=(1, 3, 16, 16))}
    many = {"x": ShapeRange(min=(2, 3, 16, 16), opt=(8, 3, 16, 16), max=(8, 3, 16, 16))}
    options = TensorRTOptions(
        profiles=(one, many), workspace="1GiB", builder_optimization_level=1, compute_capabilities=("12.0", "12.0")
    )

    engine = build(model_of(conv_network()), options)

    assert [profile.shapes for profile in engine.profiles] == [one, many]
    assert engine.compute_capabilities == ("12.0",)


def test_a_model_that_tensorrt_does_not_take_is_refused_by_node_operator_and_reason() -> None:
    nodes = [helper.make_node("Sorcery", ["x"], ["y"], name="first/spell", domain="house.made")]

    with pytest.raises(StepError) as refused:
        build(model_of(network(nodes, {"x": [2, 3]}, {"y": [2, 3]})))

    assert refused.value.code == "tensorrt.unsupported"
    assert "first/spell (Sorcery): TensorRT knows neither" in refused.value.message


def test_a_workspace_that_is_too_small_is_the_builders_error_with_the_way_out() -> None:
    with pytest.raises(StepError) as failed:
        build(model_of(conv_network()), TensorRTOptions(workspace="1KiB", compute_capabilities=("8.9",)))

    assert failed.value.code == "tensorrt.build"
    assert "workspace limit" in failed.value.message
    assert "raise workspace" in failed.value.hint
    assert ".cpp:" not in failed.value.message


def test_a_float_model_for_turing_is_the_builders_error_with_the_way_out() -> None:
    with pytest.raises(StepError) as failed:
        build(model_of(conv_network()), TensorRTOptions(compute_capabilities=("7.5",)))

    assert "leave 7.5 out" in failed.value.hint


def test_a_gpu_that_tensorrt_rtx_does_not_know_is_refused_with_those_that_it_knows() -> None:
    with pytest.raises(UsageError) as refused:
        build(model_of(conv_network()), TensorRTOptions(compute_capabilities=("9.0",)))

    assert "does not know '9.0'" in refused.value.message
    assert "8.9" in refused.value.hint
    assert "12.0" in refused.value.hint


def test_a_profile_that_the_network_does_not_fit_is_an_error() -> None:
    model = model_of(conv_network())
    wrong = ShapeRange(min=(1, 3, 18, 16), opt=(1, 3, 18, 16), max=(1, 3, 18, 16))

    with pytest.raises(StepError) as failed:
        build_rtx(model, (Profile(shapes={"x": wrong}),), ADA)

    assert "Dimension mismatch for tensor x" in failed.value.message
    assert "max_dims" in failed.value.hint


def test_a_build_without_the_profile_that_it_needs_is_an_error() -> None:
    with pytest.raises(StepError, match="no optimization profile has been defined"):
        build_rtx(model_of(conv_network()), (), ADA)


def test_an_option_of_the_other_flavour_is_refused_before_anything_is_built() -> None:
    with pytest.raises(UsageError, match="hardware_compatibility"):
        build(model_of(conv_network()), TensorRTOptions(hardware_compatibility="AMPERE_PLUS"))


def test_a_build_tells_how_far_it_is(happened: list[Event]) -> None:
    build(model_of(conv_network()))

    done = [event.done for event in happened if isinstance(event, StepProgress)]
    assert done == sorted(set(done))
    assert done[0] < 300
    assert done[-1] == 1000


def test_a_worker_builds_once_and_the_runner_remembers(tmp_path: Path) -> None:
    model = model_of(conv_network())
    happened: list[Event] = []
    engines = []
    for _ in range(2):
        with Runner(Cache(tmp_path), observer=happened.append) as run:
            engines.append(run(build_rtx, model, profiles_for(model.interface, ADA), ADA))

    assert engines[0] == engines[1]
    assert [event.cached for event in happened if hasattr(event, "cached")] == [False, True]
    assert [event for event in happened if isinstance(event, StepProgress)]


def test_phases_within_phases_fill_one_step_of_the_outer_one() -> None:
    phases = Phases()
    seen = []
    phases.start("build", None, 4)
    phases.advance("build", 0)
    seen.append(phases.done_permille())
    phases.start("optimize", "build", 2)
    phases.advance("optimize", 0)
    seen.append(phases.done_permille())
    phases.advance("optimize", 1)
    phases.finish("optimize")
    phases.advance("build", 1)
    seen.append(phases.done_permille())

    assert seen == [250, 375, 500]
