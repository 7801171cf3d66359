"""A dry run writes nothing, whatever is remembered."""

from __future__ import annotations

from pathlib import Path

from e2e.command import Command
from fleet.test_fleet import save


def test_a_dry_run_publishes_nothing_when_every_step_is_remembered(tmp_path: Path) -> None:
    convkit, model = Command(tmp_path), save(tmp_path / "model.onnx")
    options = ("--name", "m", "--measure", "none")

    fresh = convkit("convert", model, *options, "-o", tmp_path / "dry", "--dry-run")
    assert convkit("convert", model, *options, "-o", tmp_path / "models").exit_status == 0
    remembered = convkit("convert", model, *options, "-o", tmp_path / "dry", "--dry-run")

    assert (fresh.exit_status, remembered.exit_status) == (0, 0)
    assert "The first step that would run: " in fresh.stderr
    assert "Every step is remembered" in remembered.stderr
    assert not (tmp_path / "dry").exists()
