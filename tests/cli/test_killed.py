"""A conversion that publishes over a live model may be killed at any moment."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from serving.publications import faults, left_over
from sources.onnx_files import model, write

from cli.program import Program
from convkit.conversion import convert
from convkit.pipeline import runner
from convkit.pipeline.cache import Cache
from convkit.request import make_request

FAST = ("--measure", "none")


def variant(folder: Path, number: int) -> Path:
    """The same network with other weights."""
    weight = np.arange(12, dtype=np.float32).reshape(4, 3) / 10 + number
    return write(folder / str(number), model(weights=[numpy_helper.from_array(weight, "w")]))


def weight_of(version: Path) -> float:
    return float(numpy_helper.to_array(onnx.load(version / "model.onnx").graph.initializer[0])[0, 0])


def versions(repository: Path) -> list[int]:
    return sorted(int(path.name) for path in (repository / "live").glob("[0-9]*"))


def publish_command(file: Path) -> tuple[object, ...]:
    return ("convert", file, "-o", "models", "--name", "live", "--json", *FAST)


@pytest.mark.parametrize("kills", [15, pytest.param(200, marks=pytest.mark.soak)])
def test_killed_at_random_moments_the_repository_is_whole_and_the_next_run_ends_right(
    kills: int, convkit: Program, tmp_path: Path
) -> None:
    convkit.cache = tmp_path / "cache"
    repository = tmp_path / "models"
    assert convkit(*publish_command(variant(tmp_path, -1))).status == 0  # what it imports is in memory from here on
    started = time.monotonic()
    assert convkit(*publish_command(variant(tmp_path, 0))).status == 0
    whole = time.monotonic() - started
    seed = int.from_bytes(os.urandom(4), "big")
    moments = random.Random(seed)

    ended = 0
    for number in range(1, kills + 1):
        before = versions(repository)
        process, started = convkit.start(*publish_command(variant(tmp_path, number))), time.monotonic()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0, 1.2 * whole))
            whole = min(whole, time.monotonic() - started)  # the machine was busier before than it is now
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        ended += process.returncode == 0

        which = f"kill {number} of the moments from the seed {seed}"
        assert faults(repository, config_of=("live",)) == [], which
        assert versions(repository) in (before, [*before, before[-1] + 1]), which
        assert weight_of(repository / "live" / str(before[-1])) < number, which

    assert ended <= kills * 2 / 3, "hardly any was killed before its end"
    last = convkit(*publish_command(variant(tmp_path, kills + 1)))
    assert last.status == 0
    assert last.result["status"] == "ok"
    assert weight_of(repository / "live" / str(last.result["version"])) == kills + 1
    assert left_over(repository) == []
    assert list((tmp_path / "cache").glob("scratch/[0-9]*")) == []
    public = len(versions(repository)) - 3
    print(f"{kills} kills within {whole:.2f} s each: {ended} came after the end, {public} after the publication")


def is_finished(cache: Path, step: str) -> bool:
    """Tell whether the result of a step has come under its key; what is still being written has another name."""
    entries = (path for path in (cache / "entries").glob("*/*") if re.fullmatch("[0-9a-f]{64}", path.name))
    return any(f'"step":"{step}"'.encode() in path.read_bytes() for path in entries)


def test_what_a_killed_run_has_finished_is_not_run_again(convkit: Program, tmp_path: Path) -> None:
    convkit.cache = tmp_path / "cache"
    file = variant(tmp_path, 1)
    process = convkit.start("convert", file, "-o", "models", "--json", "--measure", "full")
    deadline = time.monotonic() + 60
    while not is_finished(tmp_path / "cache", "convkit.graph.simplify:simplify"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    result = convkit("convert", file, "-o", "models", "--json", *FAST).result
    cached = {stage["title"]: stage["cached"] for stage in result["stages"]}

    assert result["status"] == "ok"
    assert cached["Read the ONNX model"] is True
    assert cached["Simplify the graph"] is True


class NoWorker:
    """Stands in for a worker where none may be started."""

    def __init__(self, *args: object) -> None:
        raise AssertionError("a worker was started")


def test_a_rerun_starts_no_worker(convkit: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convkit.cache = tmp_path / "cache"
    file = variant(tmp_path, 1)
    output = str(tmp_path / "models")
    quick = ("convert", file, "-o", output, "--json", "--measure", "quick", "--quantize", "fp16")
    assert convkit(*quick).result["status"] == "ok"
    monkeypatch.setattr(runner, "Worker", NoWorker)
    arguments = {
        "model": str(file),
        "output": output,
        "measure": {"mode": "quick"},
        "quantize": {"precision": "fp16"},
    }
    cache = Cache(convkit.cache)

    report = convert(make_request(arguments, environment={}), cache=cache)
    assert report.status.value == "unchanged"
    with pytest.raises(AssertionError, match="a worker was started"):
        convert(make_request({**arguments, "export": {"opset": 19}}, environment={}), cache=cache)


def test_a_damaged_cache_is_made_good_by_itself(convkit: Program, tmp_path: Path) -> None:
    convkit.cache = tmp_path / "cache"
    file = variant(tmp_path, 1)
    first = convkit("convert", file, "-o", "models", "--json", *FAST).result
    published = (tmp_path / first["model"] / "1" / "model.onnx").read_bytes()
    for path in (tmp_path / "cache" / "objects").rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    shutil.rmtree(tmp_path / "models")
    second = convkit("convert", file, "-o", "models", "--json", *FAST).result

    assert second["status"] == "ok"
    assert (tmp_path / first["model"] / "1" / "model.onnx").read_bytes() == published
