"""Reports as JUnit's XML, which CI systems show: a suite for each model, a case for each check and gate.

A case that failed is a failure; one that could not be judged (an inconclusive gate, a run that broke) is an error; one
that `convkit build` will judge is skipped. The figures are the suite's properties.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC
from xml.etree import ElementTree

from convkit.errors import ExitStatus
from convkit.measure.gates import Gate, Verdict
from convkit.report import units
from convkit.report.document import Check, Report, Status
from convkit.report.gates import asked, sentence
from convkit.report.section import plain, printable

_COUNTED = {"failures": "failure", "errors": "error", "skipped": "skipped"}


def to_junit(reports: Sequence[Report]) -> str:
    """Write reports as one XML document. Characters that XML does not have are written as escapes."""
    root = ElementTree.Element("testsuites", name="convkit")
    for report in reports:
        root.append(_suite(report))
    _count(root)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(report: Report) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name=_name(report))
    created = report.created.astimezone(UTC)
    suite.set("timestamp", f"{created:%Y-%m-%dT%H:%M:%S}")
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in _figures(report):
        ElementTree.SubElement(properties, "property", name=plain(name), value=plain(value))
    cases = [
        *(_check_case(report, check) for check in report.checks),
        *(_gate_case(report, gate) for gate in report.gates),
    ]
    red = any(case.find(kind) is not None for case in cases for kind in ("failure", "error"))
    suite.extend([_conversion_case(report, explained=red), *cases])
    _count(suite)
    if report.worse:
        ElementTree.SubElement(suite, "system-out").text = _lines(report.worse)
    return suite


def _name(report: Report) -> str:
    return plain(report.name or (report.source.name if report.source else "conversion"))


def _conversion_case(report: Report, *, explained: bool) -> ElementTree.Element:
    """Return the case of the run as a whole; `explained`: another case says already why it failed."""
    seconds = sum(stage.seconds for stage in report.stages if not stage.cached)
    case = _case(report, f"convert to {report.target}, precision {report.precision}", seconds)
    if report.status is Status.FAILED and not explained:
        kind = "failure" if report.exit_code == ExitStatus.CHECK_FAILED else "error"
        if report.error is None:
            _say(case, kind, "convkit.failed", f"exit status {report.exit_code}")
        else:
            lines = (*report.error.message.splitlines(), f"hint: {report.error.hint}")
            _say(case, kind, report.error.code, *lines)
    return case


def _check_case(report: Report, check: Check) -> ElementTree.Element:
    case = _case(report, f"numbers: {check.subject} against {check.against}")
    if not check.passed:
        lines = [
            f"output '{output.name}': largest difference {units.difference(output.max_abs)}, "
            f"SQNR {units.decibel(output.sqnr_db, max_abs=output.max_abs)}"
            for output in check.outputs
            if not output.passed
        ]
        _say(case, "failure", "check.outputs-differ", f"asked for {check.tolerance}", *lines)
    return case


def _gate_case(report: Report, gate: Gate) -> ElementTree.Element:
    case = _case(report, f"gate: {gate.name} {asked(gate)}")
    match gate.verdict:
        case Verdict.FAILED:
            _say(case, "failure", "gates.failed", sentence(gate))
        case Verdict.INCONCLUSIVE:
            _say(case, "error", "gates.inconclusive", sentence(gate))
        case Verdict.DEFERRED:
            ElementTree.SubElement(case, "skipped", message=plain(sentence(gate)))
        case Verdict.PASSED:
            ElementTree.SubElement(case, "system-out").text = plain(sentence(gate))
    return case


def _case(report: Report, name: str, seconds: float = 0.0) -> ElementTree.Element:
    return ElementTree.Element(
        "testcase", classname=f"convkit.{_name(report)}", name=plain(name), time=f"{seconds:.3f}"
    )


def _say(case: ElementTree.Element, kind: str, code: str, *lines: str) -> None:
    ElementTree.SubElement(case, kind, type=code, message=plain(lines[0])).text = _lines(lines)


def _lines(lines: Sequence[str]) -> str:
    return "\n".join(map(printable, lines))


def _count(element: ElementTree.Element) -> None:
    """Count the cases below a suite, or all suites."""
    cases = list(element.iter("testcase"))
    element.set("tests", str(len(cases)))
    for attribute, kind in _COUNTED.items():
        element.set(attribute, str(sum(case.find(kind) is not None for case in cases)))
    element.set("time", f"{sum(float(case.get('time', '0')) for case in cases):.3f}")


def _figures(report: Report) -> Iterator[tuple[str, str]]:
    """Yield the suite's properties: what was converted, and every figure in full."""
    yield "convkit", report.convkit
    yield "target", report.target
    yield "precision", report.precision
    yield "engine", report.engine.value
    if report.version is not None:
        yield "version", str(report.version)
    if report.source is not None:
        yield "source", report.source.digest
        yield "framework", report.source.framework
    if report.machine is not None:
        yield "cpu", report.machine.cpu
        yield "cores", str(report.machine.cores)
    for subject in report.subjects:
        role = subject.role.value
        yield f"{role}.label", subject.label
        if subject.file_bytes is not None:
            yield f"{role}.file_bytes", str(subject.file_bytes)
        if subject.nodes is not None:
            yield f"{role}.operators", str(subject.nodes)
        if subject.latency is not None:
            yield f"{role}.latency_p50_ms", repr(subject.latency.p50_ms)
            yield f"{role}.latency_low_ms", repr(subject.latency.low_ms)
            yield f"{role}.latency_high_ms", repr(subject.latency.high_ms)
            yield f"{role}.latency_p99_ms", repr(subject.latency.p99_ms)
    for comparison in report.comparisons:
        yield f"speedup over {comparison.before}", repr(comparison.speedup)
    for output in report.verification.outputs if report.verification else ():
        yield f"max_abs of {output.name}", repr(output.max_abs)
        yield f"sqnr_db of {output.name}", repr(output.sqnr_db)
