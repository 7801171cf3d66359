"""What is drawn where drawings can be: bars on one scale."""

from __future__ import annotations

import msgspec

from convkit.report import units
from convkit.report.document import Report, Role
from convkit.report.section import plain


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """One bar of a group, in the group's unit."""

    label: str
    role: Role
    text: str
    value: float
    low: float | None = None
    high: float | None = None


class Bars(msgspec.Struct, frozen=True, kw_only=True):
    """Bars on one scale."""

    title: str
    bars: tuple[Bar, ...]

    def share(self, value: float) -> float:
        """Return a value's place on the scale, in percent of its full length."""
        return 100 * value / max(bar.high or bar.value for bar in self.bars)


def bars(report: Report) -> tuple[Bars, ...]:
    """Return what is drawn where drawings can be: latency with its interval, and the size of the files."""
    latency = tuple(
        Bar(
            label=plain(subject.label),
            role=subject.role,
            text=units.milliseconds(subject.latency.p50_ms),
            value=subject.latency.p50_ms,
            low=subject.latency.low_ms,
            high=subject.latency.high_ms,
        )
        for subject in report.subjects
        if subject.latency is not None
    )
    sizes = tuple(
        Bar(
            label=plain(subject.label),
            role=subject.role,
            text=units.size(subject.file_bytes),
            value=subject.file_bytes,
        )
        for subject in report.subjects
        if subject.file_bytes
    )
    drawn = (
        Bars(title="Latency p50, with its 95% interval", bars=latency),
        Bars(title="File size", bars=sizes),
    )
    return tuple(group for group in drawn if len(group.bars) > 1)
