"""How long a call takes: every model in turn, in one alternating measurement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from convkit.pipeline.runner import Contender, Runner
from convkit.pipeline.stopwatch import Timing
from convkit.spec.options import MeasureMode


class Plan(NamedTuple):
    """How long to measure each contender."""

    rounds: int
    seconds: float


PLANS = {MeasureMode.QUICK: Plan(rounds=8, seconds=0.12), MeasureMode.FULL: Plan(rounds=30, seconds=0.5)}


def measure_latency(
    run: Runner, contenders: Mapping[str, Contender[Timing]], mode: MeasureMode, *, fresh: bool = False
) -> dict[str, list[Timing]]:
    """Time every contender in alternation; each one's rounds under its label. Nothing in mode `none`.

    Args:
        run: runs and remembers the measurement.
        contenders: what to time, by label.
        mode: how long.
        fresh: measure even where a measurement is remembered.
    """
    if mode is MeasureMode.NONE or not contenders:
        return {}
    results = run.alternate(list(contenders.values()), rounds=PLANS[mode].rounds, title="Measure latency", fresh=fresh)
    return dict(zip(contenders, results, strict=True))
