"""How long a call takes: every model in turn, in one alternating measurement, until it is told well enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from convkit.measure.conditions import Conditions, conditions, look_at_the_machine
from convkit.measure.ratio import MIN_ROUNDS, ratio
from convkit.measure.waiting import waited, widened
from convkit.pipeline.runner import Contender, Runner
from convkit.pipeline.stopwatch import Timing
from convkit.spec.options import MeasureMode


class Plan(NamedTuple):
    """How long to measure."""

    rounds: int
    """At least so many, unless the time is over: then `MIN_ROUNDS`."""
    most: int
    """At most so many."""
    seconds: float
    """What each contender gets in a round."""
    budget: float
    """Seconds after which no further round begins."""


PLANS = {
    MeasureMode.QUICK: Plan(rounds=10, most=40, seconds=0.08, budget=5.0),
    MeasureMode.FULL: Plan(rounds=20, most=800, seconds=0.05, budget=60.0),
}

SMALLEST = 0.015
"""A difference counts from this share on; one that is surely smaller is called none."""
REACH = 0.005
"""A measurement goes on until its intervals reach no further than this share. Estimates scatter by REACH / 1.96 then:
the interval of a model against itself lies within SMALLEST 99 times in 100, that of a difference of 3 % beyond it."""
CLEAR = 0.1
"""Nor does it go on for a difference that is surely larger than this share."""


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """What was timed: the rounds of each contender by its label, and what the machine did meanwhile."""

    timings: dict[str, list[Timing]] = {}
    again: list[Timing] = []
    """The rounds of the contender that was measured twice, as if it were another one; empty: none was."""
    twin: str | None = None
    """That contender's label."""
    conditions: Conditions = Conditions()


def measure_latency(
    run: Runner,
    contenders: Mapping[str, Contender[Timing]],
    mode: MeasureMode,
    *,
    again: tuple[str, Contender[Timing]] | None = None,
    fresh: bool = False,
) -> Measurement:
    """Time every contender in alternation. Nothing in mode `none`.

    Args:
        run: runs and remembers the measurement.
        contenders: what to time, by label; the last is the one that the others are compared with.
        mode: how long.
        again: the label of one of them, and that same model to be measured a second time beside it: what the two differ
            by is the machine's.
        fresh: measure even where a measurement is remembered.
    """
    if mode is MeasureMode.NONE or not contenders:
        return Measurement()
    labels = list(contenders)
    sides: list[Contender[Any]] = [Contender(look_at_the_machine), *contenders.values()]
    if again is not None:
        sides.append(again[1])
    results = run.alternate(
        sides,
        rounds=MIN_ROUNDS,
        most=PLANS[mode].most,
        enough=_enough(PLANS[mode], labels, again[0] if again else None),
        title="Measure latency",
        fresh=fresh,
    )
    return Measurement(
        timings=dict(zip(labels, results[1:], strict=False)),
        again=results[-1] if again is not None else [],
        twin=again[0] if again is not None else None,
        conditions=conditions(results[0]),
    )


def _enough(plan: Plan, labels: Sequence[str], twin: str | None) -> Callable[[Sequence[Sequence[Any]]], bool]:
    """Return what tells, after each round, whether the measurement may end."""
    began = time.monotonic()

    def enough(results: Sequence[Sequence[Any]]) -> bool:
        if time.monotonic() - began > plan.budget:
            return True
        if len(results[0]) < plan.rounds:
            return False
        *others, final = results[1 : len(labels) + 1]
        pairs = [(other, final) for other in others]
        if twin is not None:
            pairs.append((results[1 + labels.index(twin)], results[-1]))
        return all(_settled(*pair) for pair in pairs)

    return enough


def _settled(before: Sequence[Timing], after: Sequence[Timing]) -> bool:
    """Tell whether going on would change nothing; a neighbour may leave before the time is over."""
    found = widened(ratio(before, after), waited(before), waited(after))
    return found.reach <= REACH or found.low > 1 + CLEAR or found.high < 1 / (1 + CLEAR)
