"""The same model, options and tools give the same bytes, in another folder, with an empty cache, on another day."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from e2e.command import Command
from e2e.digits import CNN, KERAS
from e2e.matrix import Case, Matrix

CASES = [
    Case(CNN, "onnxruntime", "fp32"),
    Case(CNN, "onnxruntime", "int8"),
    Case(CNN, "tensorrt", "int8"),
    Case(KERAS, "onnxruntime", "fp32"),
]
RECORDS = {"onnxruntime": "1/convkit/", "tensorrt": "pending/1/"}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> tuple[Command, Path]:
    """A command with an empty cache and another order of hashes, and a folder with copies of the sample models."""
    folder = tmp_path_factory.mktemp("another place")
    for digits in (CNN, KERAS):
        shutil.copytree(digits.folder, folder / digits.name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "cache").mkdir()
    return Command(folder / "cache", {"PYTHONHASHSEED": "4711", "TZ": "Asia/Tokyo"}), folder


@pytest.mark.parametrize("case", CASES, ids=str)
def test_two_runs_in_two_folders_with_two_caches_write_the_same_bytes(
    case: Case, matrix: Matrix, elsewhere: tuple[Command, Path]
) -> None:
    command, folder = elsewhere
    here = matrix[case]
    assert here.outcome.exit_status == 0, here.outcome.stderr
    arguments = [
        argument.replace(str(case.digits.folder), str(folder / case.digits.name)) for argument in case.arguments
    ]

    command.converted(
        folder / case.digits.name, *arguments, "--name", case.name, "-o", folder / case.target, cwd=folder
    )

    there = folder / case.target / case.name
    names = ["config.pbtxt", RECORDS[case.target] + "manifest.json", str(here.onnx.relative_to(here.model))]
    names += ["pending/1/build.json"] if case.target == "tensorrt" else []
    differing = [name for name in names if (here.model / name).read_bytes() != (there / name).read_bytes()]
    assert differing == []
