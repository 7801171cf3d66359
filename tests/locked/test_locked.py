"""`--locked MANIFEST`: the very result that a manifest names, or a refusal that says what differs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SAMPLE = Path(__file__).parents[2] / "sample_models" / "digits_cnn"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("locked")
    result = convert(folder, "first")
    assert result["status"] == "ok"
    return folder


def convert(folder: Path, repository: str, *arguments: str, model: Path = SAMPLE) -> dict[str, Any]:
    command = [sys.executable, "-m", "convkit", "convert", str(model), "--trust", "--measure", "none", "--json"]
    done = subprocess.run(
        [*command, "-o", str(folder / repository), "--name", "digits", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "CONVKIT_CACHE_DIR": str(folder / "cache")},
        check=False,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["exit_code"] == done.returncode
    return result


def manifest(folder: Path) -> Path:
    return folder / "first" / "digits" / "1" / "convkit" / "manifest.json"


def test_the_same_inputs_give_what_is_locked_in_another_place(workplace: Path, tmp_path: Path) -> None:
    model = tmp_path / "elsewhere"
    shutil.copytree(SAMPLE, model)

    result = convert(workplace, "second", "--locked", str(manifest(workplace)), model=model)

    assert result["status"] == "ok"
    assert (
        manifest(workplace).read_bytes()
        == (workplace / "second" / "digits" / "1" / "convkit" / "manifest.json").read_bytes()
    )


def test_another_option_is_refused_by_name_before_anything_runs(workplace: Path) -> None:
    result = convert(workplace, "third", "--locked", str(manifest(workplace)), "--quantize", "dynamic")

    assert result["exit_code"] == 5
    assert "option quantize.precision is dynamic, locked is none" in result["error"]["message"]
    assert result["stages"] == []
    assert not (workplace / "third").exists()


def test_another_source_or_version_is_refused_by_name(workplace: Path, tmp_path: Path) -> None:
    model = tmp_path / "changed"
    shutil.copytree(SAMPLE, model)
    with (model / "config.txt").open("a") as config:
        config.write("\n")
    older = json.loads(manifest(workplace).read_text())
    older["predicate"]["runDetails"]["builder"]["version"]["torch"] = "1.0"
    lock = tmp_path / "manifest.json"
    lock.write_text(json.dumps(older))

    message = convert(workplace, "third", "--locked", str(lock), model=model)["error"]["message"]

    assert "source config.txt is" in message
    assert "version of torch is" in message
    assert "locked is 1.0" in message


def test_a_result_with_other_bytes_is_not_published(workplace: Path, tmp_path: Path) -> None:
    other = json.loads(manifest(workplace).read_text())
    for subject in other["subject"]:
        subject["digest"]["sha256"] = "0" * 64
    lock = tmp_path / "manifest.json"
    lock.write_text(json.dumps(other))

    result = convert(workplace, "third", "--locked", str(lock))

    assert result["exit_code"] == 5
    assert "result model.onnx is sha256:" in result["error"]["message"]
    assert not (workplace / "third" / "digits").exists()


def test_what_is_no_manifest_is_refused(workplace: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")

    assert convert(workplace, "third", "--locked", str(tmp_path / "manifest.json"))["exit_code"] == 3
    assert convert(workplace, "third", "--locked", str(tmp_path / "none.json"))["exit_code"] == 3
