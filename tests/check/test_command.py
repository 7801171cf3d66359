"""`convkit check` as a command: its exit status, its JSON, and what it needs installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from check.keys import make_key, public
from check.repositories import foreign

PROGRAM = Path(sys.executable).with_name("convkit")


def convkit(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, "check", *map(str, arguments)], capture_output=True, text=True, check=False)


def test_a_clean_repository_exits_0_and_a_damaged_one_5(repository: Path) -> None:
    clean = convkit(repository)
    (repository / "dense" / "1" / "model.onnx").write_bytes(b"\x08")
    damaged = convkit(repository)

    assert (clean.returncode, damaged.returncode) == (0, 5)
    assert "nothing is wrong; 0 warnings, 0 notes" in clean.stdout
    assert "error: dense/1/model.onnx is not the file that was published" in damaged.stdout
    assert "[check.digest]" in damaged.stdout
    assert clean.stderr == damaged.stderr == ""


def test_json_is_one_object_with_every_finding(tmp_path: Path) -> None:
    repository = foreign(tmp_path / "repository")
    (repository / "notes").mkdir()

    done = convkit(repository, "--json", "--triton", "24.10")
    found = json.loads(done.stdout)

    assert done.returncode == found["exit_code"] == 5
    assert (found["schema"], found["status"], found["repository"]) == ("convkit.check/1", "failed", str(repository))
    assert [(f["code"], f["severity"], f["path"]) for f in found["findings"]] == [
        ("repository.not-a-model", "error", "notes")
    ]
    (model,) = found["models"]
    assert model["name"] == "theirs"
    assert model["versions"] == [{"version": 1, "pending": False, "recorded": False, "files": 0, "served": None}]
    assert [set(f) for f in model["findings"]] == [{"code", "severity", "message", "hint", "path"}]


def test_no_repository_exits_3_and_says_so_in_json(tmp_path: Path) -> None:
    done = convkit(tmp_path / "nowhere", "--json")

    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (3, "repository.missing")


def test_a_release_that_is_none_exits_2(published: Path) -> None:
    assert convkit(published, "--triton", "newest").returncode == 2


def test_no_server_exits_6(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVKIT_TRITONSERVER", "/nowhere/tritonserver")

    assert convkit(published, "--serve").returncode == 6


def test_a_wanted_signature_that_is_not_there_exits_5(published: Path, tmp_path: Path) -> None:
    done = convkit(published, "--verify-key", public(make_key(tmp_path / "key.pem")), "--quiet")

    assert done.returncode == 5
    assert "dense/1 is not signed" in done.stdout


def test_quiet_says_nothing_where_nothing_is_wrong(published: Path) -> None:
    done = convkit(published, "--quiet")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_light_core_is_enough(published: Path) -> None:
    """Neither onnx nor a framework nor cryptography is imported, digests and configurations are still held."""
    program = (
        "import sys\n"
        "for name in ('onnx', 'onnxruntime', 'torch', 'tensorflow', 'cryptography'): sys.modules[name] = None\n"
        "from convkit.cli.app import run\n"
        "sys.exit(run(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "check", str(published), "--triton", "26.07"]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
