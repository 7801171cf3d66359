"""Several models in one recipe: what each is asked for, and what becomes of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from convkit.errors import ConvkitError, ExitStatus, InputError, UsageError
from convkit.fleet import WORST_FIRST, Fleet, convert_fleet, default_jobs, read_fleet, summarized
from convkit.fleet_member import taking_turns
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import StepFinished, StepStarted
from convkit.report.document import Result, Status
from convkit.spec.options import MeasureMode, Precision


def save(path: Path, *, operator: str = "Relu") -> Path:
    """Write a small ONNX model."""
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32) * 0.5, "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node(operator, ["h"], ["y"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """Three models and a recipe of them."""
    for name, operator in (("one", "Relu"), ("two", "Sigmoid"), ("three", "Tanh")):
        save(tmp_path / name / "model.onnx", operator=operator)
    return write(
        tmp_path,
        """
output = "models"
[measure]
mode = "none"
[quantize]
samples = 9

[[model]]
model = "one"

[[model]]
model = "two"
[model.quantize]
precision = "dynamic"

[[model]]
extends = "base.toml"
model = "three/model.onnx"
name = "third"
""",
        base='[quantize]\nsamples = 5\nprecision = "fp16"\n',
    )


def write(folder: Path, text: str, **others: str) -> Path:
    for name, content in {"fleet": text, **others}.items():
        (folder / f"{name}.toml").write_text(content, encoding="utf-8")
    return folder / "fleet.toml"


def refusal(path: Path, **arguments: Any) -> ConvkitError:
    with pytest.raises(ConvkitError) as caught:
        read_fleet(path, arguments, environment={})
    return caught.value


def test_what_stands_above_the_models_is_shared_and_each_wins_over_it(fleet: Path) -> None:
    one, two, three = read_fleet(fleet, {}, environment={})

    assert {request.output for request in (one, two, three)} == {str(fleet.parent / "models")}
    assert {request.measure.mode for request in (one, two, three)} == {MeasureMode.NONE}
    assert (one.model, one.quantize.precision, one.quantize.samples) == (str(fleet.parent / "one"), Precision.NONE, 9)
    assert (two.quantize.precision, two.quantize.samples) == (Precision.DYNAMIC, 9)
    assert (three.name, three.quantize.precision, three.quantize.samples) == ("third", Precision.FP16, 5)


def test_arguments_win_over_every_model(fleet: Path) -> None:
    requests = read_fleet(fleet, {"quantize": {"samples": 2}, "output": "there"}, environment={})

    assert {(request.quantize.samples, request.output) for request in requests} == {(2, "there")}


def test_the_environment_names_no_model_of_a_fleet(fleet: Path) -> None:
    environment = {"SOURCE_MODEL_PATH": "elsewhere", "TARGET_MODEL_PATH": "there", "MODEL_NAME": "x"}

    requests = read_fleet(fleet, {}, environment=environment)

    assert [Path(request.model).name for request in requests] == ["one", "two", "model.onnx"]
    assert {request.to for request in requests} == {"onnxruntime"}
    assert {request.name for request in requests} == {None, "third"}


MISTAKES = {
    "no models": ('model = "m"\n', "fleet.toml holds no [[model]] tables"),
    "an empty list": ("model = []\n", "fleet.toml holds no [[model]] tables"),
    "a list of paths": ('model = ["a", "b"]\n', "fleet.toml holds no [[model]] tables"),
    "a table without a model": (
        '[[model]]\nmodel = "one"\n[[model]]\nname = "b"\n',
        "fleet.toml, line 3: model[1]: this table names no model",
    ),
    "a value in a model's table": (
        '[[model]]\nmodel = "one"\n[model.quantize]\nprecision = "int9"\n',
        "fleet.toml, line 4: quantize.precision: 'int9' is none of the choices",
    ),
    "a key in the second model's table": (
        '[[model]]\nmodel = "one"\n[[model]]\nmodel = "two"\nnmae = "b"\n',
        "fleet.toml, line 5: nmae: there is no key 'nmae'",
    ),
    "a shared value": ('to = "tensorrrt"\n[[model]]\nmodel = "one"\n', "fleet.toml, line 1: to: there is no target"),
    "the same model twice": (
        '[[model]]\nmodel = "one"\n[[model]]\nmodel = "one/model.onnx"\n',
        "fleet.toml, line 3: model[1]: 'one' is already model[0] of ./models",
    ),
    "what a model extends is not there": (
        '[[model]]\nmodel = "one"\nextends = "nowhere.toml"\n',
        "fleet.toml, line 3: extends: 'nowhere.toml' does not exist",
    ),
    "what a model extends is a fleet": (
        '[[model]]\nmodel = "one"\nextends = "fleet.toml"\n',
        "fleet.toml, line 1: model: only the recipe that is converted may hold [[model]] tables",
    ),
    "a mistake in what a model extends": (
        '[[model]]\nmodel = "one"\nextends = "base.toml"\n',
        "base.toml, line 2: quantize.precision: 'int7' is none of the choices",
    ),
    "a variable": ('[[model]]\nmodel = "${WHERE}/one"\n', "fleet.toml, line 2: model[0].model: the variable WHERE"),
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_shown_with_its_file_and_line(fleet: Path, text: str, message: str) -> None:
    write(fleet.parent, text, base='[quantize]\nprecision = "int7"\n')

    error = refusal(fleet)

    assert isinstance(error, InputError)
    assert error.message.startswith(message)


@pytest.mark.parametrize("key", ["name", "config", "locked"])
def test_what_can_only_be_meant_for_one_model_is_refused_for_several(fleet: Path, key: str) -> None:
    error = refusal(fleet, **{key: "x"})

    assert isinstance(error, UsageError)
    assert error.message.startswith(f"--{key}: fleet.toml holds 3 models")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def command(*arguments: object, cache: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CONVKIT_", "SOURCE_MODEL"))}
    return subprocess.run(
        [sys.executable, "-m", "convkit", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**kept, "CONVKIT_CACHE_DIR": str(cache)},
    )


def test_every_model_is_converted_and_one_that_fails_stops_no_other(fleet: Path, cache: Path) -> None:
    (fleet.parent / "two" / "model.onnx").write_bytes(b"no model")

    done = command("convert", fleet, "--jobs", 3, "--json", cache=cache, cwd=fleet.parent)

    found = json.loads(done.stdout)
    assert done.returncode == ExitStatus.INPUT_REFUSED == found["exit_code"]
    assert list(found) == ["schema", "status", "exit_code", "results"]
    assert (found["schema"], found["status"]) == ("convkit.fleet/1", "failed")
    assert [(r["schema"], r["name"], r["status"], r["exit_code"]) for r in found["results"]] == [
        ("convkit.result/1", "one", "ok", 0),
        ("convkit.result/1", "two", "failed", 3),
        ("convkit.result/1", "third", "ok", 0),
    ]
    assert (fleet.parent / "models/one/1/model.onnx").is_file()
    assert (fleet.parent / "models/third/1/model.onnx").is_file()
    assert not (fleet.parent / "models/two").exists()
    assert "error (two): " in done.stderr
    weights = onnx.load(fleet.parent / "models/third/1/model.onnx").graph.initializer
    assert {weight.data_type for weight in weights} == {TensorProto.FLOAT16}


def test_the_table_names_every_model_and_a_rerun_publishes_nothing(fleet: Path, cache: Path) -> None:
    first = command("convert", fleet, cache=cache, cwd=fleet.parent)
    again = command("convert", fleet, cache=cache, cwd=fleet.parent)

    assert (first.returncode, again.returncode) == (0, 0)
    rows = [line.split() for line in first.stdout.splitlines()]
    assert [row[:3] for row in rows] == [
        ["model", "status", "version"],
        ["one", "ok", "1"],
        ["two", "ok", "1"],
        ["third", "ok", "1"],
    ]
    assert "two: " in first.stderr
    assert [line.split()[:2] for line in again.stdout.splitlines()[1:]] == [
        [name, "unchanged"] for name in ("one", "two", "third")
    ]


def test_all_unchanged_is_unchanged(fleet: Path, cache: Path) -> None:
    requests = read_fleet(fleet, {}, environment={})
    seen: set[str] = set()

    first = convert_fleet(requests, observer=lambda name, _: seen.add(name), cache=Cache(cache))
    again = convert_fleet(requests, cache=Cache(cache))

    assert (first.status, again.status) == (Status.OK, Status.UNCHANGED)
    assert seen == {"one", "two", "third"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--jobs", "0"), "--jobs 0: at least one"),
        (("--recipe", "base.toml"), "--recipe does not go with"),
        (("--dry-run",), "--dry-run does not go with"),
        (("--name", "x"), "--name: fleet.toml holds 3 models"),
    ],
)
def test_options_that_cannot_be_meant_are_usage_errors(
    fleet: Path, cache: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = command("convert", fleet, *arguments, cache=cache, cwd=fleet.parent)

    assert done.returncode == ExitStatus.USAGE
    assert message in done.stderr


def test_jobs_is_for_recipes_with_several_models(fleet: Path, cache: Path) -> None:
    done = command("convert", fleet.parent / "one", "--jobs", "2", cache=cache, cwd=fleet.parent)

    assert (done.returncode, "--jobs does not go with one model" in done.stderr) == (ExitStatus.USAGE, True)


def descendants(process: int) -> Iterator[int]:
    """The processes below one; some may end while it is looked."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield int(child)
                yield from descendants(int(child))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_fleet_that_is_ended_leaves_no_process_and_no_working_files(
    fleet: Path, tmp_path: Path, number: int, status: int
) -> None:
    running = subprocess.Popen(
        [sys.executable, "-m", "convkit", "convert", fleet, "--jobs", "2"],
        stderr=subprocess.PIPE,
        env={**os.environ, "CONVKIT_CACHE_DIR": str(tmp_path / "cache")},
    )
    deadline = time.monotonic() + 60
    while len(begun := list(descendants(running.pid))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(number)
    running.communicate(timeout=60)

    assert running.returncode == status
    assert len(begun) >= 3
    while (left := [each for each in begun if Path(f"/proc/{each}/exe").exists()]) and time.monotonic() < deadline:
        time.sleep(0.02)  # the kernel ends a worker a moment after the process that it belonged to
    assert left == []
    assert [path for path in (tmp_path / "cache/scratch").iterdir() if path.is_dir()] == []


def test_a_member_that_is_killed_is_one_failure(fleet: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = read_fleet(fleet, {"output": str(fleet.parent / "others")}, environment={})

    def kill(name: str, _: object) -> None:
        if name == "two":
            for child in descendants(os.getpid()):
                words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
                if b"convkit.fleet_member" in words:
                    os.kill(child, signal.SIGKILL)

    done = convert_fleet(requests[:2], jobs=1, observer=kill, cache=Cache(cache))

    assert [result.exit_code for result in done.results] == [0, 4]
    assert done.results[1].error is not None
    assert done.results[1].error.code == "fleet.killed"


def result(code: int, status: Status = Status.FAILED) -> Result:
    return Result(status=status, exit_code=code)


@pytest.mark.parametrize(
    ("codes", "worst"),
    [((0, 0), 0), ((0, 6), 6), ((6, 2, 0), 2), ((2, 3), 3), ((3, 5, 6), 5), ((5, 4), 4), ((1, 4), 1), ((77, 0), 1)],
)
def test_the_exit_status_is_the_worst_of_all(codes: tuple[int, ...], worst: int) -> None:
    fleet: Fleet = summarized(tuple(result(code, Status.FAILED if code else Status.OK) for code in codes))

    assert fleet.exit_code == worst
    assert fleet.status is (Status.FAILED if worst else Status.OK)


def test_every_exit_status_that_a_conversion_has_is_ranked() -> None:
    assert set(WORST_FIRST) == set(ExitStatus) - {ExitStatus.INTERRUPTED, ExitStatus.TERMINATED}


def test_jobs_stay_within_the_machine_and_the_models() -> None:
    assert default_jobs(1) == 1
    assert 1 <= default_jobs(1000) <= max(1, len(os.sched_getaffinity(0)) // 2)


def test_one_measures_alone_and_the_others_work_together(tmp_path: Path) -> None:
    turns = tmp_path / "turns"
    turns.touch()
    with turns.open("rb") as a, turns.open("rb") as b, turns.open("rb") as c:
        first, second, measuring = (taking_turns(file.fileno(), lambda _: None) for file in (a, b, c))
        work = StepStarted(stage="simplify", title="")
        done = StepFinished(stage="simplify", title="", seconds=0, peak_bytes=0, cached=False)
        first(work)
        second(work)  # does not wait

        alone = threading.Thread(target=measuring, args=(StepStarted(stage="measure", title=""),))
        alone.start()
        first(done)
        assert alone.is_alive(), "measured while another worked"
        second(done)
        alone.join(timeout=30)
        assert not alone.is_alive()

        waiting = threading.Thread(target=first, args=(work,))
        waiting.start()
        waiting.join(timeout=0.2)
        assert waiting.is_alive(), "worked while another measured"
        measuring(done)
        waiting.join(timeout=30)
        assert not waiting.is_alive()
