"""Statistics on timings of known distribution: percentiles, and how often the intervals hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from convkit.pipeline.stopwatch import Timing
from convkit.report import statistics
from convkit.report.latency import Finding

LABELS = ("before", "after")


def timings(generator: np.random.Generator, effects: np.ndarray, *, median_ms: float = 2.0, calls: int = 40):
    """Draw rounds whose calls scatter log-normally about `median_ms` times e to the round's effect."""
    return [
        Timing(
            latencies_ns=tuple(
                int(value) for value in median_ms * 1e6 * np.exp(effect + generator.normal(0, 0.15, calls))
            )
        )
        for effect in effects
    ]


def test_percentiles_are_latencies_that_were_measured() -> None:
    rounds = [Timing(latencies_ns=tuple(n * 1_000_000 for n in range(low, low + 50))) for low in (1, 51)]

    latency = statistics.latency(rounds, batch=4)

    assert (latency.p50_ms, latency.p90_ms, latency.p99_ms) == (50.0, 90.0, 99.0)
    assert latency.mean_ms == pytest.approx(50.5)
    assert (latency.calls, latency.rounds, latency.batch) == (100, 2, 4)


def test_throughput_counts_samples_in_the_time_spent_in_calls() -> None:
    rounds = [Timing(latencies_ns=(1_000_000, 3_000_000)), Timing(latencies_ns=(4_000_000,))]

    assert statistics.throughput(rounds, batch=8) == pytest.approx(3 * 8 / 0.008)


def test_the_interval_of_the_median_holds_the_truth_about_95_times_in_100() -> None:
    generator = np.random.default_rng(7)
    held = 0
    for _ in range(300):
        low, high = statistics.median_interval(timings(generator, generator.normal(0, 0.04, 10)))
        held += low <= 2.0 <= high

    assert 0.91 <= held / 300 <= 0.985


def test_the_interval_of_a_speedup_holds_the_truth_about_95_times_in_100() -> None:
    generator = np.random.default_rng(8)
    held = 0
    for _ in range(300):
        shared = generator.normal(0, 0.2, 10)  # what the machine does to both sides of a round
        before = timings(generator, shared, median_ms=3.0)
        after = timings(generator, shared + generator.normal(0, 0.02, 10))
        comparison = statistics.compare(before, after, labels=LABELS)
        held += comparison.low <= 1.5 <= comparison.high

    assert 0.91 <= held / 300 <= 0.985


def test_two_runs_of_the_same_model_are_never_called_different_and_no_difference_where_that_is_sure() -> None:
    generator = np.random.default_rng(9)
    found = [
        statistics.compare(
            *(timings(generator, generator.normal(0, scatter, 30), calls=400) for _ in range(2)), labels=LABELS
        ).finding
        for scatter in (0.008,) * 100 + (0.05,) * 100
    ]

    assert set(found) == {Finding.SAME, Finding.INCONCLUSIVE}
    assert found[:100].count(Finding.SAME) >= 99
    assert found[100:].count(Finding.INCONCLUSIVE) >= 90


def test_a_machine_that_is_not_steady_takes_small_differences_back() -> None:
    def rounds(median_ms: float) -> list[Timing]:
        return [Timing(latencies_ns=(int(median_ms * 1e6) + n,)) for n in range(12)]

    itself = statistics.compare(rounds(2.0), rounds(2.1), labels=LABELS)
    smallest = statistics.smallest_difference(itself)

    assert itself.finding is Finding.SLOWER
    assert smallest == pytest.approx(0.05, rel=1e-3)
    assert statistics.compare(rounds(2.08), rounds(2.0), labels=LABELS).finding is Finding.FASTER
    assert statistics.compare(rounds(2.08), rounds(2.0), labels=LABELS, smallest=smallest).finding is Finding.SAME
    assert statistics.compare(rounds(2.2), rounds(2.0), labels=LABELS, smallest=smallest).finding is Finding.FASTER
    assert statistics.smallest_difference(None) == statistics.SMALLEST


def test_a_tenth_slower_is_found_though_the_machine_drifts_by_more() -> None:
    generator = np.random.default_rng(10)
    drift = np.linspace(-0.3, 0.3, 12)
    comparison = statistics.compare(
        timings(generator, drift), timings(generator, drift, median_ms=2.2), labels=("ONNX FP32", "ONNX INT8")
    )

    assert comparison.conclusive
    assert comparison.high < 1
    assert comparison.speedup == pytest.approx(1 / 1.1, rel=0.05)
    assert (comparison.before, comparison.after, comparison.rounds) == ("ONNX FP32", "ONNX INT8", 12)


def test_the_speedup_of_two_rounds_is_the_geometric_mean_of_their_ratios() -> None:
    before = [Timing(latencies_ns=(8_000,)), Timing(latencies_ns=(9_000,))]
    after = [Timing(latencies_ns=(2_000,)), Timing(latencies_ns=(9_000,))]

    assert statistics.compare(before, after, labels=LABELS).speedup == pytest.approx(2.0)


def test_few_rounds_are_never_conclusive_however_clear_they_look() -> None:
    def compared(rounds: int) -> bool:
        slow, fast = (
            [Timing(latencies_ns=(value + n, value)) for n in range(rounds)] for value in (9_000_000, 1_000_000)
        )
        return bool(statistics.compare(slow, fast, labels=LABELS).conclusive)

    assert compared(statistics.MIN_ROUNDS)
    assert not compared(statistics.MIN_ROUNDS - 1)


def test_the_same_timings_always_give_the_same_figures() -> None:
    generator = np.random.default_rng(11)
    before, after = (timings(generator, generator.normal(0, 0.05, 8)) for _ in range(2))

    assert statistics.latency(before, batch=1) == statistics.latency(before, batch=1)
    assert statistics.compare(before, after, labels=LABELS) == statistics.compare(before, after, labels=LABELS)


def test_one_round_gives_an_interval_without_width() -> None:
    latency = statistics.latency([Timing(latencies_ns=(1_000_000, 2_000_000, 9_000_000))], batch=1)

    assert (latency.low_ms, latency.p50_ms, latency.high_ms) == (2.0, 2.0, 2.0)


def test_resampled_medians_agree_with_medians_of_the_pooled_calls() -> None:
    generator = np.random.default_rng(12)
    rounds = timings(generator, generator.normal(0, 0.3, 5), calls=21)
    times = np.array([[1, 1, 1, 1, 1], [3, 0, 0, 2, 0], [0, 0, 5, 0, 0], [1, 2, 2, 0, 0]])

    found = statistics._resampled_medians(rounds, times)

    for row, median in zip(times, found, strict=True):
        pooled = np.concatenate([np.tile(timing.latencies_ns, n) for timing, n in zip(rounds, row, strict=True)])
        assert median == np.percentile(pooled, 50, method="inverted_cdf")


@pytest.mark.parametrize(
    ("freedom", "tabulated"), [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (10, 2.228), (29, 2.045)]
)
def test_students_quantiles_are_those_of_the_tables(freedom: int, tabulated: float) -> None:
    assert math.isclose(statistics._student(0.975, freedom), tabulated, abs_tol=5e-4)
