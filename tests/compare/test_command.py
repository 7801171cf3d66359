"""`convkit compare` on what `convkit convert` really published."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from e2e.command import Command
from e2e.digits import CNN


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Command, Path]:
    """The sample model in FP32, then quantized dynamically: two versions, and a repository with the first alone."""
    folder = tmp_path_factory.mktemp("releases")
    convkit = Command(tmp_path_factory.mktemp("cache"))
    convkit.converted(CNN.folder, "--trust", "-o", folder / "second")
    shutil.copytree(folder / "second", folder / "first")
    convkit.converted(CNN.folder, "--trust", "-o", folder / "second", "--quantize", "dynamic")
    return convkit, folder


def test_a_less_exact_release_is_told_and_fails_where_that_was_asked_for(releases: tuple[Command, Path]) -> None:
    convkit, folder = releases

    told = convkit("compare", folder / "first", folder / "second")
    refused = convkit("compare", folder / "first", folder / "second", "--fail-on-regression")

    assert (told.exit_status, refused.exit_status) == (0, 5)
    assert "digits_cnn: numbers: logits got worse" in told.stdout
    assert "WORSE" in told.stdout
    assert "version 1, onnxruntime none" in told.stdout
    assert "error: digits_cnn: numbers: logits got worse" in refused.stderr


def test_json_is_one_object_for_every_exit_status(releases: tuple[Command, Path]) -> None:
    convkit, folder = releases

    refused = convkit("compare", folder / "first", folder / "second", "--json", "--fail-on-regression")
    missing = convkit("compare", folder / "first", folder / "nothing", "--json")

    found = json.loads(refused.stdout)
    assert (found["schema"], found["status"], found["exit_code"]) == ("convkit.comparison/1", "failed", 5)
    assert found["error"]["code"] == "compare.regression"
    (model,) = found["models"]
    assert (model["before"]["version"], model["after"]["version"]) == (1, 2)
    assert {figure["name"]: figure["change"] for figure in model["figures"]} == {
        "size": "better",
        "operators": "different",
        "numbers: logits": "worse",
        "latency": "not comparable",
    }
    assert missing.exit_status == 3
    assert json.loads(missing.stdout)["error"]["code"] == "report.missing"


def test_the_same_release_twice_is_no_regression(releases: tuple[Command, Path]) -> None:
    convkit, folder = releases

    outcome = convkit("compare", folder / "second" / "digits_cnn" / "1", folder / "first", "--fail-on-regression")

    assert outcome.exit_status == 0
    assert outcome.stdout.startswith("Nothing got worse.")


def test_markdown_is_fit_for_a_pull_request(releases: tuple[Command, Path]) -> None:
    convkit, folder = releases

    outcome = convkit("compare", folder / "first", folder / "second", "--format", "md")

    assert "| numbers: logits |" in outcome.stdout
    assert "| --- | ---: | ---: | ---: | --- |" in outcome.stdout
