"""engines.json and the names of plans: what is read there was written by somebody."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from convkit.pipeline.artifact import digest_bytes
from convkit.serving.engine_files import fit_in, known_names, name_engines
from convkit.serving.triton_text import parse
from convkit.spec.options import Precision
from convkit.spec.tensor import DType, Interface, TensorSpec
from convkit.targets.build_plan import BuildPlan, encode_build_plan
from convkit.targets.cuda_driver import Gpu
from convkit.targets.engine_records import BuiltEngine, encode_engines, find_standing, read_engines, runs_here
from convkit.targets.here import Here
from convkit.targets.trt_options import TensorRTOptions

L4 = Gpu(name="NVIDIA L4", compute_capability="8.9", cuda="13.0")
RTX4090 = Gpu(name="NVIDIA GeForce RTX 4090", compute_capability="8.9", cuda="13.0")
H100 = Gpu(name="NVIDIA H100", compute_capability="9.0", cuda="13.0")
T4 = Gpu(name="NVIDIA T4", compute_capability="7.5", cuda="13.0")
ROW = TensorSpec(name="x", dtype=DType.FLOAT32, dims=("n", 3))


def plan(**options: object) -> BuildPlan:
    return BuildPlan(
        interface=Interface(inputs=(ROW,), outputs=(ROW,)),
        profiles=(),
        options=msgspec.convert(options, type=TensorRTOptions),
        precision=Precision.NONE,
        model={"model.onnx": "sha256:0"},
    )


def engine(gpu: Gpu = L4, tensorrt: str = "10.16.1.11", file: str = "model.plan") -> BuiltEngine:
    return BuiltEngine(file=file, digest=digest_bytes(b"a plan"), gpu=gpu, tensorrt=tensorrt, built_from="sha256:1")


@pytest.mark.parametrize(
    ("options", "gpu", "tensorrt", "runs"),
    [
        ({}, L4, "10.16.1.11", True),
        ({}, RTX4090, "10.16.1.11", False),
        ({}, H100, "10.16.1.11", False),
        ({}, L4, "11.0.0.114", False),
        ({"hardware_compatibility": "SAME_COMPUTE_CAPABILITY"}, RTX4090, "10.16.1.11", True),
        ({"hardware_compatibility": "SAME_COMPUTE_CAPABILITY"}, H100, "10.16.1.11", False),
        ({"hardware_compatibility": "AMPERE_PLUS"}, H100, "10.16.1.11", True),
        ({"hardware_compatibility": "AMPERE_PLUS"}, T4, "10.16.1.11", False),
        ({"version_compatible": True}, L4, "11.0.0.114", True),
        ({"version_compatible": True}, L4, "10.9.0.34", False),
    ],
)
def test_a_plan_runs_where_it_was_built_and_where_it_was_built_for(
    options: dict[str, object], gpu: Gpu, tensorrt: str, runs: bool
) -> None:
    assert runs_here(engine(), plan(**options), Here(gpu=gpu, tensorrt=tensorrt)) is runs


def test_a_plan_of_other_bytes_or_none_does_not_stand(tmp_path: Path) -> None:
    here = Here(gpu=L4, tensorrt="10.16.1.11")

    assert find_standing(tmp_path, [engine()], plan(), here) is None
    (tmp_path / "model.plan").write_bytes(b"a plan")
    assert find_standing(tmp_path, [engine()], plan(), here) == engine()
    (tmp_path / "model.plan").write_bytes(b"A plan")
    assert find_standing(tmp_path, [engine()], plan(), here) is None


@pytest.mark.parametrize("written", [b"", b"{}", b"[]", b"\xff", b'{"schema": "convkit.engines/2"}'])
def test_a_damaged_record_knows_no_engine(tmp_path: Path, written: bytes) -> None:
    (tmp_path / "engines.json").write_bytes(written)

    assert read_engines(tmp_path).engines == ()


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "convkit/model.onnx", "..", ""])
def test_a_record_or_a_configuration_that_points_elsewhere_is_passed_over(tmp_path: Path, name: str) -> None:
    (tmp_path / "engines.json").write_bytes(encode_engines([engine(), engine(H100, file=name)]))
    text = f'cc_model_filenames {{ key: "9.0" value: "{name}" }} cc_model_filenames {{ key: "8.9" value: "a.plan" }}'
    (tmp_path / "config.pbtxt").write_text(text, encoding="utf-8")

    assert [each.file for each in read_engines(tmp_path).engines] == ["model.plan"]
    assert known_names(tmp_path) == {"8.9": "a.plan"}


def test_an_engine_that_is_built_at_once_takes_the_name_of_its_kind_of_gpu(tmp_path: Path) -> None:
    config = b'name: "m" backend: "tensorrt" default_model_filename: "model.plan"'
    files: dict[str, Path | bytes] = {
        "model.plan": b"new",
        "convkit/build.json": encode_build_plan(plan()),
        "convkit/engines.json": encode_engines([engine(H100)]),
    }

    first = fit_in(tmp_path, files, config)
    assert (first.files, parse(first.config.decode()), first.version) == (files, parse(config.decode()), None)
    (tmp_path / "1" / "convkit").mkdir(parents=True)
    (tmp_path / "1" / "convkit" / "engines.json").write_bytes(encode_engines([engine(L4)]))
    fitted, written, joins = fit_in(tmp_path, files, config)

    assert joins is None, "that version was built from other files"
    assert fitted["model_sm90.plan"] == b"new"
    assert "model.plan" not in fitted
    assert b'"file": "model_sm90.plan"' in bytes(fitted["convkit/engines.json"])  # type: ignore[arg-type]
    assert dict(parse(written.decode()).cc_model_filenames) == {"8.9": "model.plan", "9.0": "model_sm90.plan"}


def test_the_first_kind_of_gpu_has_the_plain_name_and_no_two_share_one() -> None:
    assert name_engines({}, ["8.9"], "model.plan") == {"8.9": "model.plan"}
    assert name_engines({"8.9": "model.plan"}, ["9.0", "12.0"], "model.plan") == {
        "8.9": "model.plan",
        "9.0": "model_sm90.plan",
        "12.0": "model_sm120.plan",
    }
    assert name_engines({"8.9": "model.plan", "9.0": "model.plan"}, [], "model.plan") == {
        "8.9": "model.plan",
        "9.0": "model_sm90.plan",
    }
