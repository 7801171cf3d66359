"""`convkit check MODEL --to TARGET` as a command: what it says, what it writes, and its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import onnx
import pytest
from targets.tensorrt_networks import conv_network, network, quantized

from preflight.corpus import corpus

PROGRAM = Path(sys.executable).with_name("convkit")
SAMPLE = Path(__file__).parents[2] / "sample_models" / "digits_cnn"
CORPUS = {broken.name: broken.model for broken in corpus()}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def check(tmp_path: Path, cache: Path) -> Any:
    variables = {**os.environ, "CONVKIT_CACHE_DIR": str(cache), "COLUMNS": "60"}

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [PROGRAM, "check", *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)

    return run


def saved(proto: onnx.ModelProto, path: Path) -> Path:
    onnx.save(proto, str(path))
    return path


def test_a_model_that_is_taken_exits_0(check: Any, tmp_path: Path) -> None:
    done = check(saved(conv_network(), tmp_path / "net.onnx"), "--to", "tensorrt")

    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing stands against" in " ".join(done.stdout.split())


def test_a_model_that_is_refused_exits_5_and_names_node_operator_reason_and_fix(check: Any, tmp_path: Path) -> None:
    path = saved(CORPUS["operator_of_ones_own"], tmp_path / "net.onnx")
    done = check(path.name, "--to", "tensorrt-rtx")

    assert done.returncode == 5
    for words in ("1 error", "spell", "Sorcery", "knows neither", "→ export the model with"):
        assert words in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 60


def test_the_path_of_a_model_is_shown_whole_however_narrow_the_lines(check: Any, tmp_path: Path) -> None:
    (tmp_path / ("deep" * 20)).mkdir()
    path = saved(CORPUS["operator_of_ones_own"], tmp_path / ("deep" * 20) / "net.onnx")

    told = check(path, "--to", "tensorrt-rtx").stdout.split()

    assert (told.count(str(path)), told.count(f"{path}:")) == (1, 1)


def test_json_is_one_object_with_every_finding(check: Any, tmp_path: Path) -> None:
    done = check(saved(CORPUS["dynamic_quantization"], tmp_path / "net.onnx"), "--to", "tensorrt", "--json")
    found = json.loads(done.stdout)

    assert (found["schema"], found["status"], found["exit_code"]) == ("convkit.preflight/1", "failed", done.returncode)
    assert [(each["node"], each["operator"], each["severity"]) for each in found["findings"]] == [
        ("dynamic_Q", "DynamicQuantizeLinear", "error"),
        ("product", "MatMulInteger", "error"),
    ]
    assert found["judges"][0] == "convkit's rules"
    assert found["judges"][1].startswith("TensorRT-RTX ")
    assert all("convkit" in each["found_by"] and len(each["found_by"]) == 2 for each in found["findings"])


def test_fix_mends_what_a_quantizer_for_cpus_wrote_into_another_file(check: Any, tmp_path: Path) -> None:
    source = saved(quantized(conv_network(), tmp_path), tmp_path / "int8.onnx")
    before = source.read_bytes()

    done = check(source, "--to", "tensorrt", "--fix", "-o", tmp_path / "good.onnx", "--json")
    found = json.loads(done.stdout)

    assert done.returncode == 0
    assert source.read_bytes() == before
    assert {each["mend"] for each in found["repairs"]["made"]} == {"float-bias", "symmetric"}
    assert found["repairs"]["left"] == []
    assert found["repairs"]["numbers"]["passed"]
    assert found["repairs"]["numbers"]["outputs"][0]["sqnr_db"] > 25
    assert check(tmp_path / "good.onnx", "--to", "tensorrt").returncode == 0


def test_what_cannot_be_mended_is_left_and_said(check: Any, tmp_path: Path) -> None:
    done = check(saved(CORPUS["determinants"], tmp_path / "net.onnx"), "--to", "tensorrt", "--fix")

    assert done.returncode == 5
    assert "Nothing of it can be mended" in done.stdout
    assert [path.name for path in tmp_path.glob("*.onnx")] == ["net.onnx"]


def test_fix_never_writes_over_a_file(check: Any, tmp_path: Path) -> None:
    source = saved(CORPUS["double_inputs"], tmp_path / "net.onnx")

    done = check(source, "--to", "tensorrt", "--fix", "-o", source, "--json")

    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (2, "preflight.exists")


def test_fix_writes_the_profiles_that_are_assumed_as_a_recipe(check: Any, tmp_path: Path) -> None:
    free = network([onnx.helper.make_node("Relu", ["x"], ["y"], name="relu")], {"x": [1, "n"]}, {"y": [1, "n"]})
    source = saved(free, tmp_path / "net.onnx")

    first = check(source, "--to", "tensorrt", "--fix")
    written = tmp_path / "net.mended.toml"
    second = check(source, "--recipe", written, "--json")

    assert "nothing says how large dimension 1" in " ".join(first.stdout.split())
    assert tomllib.loads(written.read_text())["tensorrt"]["profiles"][0]["x"]["min"] == [1, 1]
    assert json.loads(second.stdout)["findings"] == []


def test_the_shapes_of_a_profile_are_held_against_the_graph(check: Any, tmp_path: Path) -> None:
    source = saved(CORPUS["profile_below_the_window"], tmp_path / "net.onnx")
    profile = "[[tensorrt.profiles]]\nx = { min = [1, 3, 4, 4], opt = [1, 3, 64, 64], max = [1, 3, 128, 128] }\n"
    (tmp_path / "small.toml").write_text(f'to = "tensorrt"\n{profile}')

    done = check(source, "--recipe", "small.toml", "--json")

    assert done.returncode == 5
    (finding,) = json.loads(done.stdout)["findings"]
    assert (finding["node"], finding["operator"]) == ("pool", "MaxPool")
    assert "smallest shape (x [1, 3, 4, 4])" in finding["reason"]


def test_another_source_is_exported_first_and_only_under_trust(check: Any) -> None:
    refused = check(SAMPLE, "--to", "tensorrt", "--json")
    trusted = check(SAMPLE, "--to", "tensorrt", "--trust")

    assert (refused.returncode, json.loads(refused.stdout)["error"]["code"][:6]) == (3, "trust.")
    assert trusted.returncode == 0
    assert "nothing stands against" in " ".join(trusted.stdout.split())


def test_onnxruntime_and_openvino_are_asked_themselves(check: Any, tmp_path: Path) -> None:
    source = saved(CORPUS["operator_of_ones_own"], tmp_path / "net.onnx")

    for target in ("onnxruntime", "openvino"):
        done = check(source, "--to", target, "--json")
        (finding,) = json.loads(done.stdout)["findings"]
        assert (done.returncode, finding["node"], finding["operator"]) == (5, "spell", "Sorcery")


def test_options_for_repositories_do_not_go_with_a_model(check: Any, tmp_path: Path) -> None:
    source = saved(conv_network(), tmp_path / "net.onnx")

    assert check(source, "--serve").returncode == 2
    assert check(source, "-o", "other.onnx").returncode == 2


def test_a_file_that_is_no_model_exits_3(check: Any, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"not a protobuf at all")

    assert check("net.onnx", "--to", "tensorrt").returncode == 3
    assert check("nowhere.onnx", "--to", "tensorrt").returncode == 3
