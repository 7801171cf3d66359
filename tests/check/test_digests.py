"""One bit that changes anywhere in what was published is found, and its file is named."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from check.repositories import codes, errors, publish
from convkit.checking import CheckStatus, check
from convkit.errors import ExitStatus
from convkit.serving.remark import Severity

LIVE = [
    "config.pbtxt",
    "warmup/0-x",
    "1/model.onnx",
    "1/convkit/SHA256SUMS",
    "1/convkit/client.py",
    "1/convkit/expected.json",
    "1/convkit/manifest.json",
    "1/convkit/references/0000.npz",
    "1/convkit/references/0001.npz",
    "1/convkit/report.html",
    "1/convkit/report.json",
    "1/convkit/report.md",
    "1/convkit/samples/0000.npz",
    "1/convkit/samples/0001.npz",
]
PENDING = [
    "config.pbtxt",
    "configs/cpu.pbtxt",
    "warmup/0-x",
    "pending/1/SHA256SUMS",
    "pending/1/build.json",
    "pending/1/client.py",
    "pending/1/manifest.json",
    "pending/1/model.onnx",
    "pending/1/model/config.pbtxt",
    "pending/1/model/configs/cpu.pbtxt",
    "pending/1/model/warmup/0-x",
    "pending/1/references/0000.npz",
    "pending/1/references/0001.npz",
    "pending/1/report.html",
    "pending/1/report.json",
    "pending/1/report.md",
    "pending/1/samples/0000.npz",
    "pending/1/samples/0001.npz",
]


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def hold_every_bit(repository: Path, file: Path, offsets: list[int]) -> None:
    """Flip one bit at each of these places in turn, and see that it is found there."""
    whole = file.read_bytes()
    where = file.relative_to(repository).as_posix()
    for offset in offsets:
        bit = offset % 8
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << bit
        file.write_bytes(damaged)

        report = check(repository)

        named = [r for r in report.remarks if r.severity is Severity.ERROR and (where == r.path or where in r.message)]
        assert report.status is CheckStatus.FAILED, f"{where}: bit {bit} of byte {offset}"
        assert named or file.name in ("SHA256SUMS", "manifest.json"), f"{where}: bit {bit} of byte {offset}"
    file.write_bytes(whole)
    assert errors(check(repository)) == []


def places(file: Path, count: int) -> list[int]:
    size = file.stat().st_size
    drawn = random.Random(file.name).sample(range(size), min(count, size))
    return sorted({0, size - 1, *drawn})


def test_the_lists_name_every_file_that_is_published(published: Path, published_pending: Path) -> None:
    assert files_below(published / "dense") == sorted(LIVE)
    assert files_below(published_pending / "dense") == sorted(PENDING)


def test_what_convkit_publishes_is_found_in_order(published: Path) -> None:
    report = check(published)

    assert (report.status, report.exit_code, report.remarks) == (CheckStatus.OK, ExitStatus.DONE, ())
    (version,) = report.models[0].versions
    assert (version.version, version.pending, version.recorded, version.files) == (1, False, True, 11)


def test_one_model_of_a_repository_can_be_checked_alone(published: Path) -> None:
    assert [model.name for model in check(published / "dense").models] == ["dense"]


@pytest.mark.parametrize("name", LIVE)
def test_a_flipped_bit_is_found(repository: Path, name: str) -> None:
    file = repository / "dense" / name

    hold_every_bit(repository, file, places(file, 24))


@pytest.mark.parametrize("name", PENDING)
def test_a_flipped_bit_in_what_waits_for_a_gpu_is_found(pending: Path, name: str) -> None:
    file = pending / "dense" / name

    hold_every_bit(pending, file, places(file, 12))


def test_no_bit_of_the_digests_themselves_can_change_unseen(repository: Path) -> None:
    file = repository / "dense" / "1" / "convkit" / "SHA256SUMS"
    whole = file.read_bytes()
    for offset in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[offset] ^= 1 << bit
            file.write_bytes(damaged)
            if offset % 7 == bit:  # all of them take a minute
                assert errors(check(repository / "dense")), f"bit {bit} of byte {offset}"


@pytest.mark.parametrize("name", LIVE)
def test_a_missing_file_is_named(repository: Path, name: str) -> None:
    (repository / "dense" / name).unlink()

    report = check(repository)

    assert report.exit_code == ExitStatus.CHECK_FAILED
    assert any(f"dense/{name}" in remark.message for remark in report.remarks)


def test_a_file_that_nobody_published_is_a_note_and_no_error(repository: Path) -> None:
    (repository / "dense" / "1" / "notes.txt").write_text("mine")
    (repository / "dense" / "labels.txt").write_text("mine")

    report = check(repository)

    assert (report.exit_code, codes(report)) == (0, ["check.unknown-file"] * 2)
    assert {remark.path for remark in report.remarks} == {"dense/1/notes.txt", "dense/labels.txt"}


def test_a_configuration_that_was_edited_is_not_the_published_one(repository: Path) -> None:
    config = repository / "dense" / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 8", "max_batch_size: 4"))

    (remark,) = check(repository).remarks

    assert (remark.code, remark.path) == ("check.digest", "dense/config.pbtxt")


def test_an_older_version_is_whole_after_a_newer_one_brought_its_own_configuration(tmp_path: Path, cache: Path) -> None:
    publish(tmp_path, cache)
    repository = publish(tmp_path, cache, triton={"instances": 2}, version=2)

    report = check(repository)

    assert [version.version for version in report.models[0].versions] == [1, 2]
    assert (report.exit_code, report.remarks) == (0, ())


def test_a_manifest_that_names_files_outside_its_version_is_refused(repository: Path) -> None:
    manifest = repository / "dense" / "1" / "convkit" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"model.onnx"', '"../../../secret"'))

    report = check(repository)

    assert "check.damaged-record" in errors(report)
    assert any("'../../../secret', outside of its folder" in remark.message for remark in report.remarks)


def test_records_taken_away_leave_a_repository_of_unknown_origin(repository: Path) -> None:
    shutil.rmtree(repository / "dense" / "1" / "convkit")

    report = check(repository)

    assert (report.exit_code, codes(report)) == (0, ["check.no-manifest"])


def test_nothing_is_written(repository: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in [repository, *repository.rglob("*")]}

    check(repository, triton="24.10")

    assert {path: path.stat().st_mtime_ns for path in [repository, *repository.rglob("*")]} == before
