"""report.json: the contract's object at its head, and nothing lost on the way through a file."""

from __future__ import annotations

import math
import subprocess
import sys

import msgspec
import pytest

from convkit.errors import InputError
from convkit.report.document import OutputDifference, Report, Result, Status, read_report, to_json
from tests.report.samples import failed_report, faster_report, slower_report

CONTRACT = [
    "schema", "status", "exit_code", "repository", "model", "name", "version", "engine", "report", "candidate",
    "stages", "verification", "gates", "accuracy", "warnings", "error",
]  # fmt: skip


@pytest.mark.parametrize("make", [faster_report, slower_report, failed_report])
def test_a_report_comes_back_from_its_json_as_it_was(make) -> None:
    report = make()

    assert read_report(to_json(report).encode(), where="report.json") == report


def test_a_result_has_the_fields_of_the_contract_and_no_others() -> None:
    result = msgspec.json.decode(to_json(faster_report().head()))

    assert list(result) == CONTRACT
    assert result["schema"] == "convkit.result/1"


def test_a_report_begins_with_the_fields_of_its_result() -> None:
    report = faster_report()
    whole, head = (msgspec.json.decode(to_json(document)) for document in (report, report.head()))

    assert list(whole)[: len(CONTRACT)] == CONTRACT
    assert whole["schema"] == "convkit.report/1"
    assert {name: whole[name] for name in CONTRACT[1:]} == {name: head[name] for name in CONTRACT[1:]}


def test_the_parts_of_a_result_have_the_fields_of_the_contract() -> None:
    result = msgspec.json.decode(to_json(failed_report().head()))
    gate = msgspec.json.decode(to_json(faster_report().head()))["gates"][0]

    assert {"name", "seconds", "peak_bytes", "cached"} <= set(result["stages"][0])
    assert set(result["verification"]) == {"passed", "outputs"}
    assert {"name", "max_abs", "max_rel", "cosine", "sqnr_db"} <= set(result["verification"]["outputs"][0])
    assert set(gate) == {"name", "asked", "found", "verdict"}
    assert set(result["warnings"][0]) == {"code", "message"}
    assert set(result["error"]) == {"code", "stage", "message", "hint"}


def test_a_result_says_by_itself_what_is_not_there() -> None:
    result = msgspec.json.decode(to_json(Result(status=Status.FAILED, exit_code=2)))

    assert list(result) == CONTRACT
    assert result["error"] is None
    assert result["verification"] is None
    assert result["engine"] == "none"


def test_a_figure_that_is_not_finite_becomes_null_and_comes_back() -> None:
    output = OutputDifference(
        name="probs", max_abs=math.nan, max_rel=math.inf, cosine=math.nan, sqnr_db=-math.inf, passed=False
    )

    assert (output.max_abs, output.max_rel, output.cosine, output.sqnr_db) == (None, None, None, None)
    assert msgspec.json.decode(msgspec.json.encode(output), type=OutputDifference) == output


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "truncated"),
        (to_json(faster_report().head()), "convkit.result/1"),
        (to_json(faster_report()).replace('"exit_code": 0', '"exit_code": "none"'), "exit_code"),
    ],
    ids=["cut off", "a result", "a wrong type"],
)
def test_a_file_that_is_no_report_is_refused_with_its_name_and_the_reason(text: str, reason: str) -> None:
    with pytest.raises(InputError) as refusal:
        read_report(text.encode(), where="old/report.json")

    assert "old/report.json" in refusal.value.message
    assert reason in refusal.value.message
    assert "convkit.report/1" in refusal.value.hint


def test_a_field_of_a_later_convkit_does_not_hinder_reading() -> None:
    text = to_json(faster_report()).replace('"exit_code": 0', '"exit_code": 0, "of_tomorrow": [1]')

    assert read_report(text.encode(), where="report.json") == faster_report()


def test_the_schema_of_a_report_can_be_written_down() -> None:
    schema = msgspec.json.schema(Report)

    assert schema["$defs"]["Report"]["properties"]["schema"] == {"enum": ["convkit.report/1"]}


def test_the_document_imports_no_renderer_and_no_numpy() -> None:
    modules = "convkit.report.document, convkit.report.statistics, convkit.report.render, convkit.report.verdict"
    program = f"import sys, {modules}; print([n for n in ('numpy', 'rich', 'jinja2') if n in sys.modules])"

    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "[]"
