"""Gates through the real command: judged before publication, told in report and JSON, exit status 5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from e2e.command import Command, Outcome, hold_to_head
from e2e.digits import CNN

from convkit.report.document import read_report

MODEL = (str(CNN.folder), "--trust", "--json")
ABSURDLY_SLOW_MS, ABSURDLY_FAST_MS = "1e6", "1e-9"
"""Limits that no machine's speed decides on."""


def gates_of(outcome: Outcome) -> dict[str, dict[str, Any]]:
    hold_to_head(outcome.result)
    return {gate["name"]: gate for gate in outcome.result["gates"]}


def test_gates_that_hold_are_in_json_and_report_and_let_the_version_pass(convkit: Command, repository: Path) -> None:
    asked = ("--max-size", "1MB", "--max-error", "0.01", "--max-latency", ABSURDLY_SLOW_MS, "--min-speedup", "1e-6")
    outcome = convkit("convert", *MODEL, "-o", repository, *asked)

    assert outcome.exit_status == 0, outcome.stderr
    gates = gates_of(outcome)
    assert {name: gate["verdict"] for name, gate in gates.items()} == dict.fromkeys(
        ("max-latency", "min-speedup", "max-size", "max-error"), "passed"
    )
    published = repository / "digits_cnn" / "1" / "model.onnx"
    assert (gates["max-size"]["asked"], gates["max-size"]["found"]) == (10**6, published.stat().st_size)
    assert gates["max-latency"]["found"] > 0
    records = published.parent / "convkit"
    report = read_report((records / "report.json").read_bytes(), where="report.json")
    assert {gate.name for gate in report.gates} == set(gates)
    for page in ("report.md", "report.html"):
        assert "at most 977 KiB (1,000,000 B)" in (records / page).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("option", "asked", "shown"),
    [
        ("--max-size", "10KiB", "at most 10.0 KiB (10,240 B)"),
        ("--max-latency", ABSURDLY_FAST_MS, "at most 0.00000000100 ms"),
        ("--min-speedup", "1e9", "at least 1,000,000,000 ×"),
    ],
)
def test_a_missed_gate_publishes_nothing_and_keeps_the_candidate(
    convkit: Command, repository: Path, option: str, asked: str, shown: str
) -> None:
    outcome = convkit("convert", *MODEL, "-o", repository, option, asked)

    assert outcome.exit_status == 5
    gate = gates_of(outcome)[option.removeprefix("--")]
    assert gate["verdict"] == "failed"
    assert gate["found"] is not None
    error = outcome.result["error"]
    assert error["code"] == "gates.failed"
    assert f"{option}: asked for {shown}, found " in error["message"]
    assert f"{option}: asked for {shown}, found " in outcome.stderr
    assert Path(outcome.result["candidate"]).is_file()
    assert not repository.exists()


def test_a_missed_gate_leaves_the_version_before_as_it_was(convkit: Command, repository: Path) -> None:
    assert convkit("convert", *MODEL, "-o", repository, "--measure", "none").exit_status == 0
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}

    outcome = convkit(
        "convert", *MODEL, "-o", repository, "--measure", "none", "--quantize", "fp16", "--max-size", "1KB"
    )

    assert outcome.exit_status == 5
    assert {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()} == before


def test_a_missed_error_gate_is_a_line_of_its_own(convkit: Command, repository: Path) -> None:
    outcome = convkit("convert", *MODEL, "-o", repository, "--measure", "none", "--max-error", "1e-12")

    assert outcome.exit_status == 5
    gate = gates_of(outcome)["max-error"]
    assert (gate["asked"], gate["verdict"]) == (1e-12, "failed")
    assert gate["found"] > 1e-12
    assert Path(outcome.result["candidate"]).is_file()
    assert not repository.exists()


def test_gates_are_judged_again_where_nothing_changed(convkit: Command, repository: Path) -> None:
    first = convkit("convert", *MODEL, "-o", repository, "--measure", "none")
    assert first.result["status"] == "ok", first.stderr

    kept = convkit("convert", *MODEL, "-o", repository, "--measure", "none", "--max-size", "1MB")
    missed = convkit("convert", *MODEL, "-o", repository, "--measure", "none", "--max-size", "1KB")

    assert kept.result["status"] == "unchanged"
    assert gates_of(kept)["max-size"]["verdict"] == "passed"
    assert missed.exit_status == 5


def test_a_missed_time_is_measured_anew_and_a_kept_one_is_remembered(convkit: Command, repository: Path) -> None:
    def measured_now(limit: str) -> int:
        outcome = convkit("convert", *MODEL, "-o", repository, "--max-latency", limit)
        return sum(stage["name"] == "measure" and not stage["cached"] for stage in outcome.result["stages"])

    measured_now(ABSURDLY_SLOW_MS)

    assert measured_now(ABSURDLY_SLOW_MS) == 0
    assert measured_now(ABSURDLY_FAST_MS) == 1


@pytest.mark.parametrize(("option", "value"), [("--max-latency", "5"), ("--min-speedup", "2")])
def test_a_gate_on_time_without_measuring_is_a_usage_error(
    convkit: Command, repository: Path, option: str, value: str
) -> None:
    outcome = convkit("convert", *MODEL, "-o", repository, "--measure", "none", option, value)

    assert outcome.exit_status == 2
    assert outcome.result["error"]["code"] == "gates.not-measured"
    assert option in outcome.result["error"]["message"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--to", "tensorrt", "--min-speedup", "2"),
        ("--to", "tensorrt-rtx", "--max-latency", "2"),
        ("--min-speedup", "2", "--set", "gates.speedup_over=baseline"),
    ],
)
def test_a_gate_that_nothing_could_be_held_against_is_refused_before_anything_runs(
    convkit: Command, repository: Path, arguments: tuple[str, ...]
) -> None:
    outcome = convkit("convert", *MODEL, "-o", repository, *arguments)

    assert outcome.exit_status == 2
    assert outcome.result["error"]["code"] == "gates.impossible"
    assert outcome.result["stages"] == []


def test_a_size_that_is_none_names_the_option_or_the_recipes_line(convkit: Command, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[gates]\nmax_size = "ten"\n', encoding="utf-8")

    by_option = convkit("convert", *MODEL, "--max-size", "ten")
    by_recipe = convkit("convert", *MODEL, "--recipe", recipe)

    assert (by_option.exit_status, by_recipe.exit_status) == (2, 3)
    assert by_option.result["error"]["message"] == "--max-size: 'ten' is no size"
    assert "recipe.toml, line 2: gates.max_size" in by_recipe.result["error"]["message"]


def test_a_recipe_holds_gates_and_the_command_line_wins(convkit: Command, repository: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[gates]\nmax_size = 1000\n", encoding="utf-8")
    arguments = (*MODEL, "-o", repository, "--measure", "none", "--recipe", recipe)

    by_recipe = convkit("convert", *arguments)
    by_command = convkit("convert", *arguments, "--max-size", "1MiB")

    assert gates_of(by_recipe)["max-size"]["asked"] == 1000
    assert by_recipe.exit_status == 5
    assert gates_of(by_command)["max-size"]["asked"] == 2**20
    assert by_command.exit_status == 0


def test_the_report_of_an_unchanged_result_is_written_where_it_was_asked_for(
    convkit: Command, repository: Path, tmp_path: Path
) -> None:
    arguments = ("convert", *MODEL, "-o", repository, "--measure", "none", "--max-size", "1MB")
    convkit(*arguments)

    again = convkit(*arguments, "--report-dir", tmp_path / "report")

    assert again.result["status"] == "unchanged"
    written = read_report((tmp_path / "report" / "report.json").read_bytes(), where="report.json")
    assert (written.status.value, [gate.name for gate in written.gates]) == ("unchanged", ["max-size"])
