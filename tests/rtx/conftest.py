"""Steps called as plain functions make their files in a folder of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from convkit.pipeline.artifact import use_scratch


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path) -> None:
    use_scratch(tmp_path / "scratch")
