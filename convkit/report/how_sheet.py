"""How every figure came about, and the command that measures it again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import PurePath

import msgspec

from convkit.report.document import Report, Status
from convkit.report.operator_sheet import PROFILED, seen
from convkit.report.section import Section, facts

_NOTES = {
    "before-after": "Files: bytes on the disk, external data included. Weights: bytes of the graph's initializers. "
    "Operators: nodes of the graph as it is written, those of inner graphs too.",
    "gates": "Each figure is the one of its table in this report; a figure with an interval passes where the whole "
    "interval does.",
    "search": "Each model answered the evaluation data; SQNR on calibration data against the FP32 graph's outputs; "
    "latency is the median of a moment, to choose by and not to publish.",
    "operators": "Nodes of the graph as it is written, those of inner graphs too, by type.",
    "steps": "Time by the wall clock, of the run that made the result; memory is the largest resident set of the "
    "step's process. A cached step cost this when it ran.",
    "layers": "Layers as the runtime names them; multiply-accumulates of the ONNX nodes that run in each.",
}
_SPEED = (
    "Speeds are ratios of medians, round by round, measured in alternation; Hodges-Lehmann estimate with its exact "
    "signed-rank interval. The last line compares a model with itself: what it shows is the machine's doing."
)
_LATENCY = (
    "p50 is the median of all calls, with the 95% bootstrap interval whose unit is the round; throughput is that of "
    "one caller, call after call."
)
_NUMBERS = (
    "Every output a is held against the source framework's b on the same inputs, the worst case of each: largest "
    "|a - b|, largest |a - b| / |b|, cosine of both as vectors, and SQNR, 10 log10 of sum b² over sum (a - b)²."
)


def noted(section: Section, report: Report) -> Section:
    """Return a section with the note on how its figures came about."""
    return msgspec.structs.replace(section, note=section.note or _note(section.key, report))


def how_sections(report: Report) -> Iterator[Section]:
    """Lay out how the figures came about, and the commands that measure again."""
    if not report.measured_how and not report.rerun:
        return
    yield Section(
        key="how",
        title="How it was measured",
        lines=report.measured_how,
        table=facts(
            ("latency", _LATENCY if any(subject.latency for subject in report.subjects) else None),
            ("speed", _SPEED if report.comparisons else None),
            ("size", _NOTES["before-after"] if report.subjects else None),
            ("numbers", _NUMBERS if report.checks else None),
            ("accuracy", _accuracy(report)),
            ("operators' time", _profiled(report)),
            ("steps", _NOTES["steps"] if report.stages else None),
        ),
    )
    if report.rerun:
        yield Section(key="again", title="To measure it again", lines=("This measures again:",), command=report.rerun)
    if report.report and report.status is not Status.FAILED:
        place = shlex.quote(str(_published(PurePath(report.report))))
        yield Section(
            key="holds",
            title="Whether the figures still hold",
            lines=("Size, numbers and latency of what was published are measured again, and held against these, by:",),
            command=f"convkit report {place} --remeasure",
        )


def _published(report: PurePath) -> PurePath:
    """Return the folder of the version that a report lies in; the report itself where it lies elsewhere."""
    return report.parent.parent if report.parent.name == "convkit" else report


def _note(key: str, report: Report) -> str:
    kind, _, number = key.rpartition("-")
    if kind == "numbers":
        return _NUMBERS
    if kind == "time" and re.fullmatch(r"\d+", number):
        return f"{seen(report.profiles[int(number)])}. {PROFILED}"
    match key:
        case "speed":
            return _SPEED
        case "accuracy":
            return _accuracy(report) or ""
        case "before-after" if any(subject.latency for subject in report.subjects):
            return f"{_NOTES[key]} {_LATENCY}"
        case _:
            return _NOTES.get(key, "")


def _profiled(report: Report) -> str | None:
    if not report.profiles:
        return None
    return "; ".join(map(seen, report.profiles)) + f". {PROFILED}"


def _accuracy(report: Report) -> str | None:
    if report.accuracy is None:
        return None
    return (
        f"{report.accuracy.metric}: the source framework's model and the final one answered the same evaluation data, "
        "row by row."
    )
