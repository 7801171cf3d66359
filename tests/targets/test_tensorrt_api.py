"""The seam uses only what the real modules have, and opens nothing that needs a driver where there is none."""

import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from convkit.errors import MissingError
from convkit.targets import trt_api, trt_types
from convkit.targets.trt_api import Api, Flavour, Module, open_api
from targets.fake_nvidia import FakeTensorRT

RELEASES = json.loads(Path(__file__).with_name("trt_api.json").read_text(encoding="utf-8"))


def members_of(protocol: type) -> set[str]:
    """The attributes and methods that a protocol names; what Python itself gives every object is left out."""
    named = set(protocol.__annotations__) | {
        name for name, value in vars(protocol).items() if inspect.isfunction(value)
    }
    return {name for name in named if not name.startswith("_")}


def protocols() -> dict[str, type]:
    found = {
        name: value
        for name, value in vars(trt_types).items()
        if getattr(value, "_is_protocol", False) and name != "Protocol"
    }
    return {name: value for name, value in found.items() if value not in trt_types.FEATURES}


def missing_from(classes: dict[str, set[str]]) -> list[str]:
    """What convkit uses of the API and these classes do not have."""
    wanted = {**protocols()}
    missing = [name for name in members_of(Module) | set(wanted) if name not in classes]
    return missing + [
        f"{name}.{member}"
        for name, protocol in wanted.items()
        for member in members_of(protocol) - classes.get(name, set())
    ]


def installed_classes() -> dict[str, set[str]]:
    module = importlib.import_module("tensorrt_rtx")
    return {name: set(dir(value)) for name, value in vars(module).items() if isinstance(value, type)}


def test_the_protocols_name_what_the_code_uses() -> None:
    assert members_of(protocols()["OnnxParser"]) == {"num_errors", "parse_from_file", "get_error"}
    assert {"Builder", "Runtime", "OnnxParser", "MemoryPoolType"} <= members_of(Module)


@pytest.mark.parametrize("release", RELEASES)
def test_every_name_that_convkit_uses_is_in_the_bindings_of_tensorrt(release: str) -> None:
    classes = {name: set(names.split()) for name, names in RELEASES[release]["classes"].items()}

    assert RELEASES[release]["version"].startswith(release)
    assert missing_from(classes) == []


def test_every_name_that_convkit_uses_is_in_the_installed_tensorrt_rtx() -> None:
    assert missing_from(installed_classes()) == []


def test_a_name_that_no_module_has_would_be_found() -> None:
    classes = installed_classes()
    classes["OnnxParser"].discard("parse_from_file")

    assert missing_from(classes) == ["OnnxParser.parse_from_file"]


@pytest.mark.parametrize("release", RELEASES)
def test_only_tensorrt_rtx_has_the_features_by_which_it_is_told_apart(release: str) -> None:
    rtx, standard = installed_classes(), RELEASES[release]["classes"]
    for protocol, owner in trt_types.FEATURES.items():
        names = members_of(protocol)
        assert names <= (rtx[owner] if owner else set(rtx))
        assert not names & set(standard[owner].split() if owner else standard)


def test_tensorrt_rtx_builds_without_a_gpu_and_tensorrt_does_not() -> None:
    assert not open_api("tensorrt-rtx").needs_gpu_to_build
    assert Api(Flavour.TENSORRT, fake_module()).needs_gpu_to_build


def fake_module() -> Any:
    return FakeTensorRT()


def test_without_a_driver_the_builder_and_runtime_of_tensorrt_stay_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt_api, "driver_present", lambda: False)
    module = fake_module()
    api = Api(Flavour.TENSORRT, module)

    with pytest.raises(MissingError) as builder:
        api.network()
    with pytest.raises(MissingError) as runtime:
        api.runtime()

    assert module.opened == []
    assert builder.value.code == "tensorrt.no-gpu"
    assert "convkit build" in builder.value.hint
    assert runtime.value.code == "gpu.missing"


def test_without_a_driver_the_runtime_of_tensorrt_rtx_stays_closed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt_api, "driver_present", lambda: False)

    with pytest.raises(MissingError, match=r"TensorRT-RTX .* cannot run an engine here"):
        open_api("tensorrt-rtx").runtime()


def test_a_module_that_is_not_installed_is_one_sentence_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ImportError(f"No module named '{name}'")

    monkeypatch.setattr(trt_api.importlib, "import_module", refuse)
    trt_api._open.cache_clear()
    try:
        with pytest.raises(MissingError) as missing:
            open_api("tensorrt-rtx")
    finally:
        trt_api._open.cache_clear()

    assert missing.value.message == "TensorRT-RTX is not usable here: No module named 'tensorrt_rtx'"
    assert missing.value.hint == "pip install 'convkit[tensorrt-rtx]'"
