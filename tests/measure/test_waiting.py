"""Time that was waited for others is of unknown effect: what is found beside them has to stand whatever that was."""

from __future__ import annotations

import pytest

from convkit.measure.gates import Found, Gate, Interval, Verdict, at_least, at_most
from convkit.measure.latency import PLANS, _enough
from convkit.measure.waiting import IDLE, doubt, waited
from convkit.pipeline.run_queue import Turn
from convkit.pipeline.stopwatch import Timing
from convkit.report import statistics
from convkit.report.gates import latency_interval, sentence, speedup_interval
from convkit.report.latency import Comparison, Finding
from convkit.spec.options import MeasureMode

MS = 10**6
LABELS = ("before", "after")


def turn(share: float, *, threads: int = 1, others: float | None = None) -> Turn:
    """Return a tenth of a second in which always busy threads waited for a share of it, and others had as much."""
    waited_ns = round(100 * MS * threads * share)
    return Turn(
        wall_ns=100 * MS,
        ran_ns=100 * MS * threads - waited_ns,
        waited_ns=waited_ns,
        others_ns=waited_ns if others is None else round(100 * MS * others),
    )


def rounds(median_ms: float, share: float | None, *, number: int = 20) -> list[Timing]:
    """Return rounds of a contender that waited for a share of each, a thousandth apart."""
    return [
        Timing(
            latencies_ns=(int(median_ms * MS * (1 + 0.001 * (place % 3))),) * 9,
            turn=None if share is None else turn(share),
        )
        for place in range(number)
    ]


def found(before: tuple[float, float | None], after: tuple[float, float | None]) -> Comparison:
    return statistics.compare(rounds(*before), rounds(*after), labels=LABELS)


@pytest.mark.parametrize("threads", [1, 4])
def test_a_share_is_that_of_the_time_in_which_threads_ran_or_waited(threads: int) -> None:
    assert waited([Timing(latencies_ns=(1,), turn=turn(0.4, threads=threads))] * 8) == pytest.approx(0.4)


def test_time_that_threads_slept_counts_as_well() -> None:
    asleep = Turn(wall_ns=100 * MS, ran_ns=10 * MS, waited_ns=10 * MS, others_ns=50 * MS)

    assert waited([Timing(latencies_ns=(1,), turn=asleep)]) == pytest.approx(0.1)


def test_threads_that_wait_for_each_other_wait_for_nobody_else() -> None:
    alone = [Timing(latencies_ns=(1,), turn=turn(0.5, threads=4, others=other)) for other in (0.02, -0.02, 0.01)]

    assert waited(alone * 4) == pytest.approx(0.01 / 3 / 2, rel=0.02)


def test_one_round_in_which_a_neighbour_took_the_machine_does_not_count() -> None:
    starved = [Timing(latencies_ns=(1,), turn=turn(share)) for share in (0.95, *(0.001,) * 11)]

    assert waited(starved) == pytest.approx(0.001)


def test_what_the_system_does_not_tell_is_not_known_and_nothing_is_doubted_for_it() -> None:
    assert waited(rounds(1.0, None)) is None
    assert doubt(None) == 0
    assert found((2.0, None), (2.0, None)).finding is Finding.SAME


def test_what_an_idle_machine_shows_is_no_reason_to_doubt() -> None:
    assert doubt(0.9 * IDLE) == 0
    assert found((2.0, 0.9 * IDLE), (2.0, 0.9 * IDLE)).finding is Finding.SAME
    assert found((2.0, 0.9 * IDLE), (2.06, 0.9 * IDLE)).finding is Finding.SLOWER


@pytest.mark.parametrize("shares", [(0.2, 0.2), (0.2, 0.0), (0.0, 0.2)], ids=["both", "before", "after"])
def test_a_model_against_itself_beside_a_neighbour_is_inconclusive(shares: tuple[float, float]) -> None:
    before, after = shares
    comparison = found((2.0, before), (2.0, after))

    assert comparison.finding is Finding.INCONCLUSIVE
    assert (comparison.before_waited, comparison.after_waited) == pytest.approx(shares)
    assert 0.99 < comparison.low <= 1 <= comparison.high < 1.01, "told as it was measured"


@pytest.mark.parametrize(
    ("before", "after", "finding"),
    [
        ((4.0, 0.3), (2.0, 0.3), Finding.FASTER),
        ((2.0, 0.3), (4.0, 0.3), Finding.SLOWER),
        ((4.0, 0.6), (2.0, 0.0), Finding.INCONCLUSIVE),
        ((4.0, 0.0), (2.0, 0.9), Finding.FASTER),
        ((2.0, 0.0), (4.0, 0.6), Finding.INCONCLUSIVE),
        ((2.0, 0.9), (4.0, 0.0), Finding.SLOWER),
    ],
)
def test_a_difference_is_found_where_no_waiting_can_have_made_it(
    before: tuple[float, float], after: tuple[float, float], finding: Finding
) -> None:
    assert found(before, after).finding is finding


def latency(median_ms: float, share: float) -> Interval:
    return latency_interval(statistics.latency(rounds(median_ms, share), batch=1))


@pytest.mark.parametrize(
    ("limit", "share", "verdict"),
    [
        (6.0, 0.5, Verdict.PASSED),  # without its neighbour it takes no longer
        (4.0, 0.5, Verdict.INCONCLUSIVE),
        (4.0, 0.1, Verdict.FAILED),
        (4.0, 0.0, Verdict.FAILED),
        (1e-9, 1.0, Verdict.FAILED),
        (1e6, 1.0, Verdict.PASSED),
    ],
)
def test_a_latency_misses_its_limit_for_sure_only_where_waiting_does_not_explain_it(
    limit: float, share: float, verdict: Verdict
) -> None:
    assert at_most(limit, latency(5.0, share)) is verdict


@pytest.mark.parametrize(
    ("least", "shares", "verdict"),
    [
        (1.5, (0.1, 0.1), Verdict.PASSED),
        (1.5, (0.3, 0.3), Verdict.INCONCLUSIVE),
        (1.5, (0.0, 0.3), Verdict.PASSED),
        (2.5, (0.1, 0.1), Verdict.FAILED),
        (2.5, (0.3, 0.3), Verdict.INCONCLUSIVE),
        (2.5, (0.3, 0.0), Verdict.FAILED),
        (1e-6, (1.0, 1.0), Verdict.PASSED),
        (1e9, (1.0, 1.0), Verdict.FAILED),
    ],
)
def test_a_speedup_keeps_or_misses_its_limit_for_sure_only_where_waiting_does_not_explain_it(
    least: float, shares: tuple[float, float], verdict: Verdict
) -> None:
    speedup = speedup_interval(found((4.0, shares[0]), (2.0, shares[1])))

    assert at_least(least, speedup) is verdict


def test_a_gate_that_is_inconclusive_for_a_neighbour_says_so() -> None:
    measured = Found(latency_ms=latency(5.0, 0.5))
    gate = Gate(name="max-latency", asked=4.0, found=5.0, verdict=Verdict.INCONCLUSIVE)
    failed = Gate(name="max-latency", asked=1.0, found=5.0, verdict=Verdict.FAILED)

    assert "; the machine was busy: timed calls waited 50 % of their time for a processor)" in sentence(gate, measured)
    assert "busy" not in sentence(failed, measured)


@pytest.mark.parametrize(
    ("after_ms", "share", "ends"), [(2.0, 0.0, True), (2.0, 0.3, False), (1.0, 0.3, True), (1.0, 0.6, False)]
)
def test_a_measurement_goes_on_while_waiting_leaves_its_verdict_open(after_ms: float, share: float, ends: bool) -> None:
    plan = PLANS[MeasureMode.FULL]
    sides = [rounds(2.0, share), rounds(after_ms, share)]

    assert _enough(plan, list(LABELS), None)([[None] * plan.rounds, *sides]) is ends
    assert _enough(plan._replace(budget=-1.0), list(LABELS), None)([[None] * plan.rounds, *sides])
