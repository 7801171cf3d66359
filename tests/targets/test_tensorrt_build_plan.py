"""build.json: the same plan gives the same bytes, and nonsense is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from convkit.errors import InputError
from convkit.pipeline.artifact import digest_file
from convkit.spec.options import CheckOptions, Precision
from convkit.targets.build_plan import (
    BuildPlan,
    VersionRange,
    encode_build_plan,
    read_build_plan,
    verify_files,
    write_build_plan,
)
from convkit.targets.trt_api import Flavour
from convkit.targets.trt_options import TensorRTOptions
from convkit.targets.trt_profiles import profiles_for
from targets.tensorrt_networks import conv_network, model_of


@pytest.fixture
def plan(tmp_path: Path) -> BuildPlan:
    """A plan for the one file that lies beside it."""
    model = model_of(conv_network())
    (tmp_path / "model.onnx").write_bytes(model.path.read_bytes())
    options = TensorRTOptions(workspace="4GiB", hardware_compatibility="AMPERE_PLUS")
    return BuildPlan(
        interface=model.interface,
        profiles=profiles_for(model.interface, options),
        options=options,
        precision=Precision.FP16,
        model={"model.onnx": digest_file(tmp_path / "model.onnx")},
        check=CheckOptions(min_sqnr=30.0),
    )


def test_a_plan_comes_back_as_it_was_written(plan: BuildPlan, tmp_path: Path) -> None:
    path = write_build_plan(tmp_path, plan)

    assert path == tmp_path / "build.json"
    assert read_build_plan(path) == plan
    verify_files(plan, tmp_path)


def test_a_plan_says_its_schema_and_target_and_always_in_the_same_bytes(plan: BuildPlan) -> None:
    document = json.loads(encode_build_plan(plan))

    assert (document["schema"], document["target"]) == ("convkit.build/1", Flavour.TENSORRT)
    assert document["profiles"][0]["shapes"]["x"]["max"] == [8, 3, 16, 16]
    assert list(document) == sorted(document)
    assert encode_build_plan(plan) == encode_build_plan(plan)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"schema": "convkit.build/2"}, "is of the schema 'convkit.build/2'"),
        ({"schema": None}, "is not a build plan"),
        ({"precision": "fp7"}, "precision"),
        ({"options": {"workspeace": 1}}, "workspeace"),
        ({"profiles": [{"shapes": {"x": {"min": [1], "opt": [1]}}}]}, "max"),
        ({"model": {"../model.onnx": "sha256:0"}}, "names the file '../model.onnx'"),
        ({"samples": {"/etc/passwd": "sha256:0"}}, "names the file '/etc/passwd'"),
    ],
)
def test_a_plan_that_says_nonsense_is_refused(
    change: dict[str, Any], problem: str, plan: BuildPlan, tmp_path: Path
) -> None:
    path = tmp_path / "build.json"
    path.write_text(json.dumps({**json.loads(encode_build_plan(plan)), **change}), encoding="utf-8")

    with pytest.raises(InputError) as refused:
        read_build_plan(path)

    assert problem in refused.value.message
    assert str(path) in refused.value.message


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"schema": "\xff"}', b"null"])
def test_a_file_that_is_no_plan_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "build.json").write_bytes(content)

    with pytest.raises(InputError):
        read_build_plan(tmp_path / "build.json")


def test_a_plan_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_build_plan(tmp_path / "build.json")


def test_another_model_than_the_plans_is_refused(plan: BuildPlan, tmp_path: Path) -> None:
    with (tmp_path / "model.onnx").open("ab") as stream:
        stream.write(b"\0")

    with pytest.raises(InputError) as refused:
        verify_files(plan, tmp_path)
    assert refused.value.code == "build.digest"

    (tmp_path / "model.onnx").unlink()
    with pytest.raises(InputError, match="is missing"):
        verify_files(plan, tmp_path)


def test_versions_are_compared_by_number() -> None:
    suits = VersionRange(at_least="10.0", below="11.2").suits

    assert [suits(version) for version in ("9.9.1", "10.0", "10.16.1.11", "11.1.0.106", "11.2", "11.10.0")] == [
        False,
        True,
        True,
        True,
        False,
        False,
    ]
