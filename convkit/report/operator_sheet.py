"""Where the time goes, operator by operator, as sections of text."""

from __future__ import annotations

from collections.abc import Iterator

from convkit.graph.operator_times import OperatorTimes
from convkit.report import units
from convkit.report.document import Profile, Report
from convkit.report.section import Section, Table

PROFILED = "Each ran alone, after everything was timed. A profiler slows what it watches: shares tell more than times."
_LONGEST = 48
_LEAST_SHARE = 0.005


def operator_sections(report: Report) -> Iterator[Section]:
    """Lay out the slowest operators of each model, the share of each type, and what the optimizer made of the graph."""
    for number, profile in enumerate(report.profiles):
        times = profile.times
        yield Section(
            key=f"time-{number}",
            title=f"Where the time goes: {profile.label}",
            lines=(_types(times), *_fused(times)),
            table=Table(
                columns=("slowest operators", "type", "time", "share"),
                rows=tuple(
                    (short_name(each.name), each.operator, units.milliseconds(each.ms), percent(times.share(each.ms)))
                    for each in times.slowest
                ),
                align="llrr",
                shares=tuple(times.share(each.ms) for each in times.slowest),
            ),
            detail=number + 1 < len(report.profiles),
        )


def seen(profile: Profile) -> str:
    """Say how a profile came about."""
    times = profile.times
    return f"{profile.label}: the mean of {times.calls} call{'s' * (times.calls != 1)} under {times.seen_by}"


def percent(share: float) -> str:
    """Return a share in percent with one decimal."""
    return f"{100 * share:.1f} %"


def short_name(name: str) -> str:
    """Return the end of a name, where it is long: what tells one operator from another stands there."""
    return name if len(name) <= _LONGEST else "…" + name[1 - _LONGEST :]


def _types(times: OperatorTimes) -> str:
    shown = [each for each in times.types if times.share(each.ms) >= _LEAST_SHARE] or list(times.types)
    parts = [f"{each.operator} {percent(times.share(each.ms))} ({units.count(each.count)})" for each in shown]
    left = len(times.types) - len(shown)
    rest = [f"{left} other type{'s' * (left != 1)} less"] if left else []
    return "By type: " + ", ".join([*parts, *rest]) + "."


def _fused(times: OperatorTimes) -> Iterator[str]:
    """Say which operators the optimizer made, and which it made them of."""
    if not times.ran or not times.written:
        return
    before, after = sum(times.written.values()), sum(times.ran.values())
    changes = {
        name: times.ran.get(name, 0) - times.written.get(name, 0) for name in sorted({*times.written, *times.ran})
    }
    made = [f"{count} {name}" for name, count in _most_first(changes) if count > 0]
    gone = [f"{-count} {name}" for name, count in _most_first(changes) if count < 0]
    if before == after and not made:
        yield f"The optimizer fused nothing: all {units.count(after)} operators run as written."
        return
    what = f" Made: {', '.join(made)}." * bool(made) + f" Gone: {', '.join(gone)}." * bool(gone)
    yield f"The optimizer made {units.count(after)} operators of {units.count(before)}.{what}"


def _most_first(changes: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(changes.items(), key=lambda item: (-abs(item[1]), item[0]))
