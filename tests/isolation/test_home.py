"""Where the cache lies without a home, and what is refused there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from nobody import as_nobody, needs_root

from convkit.errors import ConvkitError, ExitStatus
from convkit.pipeline.cache import Cache
from convkit.pipeline.home import default_root, home_variables


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of a user without a home."""
    for name in ("CONVKIT_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"convkit-{os.getuid()}"


def refusal() -> ConvkitError:
    with pytest.raises(ConvkitError) as refused:
        default_root()
    assert refused.value.exit_status == ExitStatus.MISSING
    assert "CONVKIT_CACHE_DIR" in refused.value.hint
    return refused.value


def test_it_is_made_for_this_user_alone_and_taken_again(temporary: Path) -> None:
    assert default_root() == temporary
    assert temporary.stat().st_mode & 0o777 == 0o700

    Cache(default_root())
    assert default_root() == temporary


def test_a_home_is_taken_before_it(temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    assert default_root() == tmp_path / ".cache" / "convkit"
    assert not temporary.exists()


def test_a_symbolic_link_in_its_place_is_refused(temporary: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    temporary.symlink_to(tmp_path / "elsewhere")

    assert refusal().code == "cache.foreign"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_symbolic_link_to_nowhere_is_refused(temporary: Path, tmp_path: Path) -> None:
    temporary.symlink_to(tmp_path / "nowhere")

    assert refusal().code == "cache.foreign"
    assert not (tmp_path / "nowhere").exists()


def test_a_file_in_its_place_is_refused(temporary: Path) -> None:
    temporary.write_text("")

    assert "which is no folder" in refusal().message


def test_a_folder_that_others_may_write_in_is_refused(temporary: Path) -> None:
    temporary.mkdir()
    temporary.chmod(0o777)

    assert "which is open to others" in refusal().message


@needs_root
def test_a_folder_of_somebody_else_is_refused(temporary: Path) -> None:
    temporary.mkdir(mode=0o700)
    os.chown(temporary, 4711, 4711)

    assert "which is owned by user 4711" in refusal().message


def test_a_worker_has_a_home_where_its_user_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")
    assert home_variables(tmp_path)["HOME"] == str(tmp_path)

    monkeypatch.setenv("HOME", str(tmp_path))
    assert "HOME" not in home_variables(tmp_path / "scratch")


@needs_root
def test_a_worker_has_a_user_s_name_where_the_user_is_but_a_number(tmp_path: Path) -> None:
    def as_a_number() -> None:
        os.environ.pop("USER", None)
        assert home_variables(tmp_path)["USER"] == "user12345"

    assert as_nobody(as_a_number, user=12345) is None
