"""How much faster one contender is: the interval holds the truth 95 times in 100, whatever the timings scatter like."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from convkit.measure.ratio import _signed_rank, ratio
from convkit.pipeline.stopwatch import Timing

TRUTH = 1.5
KINDS = ("normal", "lognormal", "gamma", "spikes", "starved")


def rounds(generator: np.random.Generator, kind: str, number: int, median: float) -> list[Timing]:
    """Draw rounds of 15 calls about a median, in ms: what the calls scatter like, and what befalls whole rounds."""
    effects = generator.normal(0, 0.01, number)
    if kind == "spikes":
        effects += np.where(generator.random(number) < 0.1, 0.3, 0)
    if kind == "starved":
        effects += np.where(generator.random(number) < 0.3, generator.exponential(1, number), 0)
    calls = {
        "normal": 1 + generator.normal(0, 0.02, (number, 15)),
        "gamma": 1 + generator.gamma(2, 0.05, (number, 15)),
    }.get(kind, np.exp(generator.normal(0, 0.15, (number, 15))))
    drawn = (1e6 * median * np.exp(effects)[:, None] * calls).astype(int)
    return [Timing(latencies_ns=tuple(row)) for row in drawn.tolist()]


def coverage(kind: str, number: int, times: int) -> float:
    generator = np.random.default_rng(1)
    held = 0
    for _ in range(times):
        found = ratio(rounds(generator, kind, number, 2 * TRUTH), rounds(generator, kind, number, 2))
        held += found.low <= TRUTH <= found.high
    return held / times


@pytest.mark.parametrize("kind", KINDS)
def test_the_interval_holds_the_truth_about_95_times_in_100(kind: str) -> None:
    assert coverage(kind, 10, 600) == pytest.approx(0.95, abs=0.027)  # three standard errors


@pytest.mark.soak
@pytest.mark.parametrize(("kind", "number"), list(itertools.product(KINDS, (8, 12, 30))))
def test_the_interval_holds_the_truth_95_times_in_100(kind: str, number: int) -> None:
    assert coverage(kind, number, 10_000) == pytest.approx(0.95, abs=0.01)


def test_one_starved_round_moves_the_estimate_by_a_rank_alone() -> None:
    before = [Timing(latencies_ns=(3_000_000 + 1000 * number,)) for number in range(12)]
    after = [Timing(latencies_ns=(2_000_000,)) for _ in range(12)]
    starved = [*before[:-1], Timing(latencies_ns=(3_000_000_000,))]

    assert ratio(starved, after).value == pytest.approx(ratio(before, after).value, rel=2e-3)


def test_two_sides_that_change_places_give_the_reciprocal() -> None:
    generator = np.random.default_rng(4)
    one, other = rounds(generator, "normal", 12, 3), rounds(generator, "normal", 12, 2)

    there, back = ratio(one, other), ratio(other, one)

    assert (there.value, there.low, there.high) == pytest.approx((1 / back.value, 1 / back.high, 1 / back.low))


def test_one_round_gives_an_interval_without_width() -> None:
    found = ratio([Timing(latencies_ns=(3_000,))], [Timing(latencies_ns=(2_000,))])

    assert (found.low, found.value, found.high) == pytest.approx((1.5, 1.5, 1.5))
    assert found.reach == 0


def test_the_signed_rank_distribution_is_that_of_all_signs() -> None:
    sums = [sum(rank for rank, plus in enumerate(signs, 1) if plus) for signs in itertools.product((0, 1), repeat=6)]

    assert _signed_rank(6) == pytest.approx([sums.count(total) / 64 for total in range(22)])
