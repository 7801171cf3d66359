"""Reports as JUnit's XML: a suite for each model, a case for each check and gate, and nothing that breaks the XML."""

from __future__ import annotations

from xml.etree import ElementTree

import msgspec
import pytest

from convkit.measure.gates import Gate, Verdict
from convkit.report.document import Failure, Report, Status
from convkit.report.junit import to_junit
from convkit.report.render import Format, render, render_all
from tests.report.samples import failed_report, faster_report, slower_report, with_verdict

CHILDREN = {
    "testsuites": ["testsuite"],
    "testsuite": ["properties", "testcase", "system-out"],
    "properties": ["property"],
    "testcase": ["failure", "error", "skipped", "system-out"],
}
"""What may stand below each element, in this order."""
NEEDED = {
    "testsuite": {"name", "timestamp", "tests", "failures", "errors", "skipped", "time"},
    "property": {"name", "value"},
    "testcase": {"classname", "name", "time"},
    "failure": {"type", "message"},
    "error": {"type", "message"},
    "skipped": {"message"},
}


def suites_of(*reports: Report) -> list[ElementTree.Element]:
    """Read what was written, and see that every element is one that JUnit knows, where it may stand."""
    root = ElementTree.fromstring(to_junit(reports))
    assert root.tag == "testsuites"
    for element in root.iter():
        order = [CHILDREN[element.tag].index(child.tag) for child in element]
        assert order == sorted(order)
        assert NEEDED.get(element.tag, set()) <= set(element.attrib)
    return list(root)


def results(suite: ElementTree.Element) -> dict[str, str]:
    """Return what came of each case: passed, failure, error or skipped."""
    return {
        case.get("name", ""): next((child.tag for child in case if child.tag != "system-out"), "passed")
        for case in suite.iter("testcase")
    }


def with_gates(*verdicts: Verdict) -> Report:
    names = ("max-latency", "min-speedup", "max-size", "max-error")
    gates = (Gate(name=n, asked=5, found=4.5, verdict=v) for n, v in zip(names, verdicts, strict=False))
    return with_verdict(faster_report(), gates=tuple(gates))


def test_every_check_and_gate_is_a_case_and_the_counts_are_those_of_the_cases() -> None:
    (suite,) = suites_of(
        with_gates(Verdict.PASSED, Verdict.FAILED, Verdict.INCONCLUSIVE, Verdict.DEFERRED),
    )

    assert results(suite) == {
        "convert to onnxruntime, precision int8": "passed",
        "numbers: as exported against torch 2.13.0": "passed",
        "numbers: ONNX INT8 against torch 2.13.0": "passed",
        "gate: max-latency at most 5.00 ms": "passed",
        "gate: min-speedup at least 5.00 ×": "failure",
        "gate: max-size at most 5 B": "error",
        "gate: max-error at most 5": "skipped",
    }
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "7", "failures": "1", "errors": "1", "skipped": "1"}
    assert suite.get("name") == "resnet50"


def test_a_missed_gate_says_what_was_asked_and_found() -> None:
    (suite,) = suites_of(with_gates(Verdict.FAILED))

    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.get("type") == "gates.failed"
    assert failure.get("message") == "--max-latency: asked for at most 5.00 ms, found 4.50 ms: failed"


def test_a_failed_check_is_one_failure_that_names_the_outputs() -> None:
    (suite,) = suites_of(failed_report())

    (failure,) = suite.findall("testcase/failure")
    assert "output 'probs'" in (failure.text or "")
    assert "4.21 dB" in (failure.text or "")
    assert results(suite)["convert to onnxruntime, precision int8"] == "passed"


@pytest.mark.parametrize(("exit_code", "kind"), [(4, "error"), (5, "failure")])
def test_a_run_that_failed_for_another_reason_is_red_by_itself(exit_code: int, kind: str) -> None:
    broken = Failure(code="graph.unsupported", stage="simplify", message="no counterpart of Foo", hint="ask for less")
    report = msgspec.structs.replace(
        faster_report(), status=Status.FAILED, exit_code=exit_code, error=broken, checks=(), gates=()
    )

    (suite,) = suites_of(report)

    (found,) = suite.findall(f"testcase/{kind}")
    assert (found.get("type"), found.get("message")) == ("graph.unsupported", "no counterpart of Foo")
    assert "hint: ask for less" in (found.text or "")


def test_the_figures_are_properties_in_full() -> None:
    (suite,) = suites_of(faster_report())

    values = {p.get("name"): p.get("value") for p in suite.iter("property")}
    assert values["final.file_bytes"] == "25885215"
    assert values["final.latency_p50_ms"] == "11.9"
    assert values["speedup over ONNX FP32"] == "3.22"
    assert values["sqnr_db of probs"] == "25.93"
    assert values["version"] == "3"


def test_what_got_worse_stands_in_the_suites_output() -> None:
    (suite,) = suites_of(slower_report())

    assert (suite.findtext("system-out") or "").startswith("SLOWER: ")


@pytest.mark.parametrize("name", ["<a> & \"b\" 'c'", "bell \x07 and \x00", "lone \ud800 surrogate", "￾", "]]>"])
def test_no_name_breaks_the_xml(name: str) -> None:
    report = msgspec.structs.replace(faster_report(), name=name)

    text = to_junit([report])

    assert len(suites_of(report)) == 1
    text.encode()


def test_several_models_are_several_suites_of_one_document() -> None:
    other = msgspec.structs.replace(slower_report(), name="other")

    text = render_all([faster_report(), other], Format.JUNIT)

    root = ElementTree.fromstring(text)
    assert [suite.get("name") for suite in root] == ["resnet50", "other"]
    assert root.get("tests") == str(len(list(root.iter("testcase"))))
    assert render_all([other], Format.JUNIT) == render(other, Format.JUNIT)
