"""What root publishes for another is the other's: owner, group and permissions as the folder has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from nobody import as_nobody, needs_root, open_to_all
from publications import faults, publication, published

from convkit.pipeline.ownership import take_after
from convkit.report.assemble import write_reports
from convkit.serving.publish import discard_pending

OWNER, GROUP = 1000, 2000


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of a user and a group, who both write in it."""
    folder = tmp_path / "parent" / "models"
    folder.mkdir(parents=True)
    os.chown(folder, OWNER, GROUP)
    folder.chmod(0o2775)
    return folder


def facts(folder: Path) -> set[tuple[int, int, str]]:
    """Owner, group and permissions of everything below a folder."""
    found = set()
    for path in folder.rglob("*"):
        stat = path.stat()
        kind = "folder" if path.is_dir() else "file"
        found.add((stat.st_uid, stat.st_gid, f"{kind} {stat.st_mode & 0o7777:o}"))
    return found


@needs_root
def test_versions_configurations_and_what_is_pending_are_owned_as_the_repository_is(repository: Path) -> None:
    published(repository, publication(1))
    published(repository, publication(2))
    published(repository, publication(3, instances=2))
    published(repository, publication(4, instances=3), version=1, replace=True)
    waiting = published(repository, publication(5, pending=True))

    assert facts(repository) == {(OWNER, GROUP, "folder 2775"), (OWNER, GROUP, "file 664")}
    discard_pending(waiting.folder)
    assert facts(repository) == {(OWNER, GROUP, "folder 2775"), (OWNER, GROUP, "file 664")}
    assert faults(repository) == []


@needs_root
def test_a_models_own_folder_says_it_before_the_repository_does(repository: Path) -> None:
    model = repository / "scaled"
    model.mkdir()
    os.chown(model, 3000, 3000)
    model.chmod(0o750)
    published(repository, publication(1))

    assert facts(model) == {(3000, 3000, "folder 750"), (3000, 3000, "file 640")}


@needs_root
def test_a_repository_that_is_made_belongs_to_whoever_owns_the_folder_it_is_in(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    os.chown(work, OWNER, GROUP)
    published(work / "new" / "models", publication(1))

    assert {each[:2] for each in facts(work)} == {(OWNER, GROUP)}


@needs_root
def test_the_owner_can_replace_and_remove_what_root_has_published(repository: Path, tmp_path: Path) -> None:
    open_to_all(tmp_path)
    published(repository, publication(1))

    assert as_nobody(lambda: published(repository, publication(2, instances=2)), user=OWNER) is None
    assert (repository / "scaled" / "2").stat().st_uid == OWNER
    assert as_nobody((repository / "scaled" / "1" / "model.onnx").unlink, user=OWNER) is None


def test_nobody_else_may_write_what_is_published_into_an_open_folder(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    repository.mkdir()
    repository.chmod(0o1777)
    published(repository, publication(1))

    assert {each[2] for each in facts(repository)} == {"folder 775", "file 664"}


@needs_root
def test_who_may_not_hand_over_keeps_what_it_has_written(repository: Path, tmp_path: Path) -> None:
    open_to_all(tmp_path)
    repository.chmod(0o777)
    repository.parent.chmod(0o777)

    assert as_nobody(lambda: published(repository, publication(1))) is None
    assert {owner for owner, _, _ in facts(repository)} == {65534}


@needs_root
def test_reports_are_owned_as_their_folder_is(repository: Path) -> None:
    write_reports(repository / "reports", {"report.json": b"{}"})

    assert {each[:2] for each in facts(repository)} == {(OWNER, GROUP)}


def test_a_symbolic_link_is_handed_to_nobody(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "target")

    with pytest.raises(OSError, match="symbolic link"):
        take_after(tmp_path / "link", tmp_path)
