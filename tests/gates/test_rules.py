"""The rules of the gates, on timings that are made up."""

from __future__ import annotations

import numpy as np
import pytest

from convkit.errors import CheckError
from convkit.measure.compare import OutputDifference
from convkit.measure.gates import Found, Gate, Interval, Verdict, at_least, at_most, judge
from convkit.pipeline.stopwatch import Timing
from convkit.report import statistics
from convkit.report.gates import latency_interval, refuse_missed, sentence, speedup_interval
from convkit.spec.options import CheckOptions, GateOptions


def rounds_of(median_ms: float, *, spread: float, rounds: int = 8) -> list[Timing]:
    """Return rounds whose medians lie within `spread` (a share) around a latency."""
    scales = np.random.default_rng(4).permutation(np.linspace(1 - spread, 1 + spread, rounds))
    return [Timing(latencies_ns=(int(median_ms * scale * 1e6),) * 20) for scale in scales]


def latency_of(median_ms: float, *, spread: float, rounds: int = 8) -> Interval:
    return latency_interval(statistics.latency(rounds_of(median_ms, spread=spread, rounds=rounds), batch=1))


@pytest.mark.parametrize(
    ("limit", "verdict"), [(6.0, Verdict.PASSED), (5.02, Verdict.INCONCLUSIVE), (4.0, Verdict.FAILED)]
)
def test_a_latency_is_judged_by_its_whole_interval(limit: float, verdict: Verdict) -> None:
    assert at_most(limit, latency_of(5.0, spread=0.05)) is verdict


@pytest.mark.parametrize(
    ("least", "verdict"), [(1.5, Verdict.PASSED), (2.0, Verdict.INCONCLUSIVE), (3.0, Verdict.FAILED)]
)
def test_a_speedup_is_judged_by_its_whole_interval(least: float, verdict: Verdict) -> None:
    before, after = rounds_of(10.0, spread=0.06), rounds_of(5.0, spread=0.0)

    found = speedup_interval(statistics.compare(before, after, labels=("torch", "ONNX")))

    assert at_least(least, found) is verdict


@pytest.mark.parametrize("limit", [1.0, 100.0])
def test_too_few_rounds_are_inconclusive_on_either_side_of_the_limit(limit: float) -> None:
    few = latency_of(5.0, spread=0.0, rounds=statistics.MIN_ROUNDS - 1)

    assert at_most(limit, few) is Verdict.INCONCLUSIVE
    assert at_least(limit, few) is Verdict.INCONCLUSIVE


def test_a_limit_that_is_just_reached_is_kept() -> None:
    found = Interval(value=5, low=5, high=5, enough=True)

    assert at_most(5, found) is Verdict.PASSED
    assert at_least(5, found) is Verdict.PASSED


def test_a_size_passes_up_to_its_limit_and_fails_one_byte_above() -> None:
    verdicts = [
        judge(GateOptions(max_size="1KB"), CheckOptions(), Found(size_bytes=size), unknown=None)[0].verdict
        for size in (1000, 1001)
    ]

    assert verdicts == [Verdict.PASSED, Verdict.FAILED]


def difference(name: str, max_abs: float | None, sqnr_db: float | None) -> OutputDifference:
    return OutputDifference(name=name, max_abs=max_abs, max_rel=None, cosine=None, sqnr_db=sqnr_db)


def test_numbers_are_judged_by_the_worst_output() -> None:
    outputs = (difference("a", 0.1, 40.0), difference("b", 0.3, 20.0), difference("c", 0.0, None))

    error, ratio = judge(GateOptions(), CheckOptions(max_error=0.2, min_sqnr=10), Found(outputs=outputs), unknown=None)

    assert (error.name, error.found, error.verdict) == ("max-error", 0.3, Verdict.FAILED)
    assert (ratio.name, ratio.found, ratio.verdict) == ("min-sqnr", 20.0, Verdict.PASSED)


def test_outputs_that_are_not_finite_keep_no_gate() -> None:
    found = Found(outputs=(difference("a", None, None), difference("b", 0.0, None)))

    gates = judge(GateOptions(), CheckOptions(max_error=1e9, min_sqnr=-1e9), found, unknown=None)

    assert [(gate.found, gate.verdict) for gate in gates] == [(None, Verdict.FAILED)] * 2


def test_equal_outputs_keep_every_gate_of_the_numbers() -> None:
    found = Found(outputs=(difference("a", 0.0, None),))

    gates = judge(GateOptions(), CheckOptions(max_error=1e-9, min_sqnr=200), found, unknown=None)

    assert [gate.verdict for gate in gates] == [Verdict.PASSED] * 2


def test_what_is_not_known_gets_the_verdict_that_its_moment_asks_for() -> None:
    options = GateOptions(max_latency=1, min_speedup=1, max_size=1)

    assert judge(options, CheckOptions(max_error=1), Found(), unknown=None) == ()
    deferred = judge(options, CheckOptions(max_error=1), Found(), unknown=Verdict.DEFERRED)
    assert [(gate.name, gate.found, gate.verdict) for gate in deferred] == [
        (name, None, Verdict.DEFERRED) for name in ("max-latency", "min-speedup", "max-size", "max-error")
    ]


def gate(name: str, asked: float, found: float | None, verdict: Verdict) -> Gate:
    return Gate(name=name, asked=asked, found=found, verdict=verdict)


def test_a_refusal_names_every_missed_gate_with_what_was_asked_and_found() -> None:
    gates = (
        gate("max-latency", 5, 7.123, Verdict.FAILED),
        gate("min-speedup", 2, 2.01, Verdict.INCONCLUSIVE),
        gate("max-size", 1e6, 5e5, Verdict.PASSED),
    )
    measured = Found(latency_ms=Interval(value=7.123, low=7, high=7.4, enough=True))

    with pytest.raises(CheckError) as refused:
        refuse_missed(gates, measured)

    latency, speedup = refused.value.message.splitlines()
    assert latency == (
        "--max-latency: asked for at most 5.00 ms, found 7.12 ms (95% interval 7.00 ms to 7.40 ms): failed"
    )
    assert speedup.startswith("--min-speedup: asked for at least 2.00 ×, found 2.01 ×")
    assert refused.value.code == "gates.failed"


def test_an_inconclusive_gate_is_refused_with_a_code_of_its_own_and_a_way_out() -> None:
    with pytest.raises(CheckError) as refused:
        refuse_missed((gate("max-latency", 5, 5.01, Verdict.INCONCLUSIVE),), Found())

    assert refused.value.code == "gates.inconclusive"
    assert "--measure full" in refused.value.hint


def test_passed_and_deferred_gates_are_no_obstacle() -> None:
    deferred = gate("max-latency", 5, None, Verdict.DEFERRED)

    refuse_missed((gate("max-size", 5, 4, Verdict.PASSED), deferred), Found())

    assert "'convkit build' judges it" in sentence(deferred)
