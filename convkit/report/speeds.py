"""What was timed, as the report shows it."""

from __future__ import annotations

import functools

from convkit.measure.latency import PLANS, REACH, Measurement
from convkit.pipeline.allowance import threads
from convkit.report import statistics
from convkit.report.latency import Comparison, Latency
from convkit.spec.options import MeasureMode

AGAIN = ", again"


class Speeds:
    """Summaries of one measurement, each made once: gates and report both ask for them.

    Args:
        measurement: what was timed.
        final: the label of the model that the others are compared with.
        batch: samples in one call.
        mode: how long was measured.
        alone: the final model once more, without the copies to its device and back.
        timed_how: how the final model was timed in `measurement` and in `alone`.
    """

    def __init__(
        self,
        measurement: Measurement = Measurement(),  # noqa: B008 - frozen
        *,
        final: str = "",
        batch: int = 1,
        mode: MeasureMode = MeasureMode.NONE,
        alone: Measurement | None = None,
        timed_how: tuple[str, str] = ("", ""),
    ) -> None:
        self._alone = alone
        self._timed_how = timed_how
        self.measurement = measurement
        self._final = final
        self._batch = batch
        self._mode = mode
        self._latencies: dict[str, Latency] = {}

    def latency(self, label: str) -> Latency | None:
        """Return how long a call takes; None where that was not timed."""
        rounds = self.measurement.timings.get(label)
        if rounds and label not in self._latencies:
            self._latencies[label] = statistics.latency(rounds, batch=self._batch)
        return self._latencies.get(label)

    def latency_alone(self, label: str) -> Latency | None:
        """Return how long a call takes without copies; None where that was not timed."""
        rounds = self._alone.timings.get(label) if self._alone is not None else None
        return statistics.latency(rounds, batch=self._batch) if rounds else None

    def throughput(self, label: str) -> float | None:
        """Return samples per second of one caller; None where that was not timed."""
        rounds = self.measurement.timings.get(label)
        return statistics.throughput(rounds, batch=self._batch) if rounds else None

    @functools.cached_property
    def self_check(self) -> Comparison | None:
        """Return what the model that was measured twice differs by from itself; None where none was."""
        twin = self.measurement.twin
        if twin is None or not self.measurement.again:
            return None
        return statistics.compare(
            self.measurement.timings[twin], self.measurement.again, labels=(twin, f"{twin}{AGAIN}")
        )

    @functools.cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Return the final model's speed against each of the others."""
        timings = self.measurement.timings
        if self._final not in timings:
            return ()
        smallest = statistics.smallest_difference(self.self_check)
        return tuple(
            statistics.compare(before, timings[self._final], labels=(label, self._final), smallest=smallest)
            for label, before in timings.items()
            if label != self._final
        )

    def how(self) -> tuple[str, ...]:
        """Say how the figures came about, a sentence each."""
        if not self.measurement.timings:
            return ()
        plan, allowed = PLANS[self._mode], threads()
        rounds = len(next(iter(self.measurement.timings.values())))
        how_many = "default threads" if allowed is None else f"{allowed} threads, as many as may run"
        latency = (
            f"Latency: batch {self._batch}, {rounds} rounds of {plan.seconds:g} s for each model in turn, each "
            f"framework in its own process with {how_many}, after a round and a call in each round that do not count; "
            f"all other calls count. It ended when every interval reached no further than {100 * REACH:g} %, or after "
            f"{plan.budget:g} s."
        )
        if self._alone is not None:
            latency += f" {self._final} was timed on the GPU: {self._timed_how[0]}; and once more {self._timed_how[1]}."
        if self.self_check is None:
            return (latency,)
        smallest = statistics.smallest_difference(self.self_check)
        itself = (
            f"{self.measurement.twin} was measured twice, as if it were two models. A difference counts where its "
            f"whole 95% interval lies beyond {100 * smallest:.3g} %."
        )
        return latency, itself
