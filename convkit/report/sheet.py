"""What a report says, laid out once for every renderer: sections of sentences and tables, all of it text."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

import msgspec

from convkit.measure.accuracy import TaskAccuracy
from convkit.report import gates, units
from convkit.report.client_sheet import client_sections
from convkit.report.document import Check, Engine, Report, Role, Simplification, Status, Subject
from convkit.report.engine_sheet import engine_sections
from convkit.report.how_sheet import how_sections, noted
from convkit.report.operator_sheet import operator_sections
from convkit.report.section import Section, Table, facts, plain, plain_section
from convkit.report.speed_sheet import machine_sections, speed_sections
from convkit.report.verdict import improved, moved
from convkit.spec.accuracy import TOP1

EMULATED = (
    "{label} is emulated: its engine does not run here, and these are the figures of its ONNX graph in ONNX Runtime on "
    "this CPU."
)


class Sheet(msgspec.Struct, frozen=True, kw_only=True):
    """A whole report as text, the bad news first."""

    failed: tuple[str, ...]
    """The error and its hint, where the command failed."""
    worse: tuple[str, ...]
    title: str
    subtitle: str
    better: tuple[str, ...]
    neither: tuple[str, ...]
    """What is neither better nor worse, and worth a sentence."""
    sections: tuple[Section, ...]


def sheet(report: Report) -> Sheet:
    """Lay a report out. Control characters in names and messages are written as escapes."""
    return Sheet(
        failed=tuple(_failed(report)),
        worse=tuple(map(plain, report.worse)),
        title=plain(_title(report)),
        subtitle=plain(_subtitle(report)),
        better=tuple(map(plain, improved(report))),
        neither=tuple(map(plain, _neither(report))),
        sections=tuple(plain_section(noted(section, report)) for section in _sections(report)),
    )


def _failed(report: Report) -> Iterator[str]:
    if report.error is not None:
        stage = f" in the stage {report.error.stage}" if report.error.stage else ""
        first, *rest = report.error.message.splitlines() or [""]
        yield plain(f"FAILED{stage}: {first}")
        yield from map(plain, rest)
        yield plain(f"Hint: {report.error.hint} ({report.error.code})")
    elif report.status is Status.FAILED:
        yield f"FAILED with exit status {report.exit_code}"


def _title(report: Report) -> str:
    name = report.name or (report.source.name if report.source else "conversion")
    return name if report.version is None else f"{name}, version {report.version}"


def _neither(report: Report) -> Iterator[str]:
    less_exact = moved(report)
    yield from less_exact
    if report.status is not Status.FAILED and not report.worse:
        measured = sum(subject.latency is not None for subject in report.subjects)
        nothing = "Nothing else" if less_exact else "Nothing"
        yield f"{nothing} that was measured got worse." if measured > 1 else "Speed was not measured."


def _sections(report: Report) -> Iterator[Section]:
    for make in (
        _warnings, _before_after, speed_sections, _gates, _choice, _accuracy, _search, _numbers, _result,
        client_sections, engine_sections, _calibration, operator_sections, _operators, _steps, _source,
        machine_sections, how_sections,
    ):  # fmt: skip
        yield from make(report)


def _subtitle(report: Report) -> str:
    status = "ok" if report.status is Status.OK else report.status.value.upper()
    return (
        f"{status} · target {report.target} · precision {report.precision} · "
        f"{report.created:%Y-%m-%d %H:%M} UTC · convkit {report.convkit}"
    )


def _result(report: Report) -> Iterator[Section]:
    verification = report.verification
    checked = None if verification is None else "passed" if verification.passed else "FAILED"
    table = facts(
        ("model", report.model),
        ("engine", report.engine.value),
        ("to build it", _to_build(report)),
        ("numerical check", checked),
        ("candidate", report.candidate),
        ("report", report.report),
        ("exit status", str(report.exit_code) if report.exit_code else None),
    )
    yield Section(key="result", title="Result", table=table)


def _to_build(report: Report) -> str | None:
    """Say what is still to be done for an engine that is pending."""
    if report.engine is not Engine.DEFERRED or report.repository is None:
        return None
    return f"convkit build {shlex.quote(report.repository)}, where the GPU is"


def _warnings(report: Report) -> Iterator[Section]:
    if report.warnings:
        lines = tuple(f"{warning.message} ({warning.code})" for warning in report.warnings)
        yield Section(key="warnings", title="Warnings", lines=lines)


def _figures(subject: Subject) -> dict[str, str]:
    """Return a subject's column of the before/after table: every row's name and cell."""
    latency, alone, throughput = subject.latency, subject.latency_alone, subject.throughput_per_s
    measured = latency and {
        "latency p50": units.milliseconds(latency.p50_ms),
        "p50, 95% from": units.milliseconds(latency.low_ms),
        "p50, 95% to": units.milliseconds(latency.high_ms),
        "latency p90": units.milliseconds(latency.p90_ms),
        "latency p99": units.milliseconds(latency.p99_ms),
        "latency mean": units.milliseconds(latency.mean_ms),
        "batch": units.count(latency.batch),
        "calls": units.count(latency.calls),
        "rounds": units.count(latency.rounds),
    }
    return {
        "file": units.size(subject.file_bytes),
        "parameters": units.count(subject.parameters),
        "weights": units.size(subject.initializer_bytes),
        "operators": units.count(subject.nodes),
        **_macs(subject),
        **(measured or {}),
        **({"p50 without copies": units.milliseconds(alone.p50_ms)} if alone else {}),
        "throughput": units.NOTHING if throughput is None else f"{units.significant(throughput)}/s",
    }


def _macs(subject: Subject) -> dict[str, str]:
    total = sum((subject.macs or {}).values())
    return {f"MACs in {name}": f"{100 * count / total:.1f} %" for name, count in (subject.macs or {}).items() if total}


def _before_after(report: Report) -> Iterator[Section]:
    if not report.subjects:
        return
    columns = [_figures(subject) for subject in report.subjects]
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [(name, *(column.get(name, units.NOTHING) for column in columns)) for name in names]
    rows = [row for row in rows if set(row[1:]) != {units.NOTHING}]
    emulated = tuple(EMULATED.format(label=subject.label) for subject in report.subjects if subject.emulated)
    counted = tuple(
        f"MACs (multiply-accumulates of one call) of {subject.label} are counted "
        + (f"in the graph that {subject.macs_seen_by} compiled." if subject.macs_seen_by else "in its ONNX graph.")
        for subject in report.subjects
        if subject.macs
    )
    headings = ("", *(_heading(subject) for subject in report.subjects))
    table = Table(columns=headings, rows=tuple(rows), align="l" + "r" * len(report.subjects))
    yield Section(key="before-after", title="Before and after", lines=(*emulated, *counted), table=table)


def _heading(subject: Subject) -> str:
    role = f"{subject.role.value}, emulated" if subject.emulated else subject.role.value
    return f"{subject.label} ({role})"


def _gates(report: Report) -> Iterator[Section]:
    if report.gates:
        rows = tuple((gate.name, gates.asked(gate), gates.found(gate), gate.verdict.value) for gate in report.gates)
        table = Table(columns=("gate", "asked", "found", "verdict"), rows=rows, align="lrrl")
        yield Section(key="gates", title="Gates", table=table)


def _accuracy(report: Report) -> Iterator[Section]:
    if (accuracy := report.accuracy) is None:
        return
    final = report.subject(Role.FINAL)
    label = final.label if final is not None else "final model"
    of = f" of the output '{accuracy.output}'" if accuracy.output else ""
    lines = (
        f"{accuracy.metric}{of} on {units.count(accuracy.samples)} samples.",
        *((EMULATED.format(label=label),) if accuracy.emulated and accuracy.final is not None else ()),
    )
    asked = None if accuracy.max_drop is None else f"at most {units.accuracy(accuracy.max_drop, accuracy.metric)}"
    table = facts(
        (report.source.framework if report.source else "source", units.accuracy(accuracy.source, accuracy.metric)),
        (label, None if accuracy.final is None else units.accuracy(accuracy.final, accuracy.metric)),
        ("lost", None if accuracy.drop is None else units.accuracy(accuracy.drop, accuracy.metric)),
        ("asked", asked),
        ("verdict", accuracy.verdict.value if accuracy.verdict else None),
    )
    yield Section(key="accuracy", title="Accuracy", lines=lines, table=table)
    if accuracy.tasks:
        yield _tasks(report, accuracy.tasks, label)


def _tasks(report: Report, tasks: Sequence[TaskAccuracy], label: str) -> Section:
    """Lay out the outputs that have labels of their own."""
    rows = tuple(
        (
            task.output,
            units.count(task.samples),
            *(units.accuracy(value, TOP1) for value in (task.source, task.final, task.drop)),
        )
        for task in tasks
    )
    source = report.source.framework if report.source else "source"
    table = Table(columns=("output", "samples", source, label, "lost"), rows=rows, align="lrrrr")
    lines = (f"{TOP1} of each on labels of its own; no gate looks at these.",)
    return Section(key="tasks", title="Accuracy of the other outputs", lines=lines, table=table)


def _choice(report: Report) -> Iterator[Section]:
    if report.choice:
        yield Section(key="choice", title="The precision that was chosen", lines=report.choice)


def _search(report: Report) -> Iterator[Section]:
    if not report.trials or report.accuracy is None:
        return
    metric = report.accuracy.metric
    rows = tuple(
        (
            trial.what,
            units.accuracy(trial.value, metric),
            units.accuracy(trial.drop, metric),
            units.decibel(trial.sqnr_db, max_abs=None),
            units.NOTHING if trial.latency_ms is None else units.milliseconds(trial.latency_ms),
            "passed" if trial.passed else "failed",
        )
        for trial in report.trials
    )
    table = Table(columns=("quantized", metric, "lost", "SQNR", "latency", "budget"), rows=rows, align="lrrrrl")
    lines = (f"{len(rows)} {'model was' if len(rows) == 1 else 'models were'} judged, in this order.",)
    yield Section(key="search", title="Search within the accuracy budget", lines=lines, table=table)


def _numbers(report: Report) -> Iterator[Section]:
    for number, check in enumerate(report.checks):
        cases = f"{check.cases} set{'s' * (check.cases != 1)} of inputs"
        verdict = "Passed" if check.passed else "FAILED"
        yield Section(
            key=f"numbers-{number}",
            title=f"Numbers: {check.subject} against {check.against}",
            lines=(f"{verdict} on {cases}; asked: {check.tolerance}.",),
            table=_differences(check),
            detail=number + 1 < len(report.checks) and check.passed,
        )


def _differences(check: Check) -> Table:
    rows = tuple(
        (
            output.name + ("" if output.passed else " (FAILED)"),
            units.difference(output.max_abs),
            units.difference(output.max_rel),
            units.cosine(output.cosine),
            units.decibel(output.sqnr_db, max_abs=output.max_abs),
        )
        for output in check.outputs
    )
    return Table(columns=("output", "max abs", "max rel", "cosine", "SQNR"), rows=rows, align="lrrrr")


def _operators(report: Report) -> Iterator[Section]:
    columns = _operator_columns(report)
    if not columns:
        return
    names = {name for _, counts in columns for name in counts}
    ordered = sorted(names, key=lambda name: (-max(counts.get(name, 0) for _, counts in columns), name))
    rows = [(name, *(units.count(counts.get(name, 0)) for _, counts in columns)) for name in ordered]
    rows.append(("total", *(units.count(sum(counts.values())) for _, counts in columns)))
    applied = report.simplification.applied if report.simplification else ()
    titles = ("operator", *(title for title, _ in columns))
    table = Table(columns=titles, rows=tuple(rows), align="l" + "r" * len(columns))
    yield Section(key="operators", title="Operators", lines=applied, table=table, detail=True)


def _operator_columns(report: Report) -> list[tuple[str, dict[str, int]]]:
    """Collect the graphs whose operators are known; neighbours that count the same share a column."""
    simplified = report.simplification or Simplification(before={}, after={})
    graphs = [("as exported", simplified.before), ("simplified", simplified.after)]
    graphs += [(subject.label, subject.operators or {}) for subject in report.subjects]
    columns: list[tuple[str, dict[str, int]]] = []
    for title, counts in graphs:
        if columns and columns[-1][1] == counts:
            title = f"{columns.pop()[0]}, {title}"
        if counts:
            columns.append((title, counts))
    return columns


def _calibration(report: Report) -> Iterator[Section]:
    if report.calibration is not None:
        table = facts(
            ("method", report.calibration.method),
            ("samples", units.count(report.calibration.samples)),
            ("data", report.calibration.source),
        )
        yield Section(key="calibration", title="Calibration", table=table)


def _steps(report: Report) -> Iterator[Section]:
    if not report.stages:
        return
    rows = [
        (
            (stage.title or stage.name) + (" (cached)" if stage.cached else ""),
            stage.name,
            units.duration(stage.seconds),
            units.size(stage.peak_bytes) if stage.peak_bytes else units.NOTHING,
        )
        for stage in report.stages
    ]
    ran = sum(stage.seconds for stage in report.stages if not stage.cached)
    peak = max(stage.peak_bytes for stage in report.stages)
    rows.append(("all that ran now", "", units.duration(ran), units.size(peak) if peak else units.NOTHING))
    table = Table(columns=("step", "stage", "time", "peak memory"), rows=tuple(rows), align="llrr")
    yield Section(key="steps", title="Steps", table=table, detail=True)


def _source(report: Report) -> Iterator[Section]:
    if (source := report.source) is not None:
        table = facts(
            ("name", source.name),
            ("kind", source.kind),
            ("framework", source.framework),
            ("exporter", source.exporter),
            ("parameters", units.count(source.parameters)),
            ("digest", source.digest),
        )
        yield Section(key="source", title="Source", table=table, detail=True)
