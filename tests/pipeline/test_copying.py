"""Copies that share blocks where the file system can do that, and are copies everywhere."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from convkit.pipeline.copying import copy_file

DATA = os.urandom(3 << 20) + b"the end"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").write_bytes(DATA)
    return tmp_path / "source"


def copied(source: Path) -> Path:
    target = source.with_name("target")
    with target.open("wb") as stream:
        copy_file(source, stream)
    return target


def refuse(number: int) -> object:
    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return refused


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.EPERM])
@pytest.mark.parametrize("missing", ["clones", "copies by the kernel"])
def test_what_the_file_system_cannot_do_is_done_by_hand(
    missing: str, number: int, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "ioctl", refuse(number))
    if missing != "clones":
        monkeypatch.setattr(os, "copy_file_range", refuse(number))

    assert copied(source).read_bytes() == DATA


def test_what_the_kernel_copies_in_part_is_finished(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, calls = os.copy_file_range, []

    def two_parts_and_then_refused(one: int, other: int, count: int) -> int:
        calls.append(count)
        if len(calls) > 2:
            raise OSError(errno.EIO, "Input/output error")
        return whole(one, other, 1000)

    monkeypatch.setattr(os, "copy_file_range", two_parts_and_then_refused)
    monkeypatch.setattr(fcntl, "ioctl", refuse(errno.EOPNOTSUPP))

    assert copied(source).read_bytes() == DATA
    assert len(calls) == 3


def test_a_kernel_that_copies_nothing_and_says_so_is_not_believed(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for files of /proc, and on some file systems in user space."""
    monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)

    assert copied(source).read_bytes() == DATA


def test_an_empty_file_is_copied(tmp_path: Path) -> None:
    (tmp_path / "source").touch()

    assert copied(tmp_path / "source").read_bytes() == b""


def test_a_full_disk_is_said(source: Path) -> None:
    with pytest.raises(OSError, match="No space left"), Path("/dev/full").open("wb", buffering=0) as full:
        copy_file(source, full)  # type: ignore[arg-type]


def test_a_copy_is_a_file_of_its_own(source: Path) -> None:
    target = copied(source)
    with target.open("r+b") as stream:
        stream.write(b"changed")

    assert source.read_bytes() == DATA
    assert source.stat().st_ino != target.stat().st_ino


@pytest.fixture
def cloning(tmp_path: Path) -> Iterator[Path]:
    """A file system that shares blocks."""
    image, folder = tmp_path / "image", tmp_path / "volume"
    with image.open("wb") as stream:
        stream.truncate(512 << 20)
    folder.mkdir()
    for make in (["mkfs.xfs", "-q", "-m", "reflink=1"], ["mkfs.btrfs", "-q"]):
        if shutil.which(make[0]) and subprocess.run([*make, image], capture_output=True, check=False).returncode == 0:
            break
    else:
        pytest.skip("neither mkfs.xfs nor mkfs.btrfs is here")
    mounted = subprocess.run(["mount", "-o", "loop", image, folder], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_copy_takes_no_space_where_blocks_can_be_shared(cloning: Path) -> None:
    (cloning / "source").write_bytes(DATA * 20)
    os.sync()
    before = shutil.disk_usage(cloning).used
    target = copied(cloning / "source")
    os.sync()

    assert shutil.disk_usage(cloning).used - before < len(DATA)
    assert target.read_bytes() == DATA * 20
