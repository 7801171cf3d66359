"""Steps called as plain functions make their files in a folder of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from convkit.pipeline.artifact import use_scratch


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    use_scratch(folder)
    return folder
