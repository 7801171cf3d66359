"""What changed from one release of a model to the next, by their reports.

The two were measured at different times, so a difference in speed is told with more care than within one report: only
on the same machine, only where the 95 % intervals of the medians do not overlap, each made as wide as waiting for a
processor makes it, and only above 3 %.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

import msgspec

from convkit.measure.compare import OutputDifference
from convkit.measure.waiting import doubt
from convkit.report import units
from convkit.report.document import Engine, Machine, Report, Role, Subject
from convkit.report.latency import Latency
from convkit.report.verdict import busy

SIZE_FROM = 0.01
"""A share by which a file must have grown or shrunk to be called larger or smaller; less is a header's worth."""
LATENCY_FROM = 0.03
"""A share by which medians of two runs must lie apart: runs an hour apart differ by that much on an idle machine."""
SQNR_FROM_DB = 3.0
"""How much an output's signal-to-noise ratio must move: a factor of 1.4 in its error."""
EXACT_FROM_DB = 80.0
"""Above that, differences are those of rounding in FP32."""


class Change(Enum):
    """What became of a figure."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "no difference"
    DIFFERENT = "different"
    """Neither better nor worse."""
    NOT_COMPARABLE = "not comparable"


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of both releases."""

    name: str
    """``size``, ``operators``, ``latency``, or ``numbers: OUTPUT``."""
    unit: str
    """bytes, operators, ms or dB."""
    before: float | None
    after: float | None
    """None where it is not known, or, in dB, where there is no difference from the source framework at all."""
    change: Change
    why: str = ""
    """What the verdict rests on, where the figures do not say it themselves."""


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """Which report stands for a release."""

    report: str | None
    version: int | None
    target: str
    precision: str
    convkit: str
    created: str
    """ISO 8601, UTC."""


class ModelChanges(msgspec.Struct, frozen=True, kw_only=True):
    """One model in both releases."""

    name: str
    before: Release
    after: Release
    figures: tuple[Figure, ...]

    @property
    def worse(self) -> tuple[Figure, ...]:
        """Return what got worse."""
        return tuple(figure for figure in self.figures if figure.change is Change.WORSE)


def compare_reports(name: str, before: Report, after: Report) -> ModelChanges:
    """Compare two reports of one model, figure by figure."""
    return ModelChanges(
        name=name,
        before=_release(before),
        after=_release(after),
        figures=(_size(before, after), _operators(before, after), *_numbers(before, after), _latency(before, after)),
    )


def _release(report: Report) -> Release:
    return Release(
        report=report.report,
        version=report.version,
        target=report.target,
        precision=report.precision,
        convkit=report.convkit,
        created=report.created.isoformat(),
    )


def _size(before: Report, after: Report) -> Figure:
    old, new = (_final(report).file_bytes for report in (before, after))
    change, why = Change.NOT_COMPARABLE, ""
    if (before.engine is Engine.DEFERRED) != (after.engine is Engine.DEFERRED):
        why = "one engine is built, the other still to be built"
    elif old is None or new is None:
        why = "not known on both sides"
    else:
        change = _ranked(old, new, share=SIZE_FROM)
    return Figure(name="size", unit="bytes", before=old, after=new, change=change, why=why)


def _operators(before: Report, after: Report) -> Figure:
    old, new = (_final(report) for report in (before, after))
    figure = Figure(
        name="operators", unit="operators", before=old.nodes, after=new.nodes, change=Change.NOT_COMPARABLE, why=""
    )
    if old.nodes is None or new.nodes is None:
        return msgspec.structs.replace(figure, why="not known on both sides")
    moved = _moved(old.operators or {}, new.operators or {})
    if (before.target, before.precision) != (after.target, after.precision):
        change = Change.DIFFERENT if moved or old.nodes != new.nodes else Change.SAME
        return msgspec.structs.replace(figure, change=change, why="another target or precision counts otherwise")
    change = _ranked(old.nodes, new.nodes, share=0.0)
    if change is Change.SAME and moved:
        change = Change.DIFFERENT
    return msgspec.structs.replace(figure, change=change, why=moved)


def _moved(old: dict[str, int], new: dict[str, int]) -> str:
    names = sorted({*old, *new})
    return ", ".join(
        f"{name} {old.get(name, 0)} → {new.get(name, 0)}" for name in names if old.get(name, 0) != new.get(name, 0)
    )


def _numbers(before: Report, after: Report) -> Iterator[Figure]:
    """Compare how far each output is from its own source framework's."""
    old, new = (_outputs(report) for report in (before, after))
    for name in dict.fromkeys((*old, *new)):
        yield _number(name, old.get(name), new.get(name))


def _number(name: str, old: OutputDifference | None, new: OutputDifference | None) -> Figure:
    change, why = Change.NOT_COMPARABLE, ""
    if old is None or new is None:
        why = "only the later release has this output" if old is None else "the later release does not have this output"
    elif old.passed != new.passed:
        change = Change.WORSE if old.passed else Change.BETTER
        why = "it held its tolerance before" if old.passed else "it missed its tolerance before"
    else:
        change, why = _noise(_ratio(old), _ratio(new))
    return Figure(
        name=f"numbers: {name}",
        unit="dB",
        before=old.sqnr_db if old else None,
        after=new.sqnr_db if new else None,
        change=change,
        why=why,
    )


def _noise(old: float, new: float) -> tuple[Change, str]:
    """Judge two signal-to-noise ratios; infinity stands for no noise, minus infinity for noise that is not finite."""
    if min(old, new) >= EXACT_FROM_DB:
        return Change.SAME, "exact, or differences of rounding only"
    if old == new or abs(new - old) <= SQNR_FROM_DB:
        return Change.SAME, ""
    return (Change.BETTER if new > old else Change.WORSE), ""


def _ratio(output: OutputDifference) -> float:
    if output.max_abs == 0:
        return float("inf")
    return float("-inf") if output.sqnr_db is None else output.sqnr_db


def _latency(before: Report, after: Report) -> Figure:
    old, new = (_final(report) for report in (before, after))
    figure = Figure(
        name="latency",
        unit="ms",
        before=old.latency.p50_ms if old.latency else None,
        after=new.latency.p50_ms if new.latency else None,
        change=Change.NOT_COMPARABLE,
    )
    if old.latency is None or new.latency is None:
        return msgspec.structs.replace(figure, why="not measured on both sides")
    if old.latency.batch != new.latency.batch:
        why = f"batches of {old.latency.batch} and of {new.latency.batch}"
        return msgspec.structs.replace(figure, why=why)
    if other := _other_machine(before.machine, after.machine):
        return msgspec.structs.replace(figure, why=f"measured on different machines: {other}")
    apart = _apart(old.latency, new.latency)
    change = _ranked(old.latency.p50_ms, new.latency.p50_ms, share=LATENCY_FROM) if apart else Change.SAME
    why = "measured at different times, not in alternation: less sure than within one report"
    if change is Change.SAME:
        why += f"; intervals {'within 3 %' if apart else 'overlap'}"
    if said := busy(old.latency.waited, new.latency.waited):
        why += f"; {said}"
    return msgspec.structs.replace(figure, change=change, why=why)


def _apart(one: Latency, other: Latency) -> bool:
    """Tell whether the intervals of two latencies lie apart, each as low as it may be had no call waited."""
    first, second = (latency.low_ms * (1 - doubt(latency.waited)) for latency in (one, other))
    return one.high_ms < second or other.high_ms < first


def _other_machine(one: Machine | None, other: Machine | None) -> str:
    """Say in what two machines differ; nothing where they are alike."""
    if one is None or other is None:
        return "it is not known on which"
    differing = [
        f"{name} {getattr(one, name)} and {getattr(other, name)}"
        for name in ("cpu", "cores", "os")
        if getattr(one, name) != getattr(other, name)
    ]
    if one.memory_bytes != other.memory_bytes:
        differing.append(f"memory {units.size(one.memory_bytes)} and {units.size(other.memory_bytes)}")
    return ", ".join(differing)


def _ranked(old: float, new: float, *, share: float) -> Change:
    """Tell whether less became of a figure of which less is better, by more than a share."""
    if new > old * (1 + share):
        return Change.WORSE
    return Change.BETTER if old > new * (1 + share) else Change.SAME


def _final(report: Report) -> Subject:
    return report.subject(Role.FINAL) or Subject(label="", role=Role.FINAL)


def _outputs(report: Report) -> dict[str, OutputDifference]:
    """Return the outputs of the last model that was checked: the final one, unless an earlier one failed."""
    return {output.name: output for output in report.checks[-1].outputs} if report.checks else {}
