"""Digests that are made beside other work are those of the bytes."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from convkit.pipeline import artifact, hashing
from convkit.pipeline.artifact import digest_file, digest_files, gather, use_index
from convkit.pipeline.hashing import HashedFile
from convkit.pipeline.stat_index import StatIndex

PIECE = 1 << 20


@pytest.mark.parametrize(
    "sizes",
    [(), (0,), (1, 2, 3), (PIECE - 1, 1, 1), (PIECE,), (5, 3 * PIECE + 7, 5), (PIECE, PIECE, 9), (600_000,) * 5],
    ids=str,
)
@pytest.mark.parametrize("large", [64 << 20, PIECE], ids=["kept", "let go"])
def test_what_is_written_has_the_digest(
    sizes: tuple[int, ...], large: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "_LARGE", large)
    parts = [os.urandom(size) for size in sizes]
    with HashedFile(tmp_path / "file") as stream:
        for part in parts:
            stream.write(part)

    assert (tmp_path / "file").read_bytes() == b"".join(parts)
    assert stream.digest == "sha256:" + hashlib.sha256(b"".join(parts)).hexdigest()
    assert gather(tmp_path, known={"file": stream.digest}) == gather(tmp_path)


def test_a_file_that_cannot_be_written_to_its_end_is_told() -> None:
    with pytest.raises(OSError, match="No space left"), HashedFile(Path("/dev/full")) as stream:
        stream.write(bytes(3 * PIECE))
    with pytest.raises(OSError, match="No space left"), HashedFile(Path("/dev/full")) as stream:
        stream.write(b"few")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Large ones and small ones, in any order."""
    paths = []
    for number, size in enumerate((3, 5 * PIECE, 0, 2 * PIECE + 1, PIECE)):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(os.urandom(size))
    return paths


@pytest.mark.parametrize("cores", [1, 2, 7])
def test_several_files_at_once_have_the_digests_of_each(
    cores: int, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact, "cores", lambda: cores)

    assert digest_files(files) == [digest_file(path) for path in files]
    assert digest_files([]) == []


def test_what_the_file_system_vouches_for_is_read_once(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact, "cores", lambda: 2)
    settled = time.time_ns() + 10_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: settled)
    use_index(StatIndex(tmp_path / "index"))
    try:
        first = digest_files(files)
        monkeypatch.setattr(artifact, "hash_together", lambda streams, **_: [] if not streams else pytest.fail("read"))
        assert digest_files(files) == first
    finally:
        use_index(None)


def test_one_that_cannot_be_read_is_told(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "cores", lambda: 2)

    with pytest.raises(FileNotFoundError):
        digest_files([*files, files[0].with_name("missing")])
    with pytest.raises(OSError, match="regular file"):
        digest_files([*files, Path("/dev/zero")])
