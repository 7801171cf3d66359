"""How fast it is, where that was measured and how, as sections of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from convkit.measure.conditions import Conditions
from convkit.report import units
from convkit.report.document import Report
from convkit.report.latency import Comparison, Finding
from convkit.report.section import Section, Table, facts
from convkit.report.verdict import busy, finding, speedup


def speed_sections(report: Report) -> Iterator[Section]:
    """Lay out the comparisons, with the model against itself as the last of them."""
    if report.comparisons:
        comparisons = (*report.comparisons, *((report.self_check,) if report.self_check else ()))
        rows = tuple(
            (
                f"{comparison.after} against {comparison.before}",
                speedup(comparison),
                f"{units.ratio(comparison.low)} to {units.ratio(comparison.high)}",
                finding(comparison),
            )
            for comparison in comparisons
        )
        table = Table(columns=("", "speed", "95% interval", "finding"), rows=rows, align="lrrl")
        yield Section(key="speed", title="Speed", lines=tuple(_doubtful(comparisons)), table=table)


def _doubtful(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Say why comparisons are inconclusive, where that is because others had the processors."""
    unsure = [comparison for comparison in comparisons if comparison.finding is Finding.INCONCLUSIVE]
    if said := busy(*(share for each in unsure for share in (each.before_waited, each.after_waited))):
        yield (
            f"{said[0].upper()}{said[1:]}, which may hide a difference or feign one; measure with --measure full while "
            "nothing else runs."
        )


def machine_sections(report: Report) -> Iterator[Section]:
    """Lay out where it was measured, and what the machine did meanwhile."""
    machine = report.machine
    libraries = ", ".join(f"{name} {version}" for name, version in report.libraries.items())
    if machine is None:
        table = facts(("libraries", libraries))
    else:
        table = facts(
            ("processor", machine.cpu),
            ("cores", units.count(machine.cores)),
            ("memory", units.size(machine.memory_bytes)),
            ("system", machine.os),
            ("Python", machine.python),
            *_meanwhile(report.conditions),
            ("waited for a processor", _waited(report)),
            ("libraries", libraries),
        )
    if table.rows:
        yield Section(key="machine", title="Machine and libraries", table=table, detail=True)


def _waited(report: Report) -> str | None:
    shares = [each.latency.waited for each in report.subjects if each.latency and each.latency.waited is not None]
    return f"up to {100 * max(shares):.1f} % of the time of timed calls" if shares else None


def _meanwhile(conditions: Conditions | None) -> Iterator[tuple[str, str | None]]:
    if conditions is None:
        return
    if conditions.load_before is not None and conditions.load_after is not None:
        yield "load average", f"{conditions.load_before:.2f} before, {conditions.load_after:.2f} after measuring"
    if conditions.mhz_low is not None and conditions.mhz_high is not None:
        low, high = (f"{clock:,.0f}" for clock in (conditions.mhz_low, conditions.mhz_high))
        yield "clock", f"{low} MHz" if low == high else f"{low} to {high} MHz"
    yield "governor", conditions.governor
    if conditions.stolen is not None:
        yield "taken by the host", f"{100 * conditions.stolen:.2g} % of the time"
