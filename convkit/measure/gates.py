"""Gates: demands on the result that decide whether it is published, and the rules by which they are judged.

What was measured with an interval (latency, speed-up) passes where the whole 95 % interval keeps the limit, fails where
the whole interval misses it, and is inconclusive where the interval straddles the limit or there were too few rounds
to trust it; so is one that would keep or miss the limit had it not waited for processors that others had
(`convkit.measure.waiting`). What is counted (size, the numbers' difference) passes or fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

import msgspec

from convkit.measure.compare import OutputDifference
from convkit.measure.waiting import doubt
from convkit.spec.options import CheckOptions, GateOptions

_ROUNDING = 1e-9
"""Differences of shares that floats cannot tell from none."""


class Verdict(Enum):
    """What a gate says."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    DEFERRED = "deferred"
    """`convkit build` judges it before it publishes."""


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """A demand on the result that decides whether it is published."""

    name: str
    """The option that asked for it, without its dashes; it decides the unit: ``max-latency`` in ms, ``max-size`` in
    bytes, ``min-low-precision`` as a share (0 to 1), ``max-drop`` in points of the metric, ``min-sqnr`` in dB,
    ``max-error`` in the outputs' own unit, ``min-speedup`` as a ratio."""
    asked: float
    found: float | None
    """None where it could not be measured here; for ``min-sqnr`` also where there is no difference at all."""
    verdict: Verdict


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A measured figure, with its 95 % interval."""

    value: float
    low: float
    high: float
    enough: bool
    """Whether there were rounds enough to trust the interval."""
    waited: tuple[float | None, float | None] = (None, None)
    """Shares of time in which something waited that would have made the figure smaller, and larger, had it not."""

    @property
    def least(self) -> float:
        """Return how small the figure may be in truth."""
        return self.low * (1 - doubt(self.waited[0]))

    @property
    def most(self) -> float:
        """Return how large the figure may be in truth."""
        return self.high / (1 - doubt(self.waited[1]))


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the candidate where its gates are judged. None: not known, or not yet."""

    size_bytes: int | None = None
    """Size of what the runtime loads."""
    latency_ms: Interval | None = None
    speedup: Interval | None = None
    low_precision: float | None = None
    """Share, 0 to 1, of the multiply-accumulates in the precision asked for or a lower one."""
    drop: float | None = None
    """How much less accurate the final model is than the source framework's, in points of the metric."""
    outputs: tuple[OutputDifference, ...] | None = None
    """The final model's outputs against the source framework's."""


def judge(
    options: GateOptions,
    check: CheckOptions,
    found: Found,
    *,
    unknown: Verdict | None,
    max_drop: float | None = None,
) -> tuple[Gate, ...]:
    """Judge every gate that was asked for.

    Args:
        options: the gates of size and speed.
        check: the gates of the numbers.
        found: what they are held against.
        unknown: the verdict on a gate whose figure is not known; None leaves such a gate out.
        max_drop: most accuracy that may be lost, in points of the metric; None: no gate.
    """
    gates = (*_sized_and_timed(options, found), *_accuracy(max_drop, found.drop), *_numbers(check, found.outputs))
    verdicts = ((gate, gate.verdict if known else unknown) for gate, known in gates)
    return tuple(msgspec.structs.replace(gate, verdict=verdict) for gate, verdict in verdicts if verdict is not None)


def _sized_and_timed(options: GateOptions, found: Found) -> Iterator[tuple[Gate, bool]]:
    """Yield gates, and whether their figure is known."""
    if (most := options.max_latency) is not None:
        yield _gate("max-latency", most, found.latency_ms, at_most(most, found.latency_ms))
    if (least := options.min_speedup) is not None:
        yield _gate("min-speedup", least, found.speedup, at_least(least, found.speedup))
    if (size := options.max_size_bytes) is not None:
        kept = found.size_bytes is not None and found.size_bytes <= size
        yield _counted("max-size", size, found.size_bytes, kept=kept), found.size_bytes is not None
    if (share := options.min_low_precision_share) is not None:
        low = found.low_precision
        yield _counted("min-low-precision", share, low, kept=low is not None and low >= share), low is not None


def _accuracy(max_drop: float | None, drop: float | None) -> Iterator[tuple[Gate, bool]]:
    if max_drop is not None:
        kept = drop is not None and drop <= max_drop + _ROUNDING
        yield _counted("max-drop", max_drop, drop, kept=kept), drop is not None


def _numbers(check: CheckOptions, outputs: tuple[OutputDifference, ...] | None) -> Iterator[tuple[Gate, bool]]:
    if check.max_error is not None:
        errors = [output.max_abs for output in outputs or ()]
        largest = None if None in errors else max((e for e in errors if e is not None), default=0.0)
        kept = largest is not None and largest <= check.max_error
        yield _counted("max-error", check.max_error, largest if outputs else None, kept=kept), outputs is not None
    if check.min_sqnr is not None:
        noisy = [output for output in outputs or () if output.max_abs != 0]
        ratios = [output.sqnr_db for output in noisy]
        least = None if None in ratios else min((r for r in ratios if r is not None), default=None)
        kept = not noisy or (least is not None and least >= check.min_sqnr)
        yield _counted("min-sqnr", check.min_sqnr, least, kept=kept), outputs is not None


def at_most(limit: float, found: Interval | None) -> Verdict:
    """Judge a figure that must not exceed a limit."""
    if found is None or not found.enough or found.least <= limit < found.most:
        return Verdict.INCONCLUSIVE
    return Verdict.PASSED if found.most <= limit else Verdict.FAILED


def at_least(limit: float, found: Interval | None) -> Verdict:
    """Judge a figure that must reach a limit."""
    if found is None or not found.enough or found.least < limit <= found.most:
        return Verdict.INCONCLUSIVE
    return Verdict.PASSED if found.least >= limit else Verdict.FAILED


def _gate(name: str, asked: float, found: Interval | None, verdict: Verdict) -> tuple[Gate, bool]:
    value = None if found is None else found.value
    return Gate(name=name, asked=asked, found=value, verdict=verdict), found is not None


def _counted(name: str, asked: float, found: float | None, *, kept: bool) -> Gate:
    return Gate(name=name, asked=asked, found=found, verdict=Verdict.PASSED if kept else Verdict.FAILED)
