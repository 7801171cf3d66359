"""Gates of an engine that is built elsewhere: deferred, carried in build.json, judged by `convkit build`.

TensorRT and the GPU are stood in for: what the engine weighs, answers and takes is made up.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.command import Command
from e2e.digits import CNN

from convkit.errors import CheckError
from convkit.measure.gates import Verdict
from convkit.report.document import Report, Status
from convkit.spec.options import MeasureMode
from convkit.targets.build_plan import read_build_plan
from gates.made_up import ENGINE_BYTES


@pytest.fixture(scope="module")
def prepared(convkit: Command, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Convert the sample to TensorRT where no GPU is, with gates; return the repository."""

    def prepare(*gates: str) -> Path:
        repository = tmp_path_factory.mktemp("repository") / "models"
        asked = ("--to", "tensorrt", "--measure", "quick", *gates)
        outcome = convkit("convert", CNN.folder, "--trust", "--json", "-o", repository, *asked)
        assert outcome.exit_status == 0, outcome.stderr
        assert {gate["verdict"] for gate in outcome.result["gates"] if gate["name"] != "max-error"} == {"deferred"}
        return repository

    return prepare


def test_size_and_latency_of_a_deferred_engine_are_carried_and_its_numbers_judged_at_once(
    convkit: Command, tmp_path: Path
) -> None:
    asked = ("--max-latency", "5", "--max-size", "10MB", "--max-error", "0.01")
    outcome = convkit("convert", CNN.folder, "--trust", "--json", "--to", "tensorrt", "-o", tmp_path / "models", *asked)

    assert outcome.exit_status == 0, outcome.stderr
    gates = {gate["name"]: (gate["found"] is None, gate["verdict"]) for gate in outcome.result["gates"]}
    assert gates == {"max-latency": (True, "deferred"), "max-size": (True, "deferred"), "max-error": (False, "passed")}
    plan = read_build_plan(tmp_path / "models" / "digits_cnn" / "pending" / "1" / "build.json")
    assert (plan.gates.max_latency, plan.gates.max_size, plan.check.max_error) == (5, "10MB", 0.01)


def test_an_engine_that_keeps_its_gates_is_published_with_their_figures(
    prepared: Callable[..., Path], build_here: Callable[..., tuple[Report, ...]]
) -> None:
    repository = prepared("--max-latency", "5", "--max-size", "5KB", "--max-error", "0.01")

    (report,) = build_here(repository, call_ms=2.0)

    gates = {gate.name: (gate.found, gate.verdict) for gate in report.gates}
    assert gates == {
        "max-latency": (2.0, Verdict.PASSED),
        "max-size": (float(ENGINE_BYTES), Verdict.PASSED),
        "max-error": (0.0, Verdict.PASSED),
    }
    published = repository / "digits_cnn" / "1"
    assert (published / "model.plan").stat().st_size == ENGINE_BYTES
    assert not (repository / "digits_cnn" / "pending").exists()
    assert [stage.cached for stage in report.stages if stage.name == "measure"][-1:] == [True], "no need to time again"
    final = report.subjects[-1]
    assert final.latency is not None
    assert (final.latency.p50_ms, final.emulated) == (2.0, False)
    assert final.latency_alone is not None, "and without the copies"
    assert any("NVIDIA Fake" in line for line in report.measured_how)


@pytest.mark.parametrize(
    ("gates", "call_ms", "name"),
    [(("--max-latency", "5"), 7.0, "max-latency"), (("--max-size", "4KB"), 1.0, "max-size")],
)
def test_an_engine_that_misses_a_gate_is_not_published_and_stays_pending(
    prepared: Callable[..., Path],
    build_here: Callable[..., tuple[Report, ...]],
    gates: tuple[str, ...],
    call_ms: float,
    name: str,
) -> None:
    repository = prepared(*gates)

    with pytest.raises(CheckError) as refused:
        build_here(repository, call_ms=call_ms)

    assert refused.value.code == "gates.failed"
    assert f"--{name}: asked for" in refused.value.message
    document = refused.value.document
    assert isinstance(document, Report)
    assert (document.status, document.exit_code) == (Status.FAILED, 5)
    timed = [stage.cached for stage in document.stages if stage.title == "Measure latency"]
    assert name != "max-latency" or timed[-2:] == [True, False], "a miss that was remembered is timed again"
    assert Path(document.candidate or "").stat().st_size == ENGINE_BYTES
    assert not (repository / "digits_cnn" / "1").exists()
    assert (repository / "digits_cnn" / "pending" / "1" / "build.json").is_file()


def test_an_engine_without_a_latency_gate_is_not_timed(
    prepared: Callable[..., Path], build_here: Callable[..., tuple[Report, ...]]
) -> None:
    (report,) = build_here(prepared("--max-size", "5KB"), call_ms=1.0)

    assert report.subjects[-1].latency is None
    assert [gate.name for gate in report.gates] == ["max-size"]


def test_an_engine_is_timed_in_both_ways_where_that_is_asked_for(
    prepared: Callable[..., Path], build_here: Callable[..., tuple[Report, ...]]
) -> None:
    (report,) = build_here(prepared("--max-size", "5KB"), call_ms=1.0, measure=MeasureMode.QUICK)

    final = report.subjects[-1]
    assert final.latency is not None
    assert final.latency_alone is not None
    assert (final.latency.p50_ms, final.latency_alone.p50_ms) == (1.0, 1.0)
    assert any("as trtexec 11 measures" in line for line in report.measured_how)
