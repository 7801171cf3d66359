"""Engines prepared without a GPU and built by `convkit build` on machines that are stood in for.

TensorRT-RTX parses and builds, for real; an engine's answers are ONNX Runtime's on the ONNX model that it was built
from (`deferred.machines`). Running a real engine needs a GPU.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from e2e.published import files_below, read_config
from nobody import as_nobody, needs_root, open_to_all

from convkit.building_work import require_place
from convkit.errors import InputError
from deferred.conftest import Prepare
from deferred.machines import H100, L4, NEXT, Container, Machine

On = Callable[[Machine], Container]


def engines(version: Path) -> dict[str, tuple[str, str]]:
    """What engines.json says: of each plan, its compute capability and TensorRT."""
    document = json.loads((version / "convkit" / "engines.json").read_bytes())
    return {e["file"]: (e["gpu"]["compute_capability"], e["tensorrt"]) for e in document["engines"]}


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def built(container: Container, *arguments: str | Path, **variables: str) -> list[dict[str, Any]]:
    """Run `convkit build --json`, see that it succeeded, and return the results."""
    outcome = container.command("build", *arguments, "--json", variables=variables)
    assert outcome.exit_status == 0, outcome.stderr + outcome.stdout
    results: list[dict[str, Any]] = outcome.result["results"]
    assert outcome.result["status"] == ("ok" if any(r["status"] == "ok" for r in results) else "unchanged")
    return results


def test_a_shipped_engine_is_built_with_the_light_core_alone_and_then_left_alone(repository: Path, on: On) -> None:
    container = on(L4)

    [result] = built(container, repository, STAND_IN_LIGHT="1")

    assert (result["status"], result["engine"], result["version"]) == ("ok", "built", 1)
    assert result["verification"]["passed"]
    version = repository / "scaled" / "1"
    assert engines(version) == {"model.plan": ("8.9", L4.tensorrt)}
    assert (version / "convkit" / "model.onnx").is_file(), "for the next GPU and the next TensorRT"
    assert not (repository / "scaled" / "pending").exists()
    assert not read_config(repository / "scaled" / "config.pbtxt").cc_model_filenames
    assert [path.name for path in repository.iterdir()] == ["scaled"], "no lock is left"
    assert container.command("check", repository, "--json").exit_status == 0
    logs, before = set((container.command.cache / "logs").iterdir()), stamps(repository)
    assert built(container, repository) == []
    assert [each["status"] for each in built(container, repository, "--all")] == ["unchanged"]
    assert set((container.command.cache / "logs").iterdir()) == logs, "no worker was started"
    assert stamps(repository) == before


def test_a_killed_build_leaves_nothing_and_goes_on_where_it_was(repository: Path, workplace: Path) -> None:
    container = Container(L4, workplace, "killed")
    hold = workplace / "hold-killed"
    hold.touch()
    before = files_below(repository)

    running = container.start("build", repository, variables={"STAND_IN_HOLD": str(hold)})
    assert running.stderr
    lines = iter(running.stderr)
    assert any("Build the TensorRT engine" in line for line in lines)
    running.kill()
    running.wait()
    hold.unlink()

    left = {name: digest for name, digest in files_below(repository).items() if not name.startswith(".convkit-build")}
    assert left == before
    [result] = built(container, repository)
    assert result["status"] == "ok"
    report = json.loads(Path(result["report"]).read_bytes())
    assert {s["title"]: s["cached"] for s in report["stages"]}["Build the TensorRT engine"] is True
    assert [path.name for path in repository.iterdir()] == ["scaled"], "the dead one's lock is gone"


def test_of_two_builders_one_waits_and_finds_it_done(repository: Path, workplace: Path) -> None:
    first, second = (Container(L4, workplace, name) for name in ("first", "second"))
    hold = workplace / "hold-two"
    hold.touch()

    ahead = first.start("build", repository, "--json", variables={"STAND_IN_HOLD": str(hold)})
    lock = repository / ".convkit-build-scaled.lock"
    wait_for(lock.exists)
    behind = second.start("build", repository, "--json")
    assert behind.stderr
    assert "another convkit build is at work on scaled" in behind.stderr.readline()
    hold.unlink()
    outputs = [json.loads(process.communicate(timeout=120)[0]) for process in (ahead, behind)]

    assert [output["status"] for output in outputs] == ["ok", "unchanged"]
    assert not list((second.command.cache / "logs").iterdir()), "it started no worker"
    assert engines(repository / "scaled" / "1") == {"model.plan": ("8.9", L4.tensorrt)}


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("damaged", ["model.onnx", "references/0000.npz", "model/config.pbtxt", "report.json"])
def test_a_file_that_was_damaged_on_the_way_is_named(repository: Path, on: On, damaged: str) -> None:
    path = repository / "scaled" / "pending" / "1" / damaged
    path.write_bytes(path.read_bytes()[:-1] + b"?")

    outcome = on(L4).command("build", repository, "--json")

    assert outcome.exit_status == 3
    assert outcome.result["error"]["code"] == "build.digest"
    assert str(path) in outcome.result["error"]["message"]
    assert not (repository / "scaled" / "1").exists()
    path.unlink()
    missing = on(L4).command("build", repository, "--json").result["error"]
    assert (missing["code"], str(path) in missing["message"]) == ("build.missing-file", True)


def test_a_tensorrt_that_the_build_was_not_prepared_for_is_refused(repository: Path, on: On) -> None:
    outcome = on(Machine(tensorrt="9.3.0.1")).command("build", repository, "--json")

    assert outcome.exit_status == 6
    assert outcome.result["error"]["code"] == "build.tensorrt-version"
    assert "from 10.0, and this is 9.3.0.1" in outcome.result["error"]["message"]


def test_an_engine_that_answers_wrong_on_the_target_is_not_published(repository: Path, workplace: Path) -> None:
    container = Container(L4, workplace, "wrong")
    before = files_below(repository)

    outcome = container.command("build", repository, "--json", variables={"STAND_IN_WRONG": "run"})

    assert outcome.exit_status == 5
    assert outcome.result["error"]["code"] == "check.outputs-differ"
    assert files_below(repository) == before


def test_a_second_kind_of_gpu_gets_a_plan_of_its_own_beside_the_first(
    repository: Path, on: On, converter: Prepare
) -> None:
    built(on(L4), repository)
    first = (repository / "scaled" / "1" / "model.plan").read_bytes()

    [result] = built(on(H100), repository, "--all")

    version = repository / "scaled" / "1"
    assert result["status"] == "ok"
    assert engines(version) == {"model.plan": ("8.9", L4.tensorrt), "model_sm90.plan": ("9.0", H100.tensorrt)}
    assert (version / "model.plan").read_bytes() == first
    config = read_config(repository / "scaled" / "config.pbtxt")
    assert dict(config.cc_model_filenames) == {"8.9": "model.plan", "9.0": "model_sm90.plan"}
    assert config.default_model_filename == "model.plan"
    assert not read_config(repository / "scaled" / "configs" / "cpu.pbtxt").cc_model_filenames
    for machine in (L4, H100):
        assert [each["status"] for each in built(on(machine), repository, "--all")] == ["unchanged"]
    assert on(L4).command("check", repository, "--json").exit_status == 0
    before = files_below(repository)
    converter(repository)
    assert files_below(repository) == before, "the same conversion again has nothing to publish"
    converter(repository, 5.0)
    built(on(H100), repository)
    assert engines(repository / "scaled" / "2") == {"model_sm90.plan": ("9.0", H100.tensorrt)}
    built(on(L4), repository, "--all")
    assert set(engines(repository / "scaled" / "2")) == {"model.plan", "model_sm90.plan"}


def test_the_next_tensorrt_replaces_the_plan_and_needs_no_conversion(repository: Path, on: On) -> None:
    built(on(L4), repository)
    assert built(on(NEXT), repository) == [], "nothing is pending"

    [result] = built(on(NEXT), repository, "--all")

    assert result["status"] == "ok"
    assert engines(repository / "scaled" / "1") == {"model.plan": ("8.9", NEXT.tensorrt)}
    assert on(NEXT).command("check", repository, "--tensorrt", NEXT.tensorrt, "--json").exit_status == 0


def test_a_plan_that_was_damaged_since_is_built_again(repository: Path, on: On) -> None:
    built(on(L4), repository)
    plan = repository / "scaled" / "1" / "model.plan"
    plan.write_bytes(b"half a pl")

    [result] = built(on(L4), repository, "--all")

    assert result["status"] == "ok"
    assert plan.stat().st_size > 100
    assert on(L4).command("check", repository, "--json").exit_status == 0


def test_a_ready_repository_is_made_elsewhere_and_the_first_is_not_touched(
    repository: Path, on: On, tmp_path: Path
) -> None:
    served = repository / "other" / "3"
    served.mkdir(parents=True)
    (served / "model.onnx").write_bytes(b"not of interest")
    (served.parent / "config.pbtxt").write_text('backend: "onnxruntime"\n', encoding="utf-8")
    (served.parent / "labels.txt").write_text("one\ntwo\n", encoding="utf-8")
    before = stamps(repository), files_below(repository)
    into = tmp_path / "ready" / "models"

    [result] = built(on(L4), repository, "--into", into)

    assert (stamps(repository), files_below(repository)) == before
    assert (result["repository"], result["model"]) == (str(into), str(into / "scaled"))
    assert engines(into / "scaled" / "1") == {"model.plan": ("8.9", L4.tensorrt)}
    assert {"config.pbtxt", "configs", "warmup", "1"} == {path.name for path in (into / "scaled").iterdir()}
    assert (into / "other" / "3" / "model.onnx").read_bytes() == b"not of interest"
    assert (into / "other" / "labels.txt").is_file()
    ready = stamps(into)
    assert [each["status"] for each in built(on(L4), repository, "--into", into)] == ["unchanged"]
    assert stamps(into) == ready
    built(on(H100), repository, "--into", into)
    assert set(engines(into / "scaled" / "1")) == {"model.plan", "model_sm90.plan"}
    assert (stamps(repository), files_below(repository)) == before
    shutil.rmtree(repository / "other")
    again = tmp_path / "again"
    [result] = built(on(H100), into / "scaled", "--into", again)
    assert result["engine"] == "built"
    assert set(engines(again / "scaled" / "1")) == {"model.plan", "model_sm90.plan"}, "taken over as they are"


def test_into_may_not_lie_in_the_first(repository: Path, on: On) -> None:
    outcome = on(L4).command("build", repository, "--into", repository / "ready", "--json")

    assert (outcome.exit_status, outcome.result["error"]["code"]) == (2, "build.into")


@needs_root
def test_a_repository_that_is_read_only_is_refused_with_the_way_out(repository: Path) -> None:
    open_to_all(repository)
    repository.chmod(0o555)

    assert as_nobody(lambda: require_place(repository, None)) is InputError


def test_the_server_takes_the_place_of_the_builder(repository: Path, on: On, tmp_path: Path) -> None:
    (tmp_path / "server.sh").write_text('echo "$$ $# $3"; exec sleep 60', encoding="utf-8")
    server = (f"sh {shlex.quote(str(tmp_path / 'server.sh'))} one", "--", "--two", "three 3")

    running = on(L4).start("build", repository, "--quiet", "--exec", *server)

    assert running.stdout
    assert running.stdout.readline() == f"{running.pid} 3 three 3\n"
    assert engines(repository / "scaled" / "1")
    status = Path(f"/proc/{running.pid}/status").read_text(encoding="utf-8")
    ignored = int(next(line for line in status.splitlines() if line.startswith("SigIgn")).split()[1], 16)
    assert not ignored >> (signal.SIGPIPE - 1) & 1
    os.kill(running.pid, signal.SIGTERM)
    assert running.wait(timeout=50) == -signal.SIGTERM


def test_a_server_that_is_not_there_is_told_before_anything_is_built(repository: Path, on: On) -> None:
    outcome = on(L4).command("build", repository, "--json", "--", "no-such-server")

    assert (outcome.exit_status, outcome.result["error"]["code"]) == (6, "build.no-program")
    assert not (repository / "scaled" / "1").exists()


def test_a_build_that_fails_starts_no_server(repository: Path) -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", "convkit", "build", repository, "--quiet", "--exec", "echo served"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CONVKIT_CACHE_DIR": str(repository.parent / "cache")},
    )

    assert outcome.returncode == 6
    assert "served" not in outcome.stdout
