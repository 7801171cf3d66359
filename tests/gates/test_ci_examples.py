"""docs/ci.md: it shows the files that lie beside it, and the commands in them do what they should."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from e2e.command import Command
from e2e.digits import CNN

from convkit import __version__

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXAMPLES = sorted((DOCS / "examples").iterdir())
FENCE = re.compile(r"^```(?:yaml|dockerfile)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def shell_lines(script: str | list[str]) -> list[str]:
    """Return a script's convkit commands, each on one line."""
    text = script if isinstance(script, str) else "\n".join(script)
    return [line.strip() for line in re.sub(r"\\\n\s*", "", text).splitlines() if line.strip().startswith("convkit")]


def read(name: str) -> Any:
    return yaml.safe_load((DOCS / "examples" / name).read_text(encoding="utf-8"))


def test_the_page_shows_every_example_as_it_is() -> None:
    shown = FENCE.findall((DOCS / "ci.md").read_text(encoding="utf-8"))

    assert sorted(shown) == sorted(example.read_text(encoding="utf-8") for example in EXAMPLES)
    assert len(EXAMPLES) == 3


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What CI has checked out: the model, and the report of the release in service."""
    shutil.copytree(CNN.folder, tmp_path / "sample_models" / "digits_cnn")
    return tmp_path


def run_in(convkit: Command, checkout: Path, lines: list[str]) -> None:
    """Run commands as CI does, one after the other; `>> "$VARIABLE"` is left to the shell there."""
    for line in lines:
        words = line.partition(">>")[0].split()
        outcome = convkit(*words[1:], cwd=checkout)
        assert outcome.exit_status == 0, f"{line}\n{outcome.stderr}"
        if words[1] == "convert":  # what was released before is this very model
            (checkout / "released").mkdir()
            shutil.copy(checkout / "report" / "report.json", checkout / "released" / "report.json")


def assert_all_passed(junit: Path) -> None:
    root = ElementTree.parse(junit).getroot()
    assert (root.get("failures"), root.get("errors")) == ("0", "0")
    assert int(root.get("tests", "0")) >= 5


def test_the_github_workflow_runs(convkit: Command, checkout: Path) -> None:
    workflow = read("github-actions.yml")
    steps = workflow["jobs"]["convert"]["steps"]
    lines = [line for step in steps for line in shell_lines(step.get("run", ""))]

    assert [line.split()[1] for line in lines] == ["convert", "compare", "report", "report"]
    run_in(convkit, checkout, lines)
    assert_all_passed(checkout / "junit.xml")
    assert (checkout / "models" / "digits_cnn" / "1" / "model.onnx").is_file()


def test_the_gitlab_job_runs(convkit: Command, checkout: Path) -> None:
    job = read("gitlab-ci.yml")["convert"]
    lines = shell_lines([*job["script"], *job["after_script"]])

    assert [line.split()[1] for line in lines] == ["convert", "compare", "report"]
    run_in(convkit, checkout, lines)
    assert_all_passed(checkout / job["artifacts"]["reports"]["junit"])


def test_the_docker_stage_leaves_a_repository(convkit: Command, checkout: Path) -> None:
    text = (DOCS / "examples" / "Dockerfile").read_text(encoding="utf-8")
    (command,) = re.findall(r"convkit convert .*", re.sub(r"\\\n\s*", "", text))
    (copied,) = re.findall(r"^COPY (\S+) /source$", text, re.MULTILINE)
    places = {"/source": copied, "/models": "models"}
    words = [places.get(word, word) for word in command.split()]

    outcome = convkit(*words[1:], cwd=checkout)

    assert outcome.exit_status == 0, outcome.stderr
    assert (checkout / "models" / "digits_cnn" / "config.pbtxt").is_file()
    assert f'"convkit[torch]=={__version__}"' in text


@pytest.mark.parametrize("name", ["github-actions.yml", "gitlab-ci.yml"])
def test_a_missed_gate_ends_the_job_and_its_report_is_still_shown(convkit: Command, checkout: Path, name: str) -> None:
    text = (DOCS / "examples" / name).read_text(encoding="utf-8")
    (convert,) = re.findall(r"convkit convert .*", re.sub(r"\\?\n\s*--", " --", text))
    words = ["1KB" if word == "1MB" else word for word in convert.split()]

    missed = convkit(*words[1:], cwd=checkout)
    shown = convkit("report", "report", "--format", "junit", "--output", "junit.xml", cwd=checkout)

    assert missed.exit_status == 5
    assert shown.exit_status == 0
    failure = ElementTree.parse(checkout / "junit.xml").getroot().find(".//failure")
    assert failure is not None
    assert "--max-size: asked for at most 0.977 KiB (1,000 B), found" in failure.get("message", "")
    assert not (checkout / "models").exists()
