"""`convkit build` where there is no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.command import Command, hold_to_head
from e2e.matrix import CASES, Matrix
from e2e.published import files_below

DEFERRED = [case for case in CASES if case.target == "tensorrt"]


@pytest.fixture(scope="module")
def pending(matrix: Matrix) -> Path:
    """A repository whose every engine is still to be built."""
    for case in DEFERRED:
        assert matrix[case].outcome.exit_status == 0
    return matrix.repository("tensorrt")


@pytest.mark.parametrize("of", ["the repository", "one model"])
def test_without_a_gpu_it_says_what_is_missing_and_changes_nothing(pending: Path, convkit: Command, of: str) -> None:
    before = stamps(pending), files_below(pending)

    outcome = convkit("build", pending if of == "the repository" else pending / DEFERRED[0].name, "--json")

    assert outcome.exit_status == 6
    hold_to_head(outcome.result)
    assert outcome.result["error"]["hint"]
    assert (stamps(pending), files_below(pending)) == before


def test_where_nothing_is_pending_it_needs_no_gpu(matrix: Matrix, convkit: Command) -> None:
    served = matrix[CASES[0]]
    assert served.outcome.exit_status == 0

    outcome = convkit("build", served.repository, "--json")

    assert outcome.exit_status == 0
    assert outcome.result["status"] == "unchanged"


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
