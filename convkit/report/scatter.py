"""The search within an accuracy budget as a drawing: accuracy against latency, or against the order of the trials."""

from __future__ import annotations

import msgspec

from convkit.report import units
from convkit.report.document import Report, Trial
from convkit.report.section import plain

_MARGIN = 0.08


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One trial. Places are in percent of the drawing, from its left and from its bottom."""

    label: str
    x: float
    y: float
    tone: str
    """``kept`` where it holds, ``missed``, or ``chosen`` for the model that was kept."""
    number: int


class Scatter(msgspec.Struct, frozen=True, kw_only=True):
    """Trials and the limit that they were held to."""

    title: str
    points: tuple[Point, ...]
    limit: float
    """Where the least accuracy that is allowed lies, in percent from the bottom."""
    limit_text: str
    left: str
    right: str
    """What the ends of the horizontal axis stand for."""


def scatter(report: Report) -> Scatter | None:
    """Return the drawing; None where fewer than two models were tried."""
    if len(report.trials) < 2 or report.accuracy is None or report.accuracy.max_drop is None:
        return None
    metric = report.accuracy.metric
    least = report.accuracy.source - report.accuracy.max_drop
    timed = all(trial.latency_ms is not None for trial in report.trials)
    across = [float(trial.latency_ms or 0) if timed else float(number) for number, trial in enumerate(report.trials)]
    up = [trial.value for trial in report.trials]
    low, high = min(*up, least), max(*up, least, report.accuracy.source)
    chosen = _chosen(report)
    points = tuple(
        Point(
            label=plain(f"{trial.what}: {units.accuracy(trial.value, metric)}"),
            x=_place(x, min(across), max(across)),
            y=_place(trial.value, low, high),
            tone="chosen" if trial is chosen else "kept" if trial.passed else "missed",
            number=number + 1,
        )
        for number, (trial, x) in enumerate(zip(report.trials, across, strict=True))
    )
    ends = (units.milliseconds(min(across)), units.milliseconds(max(across))) if timed else ("first", "last")
    return Scatter(
        title=f"{metric} against {'latency' if timed else 'the order of the trials'}",
        points=points,
        limit=_place(least, low, high),
        limit_text=f"at least {units.accuracy(least, metric)}",
        left=ends[0],
        right=ends[1],
    )


def _chosen(report: Report) -> Trial | None:
    assert report.accuracy is not None
    return next((trial for trial in reversed(report.trials) if trial.value == report.accuracy.final), None)


def _place(value: float, low: float, high: float) -> float:
    """Return a place between the margins, in percent; the middle where all values are the same."""
    share = (value - low) / (high - low) if high > low else 0.5
    return 100 * (_MARGIN + (1 - 2 * _MARGIN) * share)
