"""What is drawn where drawings can be: bars on one scale."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from convkit.report import units
from convkit.report.document import Check, Profile, Report, Role, Stage
from convkit.report.operator_sheet import percent, short_name
from convkit.report.section import plain

_MOST = 12
"""Bars in a drawing, unless it is known to have few."""


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """One bar of a group, in the group's unit."""

    label: str
    text: str
    value: float
    kind: str = "plain"
    """``source``, ``baseline`` or ``final`` for a model, ``plain`` for what is none, ``bad`` for what failed."""
    low: float | None = None
    high: float | None = None


class Bars(msgspec.Struct, frozen=True, kw_only=True):
    """Bars on one scale, which begins at 0."""

    title: str
    bars: tuple[Bar, ...]
    section: str = ""
    """The key of the section that it belongs to; empty: it stands above all."""
    note: str = ""
    """How to read it."""

    def share(self, value: float) -> float:
        """Return a value's place on the scale, in percent of its full length."""
        most = max(bar.high or bar.value for bar in self.bars)
        return 100 * min(1.0, max(0.0, value / most)) if most > 0 else 0.0


def bars(report: Report) -> tuple[Bars, ...]:
    """Return all drawings with bars of which there is something to be seen."""
    drawn = (
        _latency(report),
        _sizes(report),
        _operators(report),
        *(_closeness(check, number) for number, check in enumerate(report.checks)),
        *(_slowest(profile, number) for number, profile in enumerate(report.profiles)),
        *_steps(report),
    )
    return tuple(group for group in drawn if len(group.bars) > 1)


def _latency(report: Report) -> Bars:
    return Bars(
        title="Latency p50, with its 95% interval",
        note="Shorter is faster.",
        bars=tuple(
            Bar(
                label=plain(subject.label),
                kind=subject.role.value,
                text=units.milliseconds(subject.latency.p50_ms),
                value=subject.latency.p50_ms,
                low=subject.latency.low_ms,
                high=subject.latency.high_ms,
            )
            for subject in report.subjects
            if subject.latency is not None
        ),
    )


def _sizes(report: Report) -> Bars:
    return Bars(
        title="File size",
        note="Bytes on the disk of what is loaded.",
        bars=tuple(
            Bar(
                label=plain(subject.label),
                kind=subject.role.value,
                text=units.size(subject.file_bytes),
                value=subject.file_bytes,
            )
            for subject in report.subjects
            if subject.file_bytes
        ),
    )


def _operators(report: Report) -> Bars:
    return Bars(
        title="Operators", note="Nodes of the graph; as run: what the optimizer left.", bars=tuple(_nodes(report))
    )


def _nodes(report: Report) -> Iterator[Bar]:
    if report.simplification is not None and (exported := sum(report.simplification.before.values())):
        yield Bar(label="as exported", kind=Role.SOURCE.value, text=units.count(exported), value=exported)
    ran = {profile.label: sum(profile.times.ran.values()) for profile in report.profiles}
    for subject in report.subjects:
        label, kind = plain(subject.label), subject.role.value
        if subject.nodes:
            yield Bar(label=label, kind=kind, text=units.count(subject.nodes), value=subject.nodes)
        if run := ran.get(subject.label):
            yield Bar(label=f"{label}, as run", kind=kind, text=units.count(run), value=run)


def _closeness(check: Check, number: int) -> Bars:
    """Draw how close every output is; the worst where they are many. Without noise a bar is full."""
    far = sorted(check.outputs, key=lambda output: (output.passed, _decibel(output.sqnr_db, output.max_abs)))[:_MOST]
    most = max((output.sqnr_db or 0.0 for output in far), default=0.0)
    return Bars(
        section=f"numbers-{number}",
        title="Signal over noise of each output",
        note="Longer is closer to the reference; 20 dB more are a tenth of the noise.",
        bars=tuple(
            Bar(
                label=plain(short_name(output.name)),
                kind="plain" if output.passed else "bad",
                text=units.decibel(output.sqnr_db, max_abs=output.max_abs),
                value=max(0.0, most if output.max_abs == 0 else output.sqnr_db or 0.0),
            )
            for output in far
        ),
    )


def _decibel(value: float | None, max_abs: float | None) -> float:
    if value is not None:
        return value
    return float("inf") if max_abs == 0 else float("-inf")


def _slowest(profile: Profile, number: int) -> Bars:
    times = profile.times
    return Bars(
        section=f"time-{number}",
        title="Share of each operator type",
        bars=tuple(
            Bar(label=plain(each.operator), text=percent(times.share(each.ms)), value=each.ms)
            for each in times.types[:_MOST]
            if times.share(each.ms) > 0.01
        ),
    )


def _steps(report: Report) -> Iterator[Bars]:
    def bar(stage: Stage, value: float, text: str) -> Bar:
        return Bar(label=plain(stage.title or stage.name) + " (cached)" * stage.cached, text=text, value=value)

    by_time = sorted(report.stages, key=lambda stage: -stage.seconds)[:_MOST]
    by_memory = sorted(report.stages, key=lambda stage: -stage.peak_bytes)[:_MOST]
    yield Bars(
        section="steps",
        title="Time of the longest steps",
        bars=tuple(bar(stage, stage.seconds, units.duration(stage.seconds)) for stage in by_time if stage.seconds),
    )
    yield Bars(
        section="steps",
        title="Peak memory of the largest steps",
        bars=tuple(
            bar(stage, stage.peak_bytes, units.size(stage.peak_bytes)) for stage in by_memory if stage.peak_bytes
        ),
    )
