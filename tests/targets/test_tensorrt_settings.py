"""The builder's own settings, by TensorRT's names: in a recipe, held against the API, and handed to a real builder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from convkit.errors import InputError, UsageError
from convkit.request import make_request
from convkit.targets import trt_settings
from convkit.targets.trt_api import Flavour, open_api
from convkit.targets.trt_build import build_rtx
from convkit.targets.trt_options import TensorRTOptions
from convkit.targets.trt_settings import (
    ENUMERATIONS,
    PROPERTIES,
    apply_settings,
    checks,
    not_everywhere,
    refuse_unknown,
    releases,
)
from targets.extract_trt_api import listed
from targets.tensorrt_networks import conv_network, model_of

EVERYTHING = TensorRTOptions(
    flags=("REFIT", "STRIP_PLAN"),
    clear_flags=("TF32",),
    preview_features=("RUNTIME_ACTIVATION_RESIZE_10_10",),
    tactic_sources=("EDGE_MASK_CONVOLUTIONS",),
    memory_pools={"TACTIC_DRAM": "2GiB"},
    avg_timing_iterations=4,
    max_aux_streams=2,
    max_num_tactics=8,
    max_threads=1,
    tiling_optimization_level="FAST",
    l2_limit_for_tiling="1MiB",
    profiling_verbosity="LAYER_NAMES_ONLY",
    engine_capability="STANDARD",
    default_device_type="GPU",
    runtime_platform="SAME_AS_BUILD",
)


@pytest.fixture
def not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt_settings, "_installed_version", lambda _: None)


def test_the_releases_that_a_recipe_is_held_against_are_the_ones_that_it_says() -> None:
    found = [(release.flavour.value, release.version.rsplit(".", 2)[0]) for release in releases()]

    assert found == [("tensorrt", "10.16"), ("tensorrt", "11.4"), ("tensorrt-rtx", "1.7")]


def test_what_is_written_down_of_tensorrt_rtx_is_what_the_installed_one_has() -> None:
    import os

    [rtx] = [release for release in releases() if release.flavour is Flavour.TENSORRT_RTX]
    here = listed("tensorrt_rtx", os.environ)

    assert rtx.properties == here["properties"]
    assert {name: list(members) for name, members in rtx.enumerations.items()} == here["enumerations"]


@pytest.mark.parametrize("release", releases(), ids=lambda release: release.version)
def test_every_property_of_the_builder_can_be_set_or_is_refused_with_a_reason(release: trt_settings.Release) -> None:
    by_convkit = {"flags", "builder_optimization_level", *TensorRTOptions.REFUSED}

    assert set(release.properties) - set(PROPERTIES) - by_convkit == set()


def test_every_setting_is_a_key_of_the_recipe_and_known_to_a_release() -> None:
    keys = set(TensorRTOptions.__struct_fields__)

    assert {*PROPERTIES, *ENUMERATIONS} <= keys
    assert not keys & set(TensorRTOptions.REFUSED)
    for key in PROPERTIES:
        assert any(key in release.properties for release in releases()), key
    for name in ENUMERATIONS.values():
        assert any(release.enumerations.get(name) for release in releases()), name


def test_every_setting_reaches_the_builder_of_tensorrt_rtx() -> None:
    api = open_api("tensorrt-rtx")
    network = api.network()
    config: Any = network.builder.create_builder_config()

    apply_settings(api, network.builder, config, EVERYTHING)

    module: Any = api.module
    assert config.avg_timing_iterations == 4
    assert config.max_aux_streams == 2
    assert config.max_num_tactics == 8
    assert network.builder.max_threads == 1
    assert config.tiling_optimization_level == module.TilingOptimizationLevel.FAST
    assert config.l2_limit_for_tiling == 1 << 20
    assert config.profiling_verbosity == module.ProfilingVerbosity.LAYER_NAMES_ONLY
    assert config.get_flag(module.BuilderFlag.STRIP_PLAN)
    assert not config.get_flag(module.BuilderFlag.TF32)
    assert config.get_preview_feature(module.PreviewFeature.RUNTIME_ACTIVATION_RESIZE_10_10)
    assert config.get_tactic_sources() == 1 << int(module.TacticSource.EDGE_MASK_CONVOLUTIONS)
    assert config.get_memory_pool_limit(module.MemoryPoolType.TACTIC_DRAM) == 2 << 30


def test_an_engine_is_built_with_settings_by_tensorrts_names() -> None:
    options = TensorRTOptions(
        compute_capabilities=("8.9",), avg_timing_iterations=2, max_aux_streams=0, profiling_verbosity="NONE"
    )

    silent = build_rtx(model_of(conv_network(2)), (), options)
    detailed = build_rtx(model_of(conv_network(2)), (), TensorRTOptions(compute_capabilities=("8.9",)))

    assert detailed.inspected is not None
    assert silent.inspected is None, "the setting was heard"


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (TensorRTOptions(flags=("FP16",)), "flags: 'FP16' is not for a recipe", "use --quantize fp16"),
        (TensorRTOptions(flags=("INT8",)), "'INT8' is not for a recipe", "--quantize int8 --calibration-data"),
        (TensorRTOptions(clear_flags=("FP8",)), "clear_flags: 'FP8' is not for a recipe", "precision is in the graph"),
        (TensorRTOptions(flags=("VERSION_COMPATIBLE",)), "is not for a recipe", "version_compatible = true"),
        (TensorRTOptions(memory_pools={"WORKSPACE": 1}), "is not for a recipe", "write workspace"),
        (TensorRTOptions(flags=("WEIGHT_STREAMNG",)), "nor 11.4.0.106 knows 'WEIGHT_STREAMNG'", "'WEIGHT_STREAMING'?"),
        (TensorRTOptions(preview_features=("MAGIC",)), "(PreviewFeature)", "It knows: PROFILE_SHARING_0806"),
        (TensorRTOptions(tiling_optimization_level="FASTER"), "nor 11.4.0.106 knows 'FASTER'", "did you mean 'FAST'?"),
        (TensorRTOptions(tactic_sources=("CUBLASS",)), "nor 11.4.0.106 knows 'CUBLASS'", "did you mean 'CUBLAS'?"),
        (
            TensorRTOptions(hardware_compatibility="AMPERE"),
            "nor 11.4.0.106 knows 'AMPERE'",
            "did you mean 'AMPERE_PLUS'?",
        ),
        (TensorRTOptions(l2_limit_for_tiling="lots"), "'lots' is not a size", "such as '4GiB'"),
    ],
)
def test_a_name_that_no_release_has_or_that_a_recipe_may_not_say_is_refused(
    options: TensorRTOptions, message: str, hint: str, not_installed: None
) -> None:
    with pytest.raises(UsageError) as refused:
        refuse_unknown(options, Flavour.TENSORRT)

    assert message in refused.value.message
    assert hint in refused.value.hint


def test_a_flag_that_only_an_older_release_has_is_good_where_the_engine_is_built_elsewhere(
    not_installed: None,
) -> None:
    options = TensorRTOptions(preview_features=("PROFILE_SHARING_0806",), build_route="x")

    refuse_unknown(options, Flavour.TENSORRT)

    assert not_everywhere(options, Flavour.TENSORRT) == (
        "preview_features: PROFILE_SHARING_0806 is known to TensorRT 10.16.1.11, and not to 11.4.0.106",
        "TensorRT 10.16.1.11 has no build_route",
    )
    assert not_everywhere(EVERYTHING, Flavour.TENSORRT) == ()


def test_where_a_known_release_is_installed_it_alone_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt_settings, "_installed_version", lambda _: "11.4.0.106")

    with pytest.raises(UsageError, match=r"11\.4\.0\.106 does not know 'PROFILE_SHARING_0806'"):
        refuse_unknown(TensorRTOptions(preview_features=("PROFILE_SHARING_0806",)), Flavour.TENSORRT)


def test_a_release_that_convkit_does_not_know_is_asked_when_it_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt_settings, "_installed_version", lambda _: "12.1.0.1")
    options = TensorRTOptions(compute_capabilities=("8.9",), flags=("NEW_IN_TWELVE",))

    refuse_unknown(options, Flavour.TENSORRT_RTX)

    with pytest.raises(UsageError, match=r"\[tensorrt-rtx\] flags: .* does not know 'NEW_IN_TWELVE'"):
        build_rtx(model_of(conv_network(2)), (), options)


def test_a_setting_that_a_flavour_lacks_names_those_that_have_it() -> None:
    with pytest.raises(UsageError) as refused:
        refuse_unknown(TensorRTOptions(remote_auto_tuning_config="x"), Flavour.TENSORRT_RTX)

    assert "TensorRT-RTX 1.7" in refused.value.message
    assert "TensorRT 10.16.1.11 and TensorRT 11.4.0.106 have it" in refused.value.hint


def test_a_value_that_the_builder_does_not_take_is_refused_with_the_builders_words() -> None:
    options = TensorRTOptions(compute_capabilities=("8.9",), default_device_type="DLA", DLA_core=99)

    with pytest.raises(UsageError) as refused:
        build_rtx(model_of(conv_network(2)), (), options)

    assert refused.value.code == "tensorrt.option"
    assert "DLA" in refused.value.message


def test_a_recipe_names_the_line_of_a_setting_that_is_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('model = "m.onnx"\nto = "tensorrt"\n\n[tensorrt]\nflags = ["FP16"]\n', encoding="utf-8")

    with pytest.raises(InputError) as refused:
        make_request({}, recipe=recipe, environment={})

    assert refused.value.message == "recipe.toml, line 5: tensorrt.flags: 'FP16' is not for a recipe"
    assert "--quantize fp16" in refused.value.hint


def test_a_key_of_the_api_that_convkit_owns_is_refused_with_the_reason(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('model = "m.onnx"\n\n[tensorrt]\nint8_calibrator = "mine"\n', encoding="utf-8")

    with pytest.raises(InputError) as refused:
        make_request({}, recipe=recipe, environment={})

    assert "recipe.toml, line 4: tensorrt.int8_calibrator: there is no key" in refused.value.message
    assert "strongly typed" in refused.value.hint


def test_settings_come_from_the_command_line_too() -> None:
    from convkit.spec.recipe import parse_setting

    table = parse_setting("tensorrt.max_aux_streams=2")

    request = make_request({"model": "m.onnx", "to": "tensorrt", **table}, environment={})

    assert request.tensorrt.max_aux_streams == 2
    with pytest.raises(UsageError, match=r"tensorrt\.max_aux_streams: expected a whole number >= 0"):
        make_request({"model": "m.onnx", **parse_setting("tensorrt.max_aux_streams=-1")}, environment={})


def test_nothing_is_looked_up_where_nothing_is_set() -> None:
    assert checks(TensorRTOptions(), Flavour.TENSORRT) == {}
    assert msgspec.to_builtins(TensorRTOptions())["flags"] == ()
