"""convkit as containers run it: as a number without a home, with nothing writable but what it was given."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from nobody import open_to_all

from isolation.container import USER, contained, unavailable

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))

PROGRAM = Path(sys.executable).with_name("convkit")
DIGITS = Path(__file__).parents[2] / "sample_models" / "digits_cnn"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of the container's user, which others reach."""
    open_to_all(tmp_path)
    folder = tmp_path / "mine"
    folder.mkdir()
    os.chown(folder, USER, USER)
    return folder


def result_of(ended: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert ended.returncode == 0, ended.stderr
    result: dict[str, Any] = json.loads(ended.stdout)
    return result


def test_nothing_is_needed_but_a_cache_and_a_place_for_the_result(mine: Path, tmp_path: Path) -> None:
    source, folders = tmp_path / "digits", [mine / "cache", mine / "models"]
    shutil.copytree(DIGITS, source, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in folders:
        folder.mkdir()
        os.chown(folder, USER, USER)
    ended = contained(
        [PROGRAM, "convert", source, "--trust", "--output", mine / "models", "--measure", "none", "--json"],
        scratch=tmp_path,
        user=USER,
        writable=folders,
        read_only=True,
        shm="1m",
        variables={"CONVKIT_CACHE_DIR": str(mine / "cache")},
    )

    assert result_of(ended)["status"] == "ok"
    assert (mine / "models" / "digits" / "1" / "model.onnx").stat().st_uid == USER
    assert [path for path in (mine / "cache" / "scratch").iterdir() if path.is_dir()] == []
    assert not list(source.rglob("__pycache__"))


@pytest.mark.parametrize("home", [None, "/", "/nonexistent", "/proc", "/root"])
def test_without_a_home_the_cache_is_a_folder_of_the_users_own(home: str | None, mine: Path, tmp_path: Path) -> None:
    ended = contained(
        [PROGRAM, "cache", "info", "--json"],
        scratch=tmp_path,
        user=USER,
        variables={"HOME": home, "TMPDIR": str(mine)},
    )

    assert result_of(ended)["root"] == str(mine / f"convkit-{USER}")
    assert (mine / f"convkit-{USER}").stat().st_mode & 0o777 == 0o700


def test_with_neither_a_home_nor_a_temporary_folder_it_asks_for_a_cache(tmp_path: Path) -> None:
    open_to_all(tmp_path)
    ended = contained(
        [PROGRAM, "cache", "info", "--json"], scratch=tmp_path, user=USER, read_only=True, shm="1m", variables={}
    )

    assert ended.returncode == 6
    assert "cache.unwritable" in ended.stdout + ended.stderr
    assert "CONVKIT_CACHE_DIR" in ended.stdout + ended.stderr
