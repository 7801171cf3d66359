"""A version appears in a repository whole, at once, or not at all; whatever ends the publication, and whenever."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from nobody import as_nobody, needs_root, open_to_all
from serving.publications import faults, left_over, publication, published
from triton_server.client import infer
from triton_server.server import TritonServer

from convkit.errors import CheckError, InputError, MissingError, UsageError
from convkit.serving import in_place
from convkit.serving.holding import locked
from convkit.serving.manifest import write_manifest
from convkit.serving.publish import Outcome, Publication, discard_pending, find_unchanged, next_version


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "parent" / "models"


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def factor_of(version: Path) -> float:
    import onnx

    [scale] = onnx.load(version / "model.onnx").graph.initializer
    return float(onnx.numpy_helper.to_array(scale)[0])


def test_the_first_version_is_1_and_the_next_follow(repository: Path) -> None:
    assert published(repository, publication(1)).version == 1
    assert published(repository, publication(2)).version == 2
    assert factor_of(repository / "scaled" / "2") == 2
    assert faults(repository) == left_over(repository) == []


def test_a_number_after_a_gap_follows_the_highest(repository: Path) -> None:
    published(repository, publication(1), version=7)
    published(repository, publication(2), version=3)

    assert next_version(repository, "scaled") == 8


def test_the_same_result_is_found_unchanged(repository: Path) -> None:
    published(repository, publication(1))
    found = find_unchanged(repository, publication(1), None)

    assert found is not None
    assert (found.outcome, found.version) == (Outcome.UNCHANGED, 1)
    assert find_unchanged(repository, publication(2), None) is None
    assert find_unchanged(repository, publication(1), 2) is None


def test_an_older_version_with_the_same_result_does_not_count(repository: Path) -> None:
    published(repository, publication(1))
    published(repository, publication(2))

    assert find_unchanged(repository, publication(1), None) is None
    assert find_unchanged(repository, publication(1), 1) is not None


@pytest.mark.parametrize("damage", ["removed", "emptied", "changed"])
@pytest.mark.parametrize("file", ["1/model.onnx", "1/convkit/manifest.json", "warmup/0-x"])
def test_a_damaged_version_is_not_unchanged_and_the_next_one_is_whole(file: str, damage: str, repository: Path) -> None:
    published(repository, publication(1))
    path = repository / "scaled" / file
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "emptied" else path.read_bytes()[:-1] + b"!")

    assert find_unchanged(repository, publication(1), None) is None
    assert published(repository, publication(1)).version == 2
    assert find_unchanged(repository, publication(1), None) is not None


def test_a_pinned_version_with_other_content_is_refused_without_replace(repository: Path) -> None:
    published(repository, publication(1))
    before = listing(repository)

    with pytest.raises(UsageError, match="version 1 of scaled exists with other content") as refused:
        published(repository, publication(2), version=1)

    assert "--replace" in refused.value.hint
    assert listing(repository) == before


def test_replace_swaps_a_version_and_leaves_the_others(repository: Path) -> None:
    published(repository, publication(1))
    published(repository, publication(2))
    published(repository, publication(3), version=1, replace=True)

    assert factor_of(repository / "scaled" / "1") == 3
    assert factor_of(repository / "scaled" / "2") == 2
    assert faults(repository) == left_over(repository) == []


def test_another_interface_under_the_same_name_is_refused_without_replace(repository: Path) -> None:
    published(repository, publication(1))
    before = listing(repository)

    with pytest.raises(UsageError, match="scaled is there with other inputs or outputs"):
        published(repository, publication(1, width=5))
    assert listing(repository) == before

    published(repository, publication(1, width=5), replace=True)
    assert faults(repository) == []


@pytest.mark.parametrize("damage", [b"", b"this is { not a configuration", b"\xff\xfe"])
def test_a_configuration_that_nobody_can_read_counts_as_another_interface(damage: bytes, repository: Path) -> None:
    published(repository, publication(1))
    (repository / "scaled" / "config.pbtxt").write_bytes(damage)

    with pytest.raises(UsageError, match="other inputs or outputs"):
        published(repository, publication(2))


def test_config_pbtxt_keeps_its_time_where_its_bytes_stay(repository: Path) -> None:
    published(repository, publication(1))
    before = (repository / "scaled" / "config.pbtxt").stat().st_mtime_ns
    published(repository, publication(2))

    assert (repository / "scaled" / "config.pbtxt").stat().st_mtime_ns == before


def test_files_that_others_keep_in_the_models_folder_stay(repository: Path) -> None:
    published(repository, publication(1))
    (repository / "scaled" / "configs").mkdir()
    (repository / "scaled" / "configs" / "mine.pbtxt").write_text("name: 'scaled'", encoding="utf-8")
    (repository / "scaled" / "labels.txt").symlink_to("configs/mine.pbtxt")
    published(repository, publication(2, instances=2))

    assert (repository / "scaled" / "configs" / "mine.pbtxt").read_text() == "name: 'scaled'"
    assert (repository / "scaled" / "labels.txt").is_symlink()
    assert faults(repository) == []


def test_a_version_that_is_there_but_for_its_configuration_is_finished_without_replace(repository: Path) -> None:
    published(repository, publication(1), version=1)
    (repository / "scaled" / "config.pbtxt").unlink()

    assert published(repository, publication(1), version=1).version == 1
    assert faults(repository) == []


def test_a_pending_version_leaves_a_live_models_configuration_alone(repository: Path) -> None:
    published(repository, publication(1))
    config = (repository / "scaled" / "config.pbtxt").read_bytes()
    published(repository, publication(2, instances=3, pending=True))

    assert (repository / "scaled" / "config.pbtxt").read_bytes() == config
    assert (repository / "scaled" / "pending" / "2" / "model.onnx").is_file()
    assert next_version(repository, "scaled") == 3


def test_what_does_not_read_back_as_its_manifest_says_is_not_published(repository: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"not what the manifest says")
    good = publication(1)
    bad = Publication(
        name=good.name, files={"model.onnx": damaged}, manifest=good.manifest, config=good.config, beside=good.beside
    )

    with pytest.raises(CheckError, match="does not have the digests of its manifest"):
        published(repository, bad)
    assert listing(repository) == {}
    assert left_over(repository) == []


# What the file system refuses


def test_a_repository_that_is_a_file_is_refused(repository: Path) -> None:
    repository.parent.mkdir()
    repository.write_text("a file", encoding="utf-8")

    with pytest.raises(InputError, match="cannot be used: File exists"):
        published(repository, publication(1))


def test_a_repository_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")

    with pytest.raises(InputError, match="cannot be used: Not a directory"):
        published(tmp_path / "file" / "models", publication(1))


def test_a_file_where_the_models_folder_should_be_is_refused(repository: Path) -> None:
    repository.mkdir(parents=True)
    (repository / "scaled").write_text("a file", encoding="utf-8")

    with pytest.raises(InputError, match="cannot be used: Not a directory"):
        published(repository, publication(1))
    assert (repository / "scaled").read_text() == "a file"


@needs_root
def test_a_repository_that_may_not_be_written_is_refused(repository: Path) -> None:
    published(repository, publication(1))
    open_to_all(repository)

    assert as_nobody(lambda: published(repository, publication(2))) is InputError
    assert factor_of(repository / "scaled" / "1") == 1
    assert not (repository / "scaled" / "2").exists()


@pytest.mark.parametrize(("module", "call"), [("publish", "write_file"), ("put", "link_tree"), ("put", "flush_tree")])
def test_a_full_disk_leaves_everything_as_it_was(
    module: str, call: str, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(repository, publication(1))
    before = listing(repository)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(f"convkit.serving.{module}.{call}", full)
    with pytest.raises(MissingError, match="no space left in"):
        published(repository, publication(2, instances=2))

    assert listing(repository) == before
    assert left_over(repository) == []


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A repository that is a file system of its own, of one megabyte, as a container's volume is."""
    folder = tmp_path / "volume"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_repository_on_a_volume_of_its_own_is_published_into(mounted: Path) -> None:
    published(mounted, publication(1))
    published(mounted, publication(2, instances=2))
    published(mounted, publication(3, width=5), version=2, replace=True)

    assert factor_of(mounted / "scaled" / "2") == 3
    assert faults(mounted) == left_over(mounted / "any") == []


def test_a_full_volume_is_something_missing_here_and_holds_nothing_half_made(mounted: Path) -> None:
    large = publication(1)
    files = {**large.files, "more.bin": os.urandom(2 << 20)}
    too_large = Publication(
        name="large", files=files, manifest=large.manifest, config=large.config, beside=large.beside
    )

    with pytest.raises(MissingError, match="no space left"):
        published(mounted, too_large)
    assert list(mounted.iterdir()) == []


@pytest.fixture
def layered(tmp_path: Path) -> Iterator[Path]:
    """A repository whose first version lies in a lower layer of an overlay, as in a Docker build."""
    lower, upper, work, merged = (tmp_path / name for name in ("lower", "upper", "work", "merged"))
    for folder in (lower, upper, work, merged):
        folder.mkdir()
    published(lower / "models", publication(1))
    layers = f"lowerdir={lower},upperdir={upper},workdir={work},redirect_dir=off"
    done = subprocess.run(["mount", "-t", "overlay", "-o", layers, "overlay", merged], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("no layered file system can be mounted here")
    yield merged / "models"
    subprocess.run(["umount", "--lazy", merged], check=True)


def test_a_version_in_a_lower_layer_is_replaced(layered: Path) -> None:
    published(layered, publication(2, instances=2), version=1, replace=True)

    assert factor_of(layered / "scaled" / "1") == 2
    assert faults(layered) == left_over(layered) == []


def test_a_version_beside_one_in_a_lower_layer_is_published(layered: Path) -> None:
    published(layered, publication(2, instances=2))

    assert sorted(path.name for path in (layered / "scaled").iterdir() if path.name.isdigit()) == ["1", "2"]
    assert faults(layered) == left_over(layered) == []


@pytest.mark.parametrize("missing", ["the exchange", "links", "locks on folders"])
def test_a_file_system_that_cannot_do_everything_is_published_into(
    missing: str, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if missing == "the exchange":
        monkeypatch.setattr("convkit.serving.put.exchange", lambda one, other: False)
    elif missing == "links":
        monkeypatch.setattr(os, "link", refused)
    else:
        flock = in_place.fcntl.flock

        def only_files(descriptor: int, how: int) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(errno.EBADF, "Bad file descriptor")
            flock(descriptor, how)

        monkeypatch.setattr(in_place.fcntl, "flock", only_files)
    published(repository, publication(1))
    published(repository, publication(2, instances=2))
    published(repository, publication(3, width=5), version=1, replace=True)
    published(repository, publication(4, width=5), version=2, replace=True)

    assert [factor_of(repository / "scaled" / number) for number in "12"] == [3, 4]
    assert faults(repository) == left_over(repository) == []


# Where the staging folder lies, and whose it is


def test_another_repositorys_staging_beside_this_one_is_left_alone(repository: Path) -> None:
    repository.mkdir(parents=True)
    theirs = repository.parent / ".convkit-staging-models-old-abcdefgh"
    ours = repository.parent / ".convkit-staging-models-abcdefgh"
    theirs.mkdir()
    ours.mkdir()
    published(repository, publication(1))

    assert theirs.exists()
    assert not ours.exists()


def test_staging_left_in_another_models_folder_is_cleared(repository: Path) -> None:
    published(repository, publication(1))
    left = repository / "scaled" / ".convkit-staging-models-abcdefgh"
    left.mkdir()
    published(repository, publication(1, name="other"))

    assert not left.exists()


def test_the_repository_may_be_the_working_directory_or_the_one_above(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "inner").mkdir(parents=True)
    monkeypatch.chdir(repository)
    published(Path(), publication(1))
    monkeypatch.chdir(repository / "inner")
    published(Path(".."), publication(2, instances=2))

    assert faults(repository, config_of=("scaled", "inner")) == ["inner has no version", "inner has no config.pbtxt"]
    assert left_over(repository) == []


def test_a_repository_behind_a_symbolic_link_is_published_into(repository: Path, tmp_path: Path) -> None:
    repository.mkdir(parents=True)
    (tmp_path / "link").symlink_to(repository)
    published(tmp_path / "link", publication(1))
    published(tmp_path / "link", publication(2, instances=2))

    assert (tmp_path / "link").is_symlink()
    assert factor_of(repository / "scaled" / "2") == 2
    assert left_over(repository) == [] == list(tmp_path.glob(".convkit*"))


def test_a_model_whose_folder_is_a_symbolic_link_keeps_the_link(repository: Path, tmp_path: Path) -> None:
    published(repository, publication(1))
    (repository / "scaled").rename(tmp_path / "elsewhere")
    (repository / "scaled").symlink_to(tmp_path / "elsewhere")
    published(repository, publication(2, instances=2))

    assert (repository / "scaled").is_symlink()
    assert factor_of(tmp_path / "elsewhere" / "2") == 2


# Killed at any moment


def killed_at_every_step(prepare: Callable[[], None], act: Callable[[], object], inspect: Callable[[int], None]) -> int:
    """Run `act` again and again in a process that is killed before its first, second, ... act on the file system.

    Every such act is announced by Python's audit events; `inspect` sees what each death has left. Returns how many
    moments there were, when at last `act` came through.
    """
    acts = ("open", "os.", "shutil.", "tempfile.", "ctypes.dlsym", "fcntl.")
    for moment in range(1, 1000):
        prepare()
        child = os.fork()
        if child == 0:
            left = moment

            def kill(event: str, _: tuple[object, ...]) -> None:
                nonlocal left
                if event.startswith(acts):
                    left -= 1
                    if left == 0:
                        os.kill(os.getpid(), signal.SIGKILL)

            status = 1
            try:
                sys.addaudithook(kill)
                act()
                status = 0
            finally:
                os._exit(status)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if ended == 0:
            return moment - 1
        assert ended == -signal.SIGKILL
        inspect(moment)
    raise AssertionError("it never ends")


CASES: dict[str, tuple[Publication | None, Publication, int | None, bool]] = {
    "a first version": (None, publication(2), None, False),
    "a second version": (publication(1), publication(2), None, False),
    "a second version with another configuration": (publication(1), publication(2, instances=2), None, False),
    "a version that replaces another": (publication(1), publication(2), 1, True),
    "a version that replaces one with another interface": (publication(1), publication(2, width=5), 1, True),
}


@pytest.mark.parametrize("case", CASES)
def test_killed_at_any_moment_the_repository_is_whole(case: str, in_memory: Path) -> None:
    repository = in_memory
    before, after, version, replace = CASES[case]
    factors: set[float | None] = set()

    def prepare() -> None:
        shutil.rmtree(repository.parent, ignore_errors=True)
        repository.mkdir(parents=True)
        if before is not None:
            published(repository, before)

    def inspect(moment: int) -> None:
        assert faults(repository) == [], f"killed before act {moment}"
        versions = sorted(repository.glob("scaled/[0-9]*"))
        factors.add(factor_of(versions[-1]) if versions else None)
        published(repository, after, version=version, replace=True)
        assert faults(repository) == left_over(repository) == []

    moments = killed_at_every_step(
        prepare, lambda: published(repository, after, version=version, replace=replace), inspect
    )

    assert moments > 20
    assert factors == {None if before is None else 1.0, 2.0}  # some deaths came before the swap, some after it


def test_killed_at_any_moment_on_a_volume_of_its_own_every_version_is_whole(mounted: Path) -> None:
    """There a new model's folder has to appear before its version: what a version holds is whole all the same."""

    def prepare() -> None:
        shutil.rmtree(mounted / "scaled", ignore_errors=True)

    def inspect(moment: int) -> None:
        unfinished = {"scaled has no version", "scaled has no config.pbtxt"}
        assert set(faults(mounted)) <= unfinished, f"killed before act {moment}"
        if list(mounted.glob("scaled/[0-9]*")):
            assert faults(mounted) == []
        published(mounted, publication(2), version=1, replace=True)
        assert faults(mounted) == [] == list(mounted.rglob(".convkit*"))

    assert killed_at_every_step(prepare, lambda: published(mounted, publication(2)), inspect) > 20


def test_killed_at_any_moment_a_pending_version_is_taken_away_whole_or_stays_whole(in_memory: Path) -> None:
    repository = in_memory
    pending = repository / "scaled" / "pending" / "2"

    def prepare() -> None:
        shutil.rmtree(repository.parent, ignore_errors=True)
        published(repository, publication(1))
        published(repository, publication(2, pending=True))

    def act() -> None:
        with locked(repository):
            discard_pending(pending)

    def inspect(moment: int) -> None:
        assert not pending.exists() or {path.name for path in pending.iterdir()} >= {"model.onnx", "manifest.json"}
        published(repository, publication(3))
        assert faults(repository) == left_over(repository) == []

    assert killed_at_every_step(prepare, act, inspect) > 5
    assert not pending.parent.exists()


# Two at once, and a server that looks on


def test_two_publications_at_once_follow_one_another(repository: Path) -> None:
    code = f"""
from pathlib import Path
from triton_server.client import infer
from triton_server.server import TritonServer
from serving.publications import publication, published
for number in range(10):
    published(Path({str(repository)!r}), publication(number + 1))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    runs = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(2)]

    assert [run.wait(60) for run in runs] == [0, 0]
    assert next_version(repository, "scaled") == 21
    assert faults(repository) == left_over(repository) == []


def test_whoever_holds_the_lock_is_waited_for(repository: Path) -> None:
    with locked(repository):
        waiting = threading.Thread(target=lambda: published(repository, publication(1)))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        assert not (repository / "scaled").exists()
    waiting.join(60)

    assert (repository / "scaled" / "1").is_dir()


@pytest.mark.triton
def test_a_polling_server_reloads_once_for_each_publication_and_never_sees_half_of_one(repository: Path) -> None:
    published(repository, publication(1))
    with TritonServer(repository, model_control="poll", poll_seconds=1) as server:
        for version, (what, width) in {2: (publication(2, instances=2), 3), 3: (publication(3, width=5), 5)}.items():
            published(repository, what, replace=True)
            server.wait_until_ready("scaled", version)
            answer = infer(server, "http", "scaled", {"x": np.ones((1, width), np.float32)})
            assert answer["y"].tolist() == [[float(version)] * width]
        loads = server.log().count("loading: scaled:")
        errors = [line for line in server.log().splitlines() if line.startswith("E") and "scaled" in line]

    assert (loads, errors) == (3, [])


def test_what_an_engine_was_built_from_is_not_prepared_again(tmp_path: Path) -> None:
    """As `convkit build` leaves it: the pending files below convkit/, the model's own files where they belong."""
    prepared = publication(2.0, pending=True)
    config = prepared.config
    assert config is not None
    inputs: dict[str, Path | bytes] = {**prepared.files, "model/config.pbtxt": config}
    pending = msgspec.structs.replace(
        prepared,
        files=inputs,
        manifest=write_manifest(files=inputs, beside={}, options={}, sources={}, versions={}),
    )
    made: dict[str, Path | bytes] = {"model.plan": b"plan"}
    made |= {f"convkit/{name}": content for name, content in prepared.files.items()}
    built = msgspec.structs.replace(
        prepared,
        files=made,
        beside={},
        manifest=write_manifest(files=made, beside={"config.pbtxt": config}, options={}, sources={}, versions={}),
        pending=False,
    )
    published(tmp_path, built, version=1)

    found = find_unchanged(tmp_path, pending, None)

    assert found is not None
    assert (found.version, found.records) == (1, tmp_path / "scaled" / "1" / "convkit")
    (tmp_path / "scaled" / "1" / "convkit" / "model.onnx").write_bytes(b"damaged")
    assert find_unchanged(tmp_path, pending, None) is None
