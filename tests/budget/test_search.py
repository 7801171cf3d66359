"""The search within an accuracy budget, on the network that INT8 hurts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from e2e.command import Command
from hypothesis import given
from hypothesis import strategies as st

from convkit.budget import fewest

MOBILE = Path(__file__).parents[2] / "sample_models" / "digits_mobile"
ASKED = (
    *("--trust", "--quantize", "int8", "--calibration-data", MOBILE / "calibration.npz"),
    *("--eval-data", MOBILE / "heldout.npz"),
)


PLAIN = ("--set", "quantize.repair=false")


@given(st.integers(0, 200), st.integers(1, 250))
def test_the_fewest_that_hold_are_found_in_about_twice_the_logarithm_of_calls(most: int, answer: int) -> None:
    asked: list[int] = []

    def holds(count: int) -> bool:
        asked.append(count)
        return count >= answer

    assert fewest(most, holds) == (answer if answer <= most else None)
    assert len(asked) == len(set(asked)), "nothing is asked twice"
    assert len(asked) <= 2 * max(most, 1).bit_length() + 1
    assert all(1 <= count <= most for count in asked)


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Command:
    folder = tmp_path_factory.mktemp("budget")
    (folder / "cache").mkdir()
    return Command(folder / "cache")


def report_of(result: dict[str, Any]) -> dict[str, Any]:
    import json

    found: dict[str, Any] = json.loads(Path(result["report"]).read_text(encoding="utf-8"))
    return found


def share_in_int8(report: dict[str, Any]) -> float:
    final = next(subject for subject in report["subjects"] if subject["role"] == "final")
    assert final["macs_seen_by"].startswith("ONNX Runtime")
    share: float = final["macs"]["int8"] / sum(final["macs"].values())
    return share


def test_with_its_channels_equalized_it_holds_at_once_and_all_in_int8(command: Command, tmp_path: Path) -> None:
    outcome = command.converted(MOBILE, *ASKED, "--max-drop", "1%", "-o", tmp_path / "models")

    report = report_of(outcome.result)
    [trial] = report["trials"]
    assert (trial["what"], trial["passed"]) == ("mse, equalized", True)
    assert outcome.result["accuracy"]["verdict"] == "passed"
    assert share_in_int8(report) > 0.99


def test_without_repairs_it_loses_visibly_and_holds_where_precision_is_given_back(
    command: Command, tmp_path: Path
) -> None:
    outcome = command.converted(MOBILE, *ASKED, *PLAIN, "--max-drop", "1%", "-o", tmp_path / "models")

    result = outcome.result
    report = report_of(result)
    assert report["trials"][0]["drop"] > 0.05
    assert any(trial["passed"] and trial["kept"] for trial in report["trials"])
    assert result["accuracy"]["drop"] <= 0.01
    assert share_in_int8(report) > 0.5
    assert [gate["verdict"] for gate in result["gates"] if gate["name"] == "max-drop"] == ["passed"]


def test_a_budget_that_nothing_meets_publishes_nothing_and_keeps_the_best(command: Command, tmp_path: Path) -> None:
    arguments = (*ASKED, *PLAIN, "--max-drop", "0.1%", "--budget-evals", "2", "-o", tmp_path / "models")

    outcome = command.convert(MOBILE, *arguments)

    result = outcome.result
    assert outcome.exit_status == 5
    assert not (tmp_path / "models" / "digits_mobile").exists()
    assert Path(result["candidate"]).is_file()
    trials = report_of(result)["trials"]
    assert len(trials) == 2
    assert result["accuracy"]["final"] == max(trial["value"] for trial in trials)


def test_a_search_that_is_asked_for_again_runs_nothing(command: Command, tmp_path: Path) -> None:
    arguments = (*ASKED, "--max-drop", "1%", "-o", tmp_path / "models")
    command.converted(MOBILE, *arguments)

    again = command.converted(MOBILE, *arguments)

    assert again.result["status"] == "unchanged"
    assert all(stage["cached"] for stage in again.result["stages"] if stage["name"] != "publish")


def test_for_tensorrt_the_budget_is_judged_on_the_emulated_graph(command: Command, tmp_path: Path) -> None:
    outcome = command.converted(MOBILE, *ASKED, "--to", "tensorrt", "--max-drop", "1%", "-o", tmp_path / "models")

    accuracy = outcome.result["accuracy"]
    assert accuracy["verdict"] == "passed"
    assert accuracy["emulated"] is True
    assert any(trial["passed"] for trial in report_of(outcome.result)["trials"])
