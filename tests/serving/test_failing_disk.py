"""Every file-system call of a publication fails in turn: it is killed there, gets EIO or ENOSPC, or does half.

After each, the repository is, byte for byte, as it was before or as it should be, and both of these load; what is
raised says what to do; and the same publication once more ends right, with nothing left over.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
import onnxruntime
import pytest
from e2e.networks import write_affine
from serving.publications import faults, publication, published
from serving.system_calls import Ended, How, fail_at, supervised

from convkit.building_engine import Finished
from convkit.building_publish import publish_engine
from convkit.building_work import find_models, find_tasks
from convkit.conversion import convert
from convkit.pipeline.artifact import gather
from convkit.pipeline.cache import Cache
from convkit.report.document import Report, read_report
from convkit.request import make_request
from convkit.serving import in_place, put
from convkit.serving.holding import locked
from convkit.serving.layout import strangers
from convkit.serving.publish import Publication, find_unchanged, publish
from convkit.serving.triton_model import same_interface
from convkit.targets.build_plan import BuildPlan, read_build_plan
from convkit.targets.cuda_driver import Gpu
from convkit.targets.here import Here
from convkit.targets.trt_api import Flavour
from convkit.targets.trt_build import Engine

pytestmark = supervised

ALL = tuple(How)
NOT_KILLED = (How.ENOSPC, How.FULL, How.SHORT)
LONG = (How.KILLED, How.FULL, How.EIO)
MISSING = 6


@pytest.fixture
def repository(in_memory: Path) -> Path:
    return in_memory


class Trial:
    """A publication, what stands before it, and what shall stand after it."""

    def __init__(
        self,
        repository: Path,
        prepare: Callable[[], None],
        act: Callable[[], object],
        again: Callable[[], object] | None = None,
    ) -> None:
        self.repository = repository
        self.work = repository.parent
        self.act = act
        self.again = again or act
        repository.mkdir(parents=True)
        prepare()
        self.before = contents(repository)
        self.kept = self.work.with_name("before")
        shutil.copytree(self.work, self.kept)
        act()
        self.after = contents(repository)
        assert self.before != self.after

    def restore(self) -> None:
        shutil.rmtree(self.work)
        shutil.copytree(self.kept, self.work)

    def fail(self, how: How, inspect: Callable[[Ended], None]) -> dict[str, int]:
        """Let every call fail, one in each run, and inspect what each run leaves; count the calls by their names."""
        calls: dict[str, int] = {}
        for moment in range(1, 2000):
            self.restore()
            ended = fail_at(moment, how, self.act)
            if ended.call is None:
                assert ended.raised is None
                assert contents(self.repository) == self.after
                return calls
            calls[ended.call] = calls.get(ended.call, 0) + 1
            try:
                inspect(ended)
                self.again()
                assert contents(self.repository) == self.after
                assert [path.name for path in self.work.iterdir()] == [self.repository.name], "something is left over"
            except AssertionError as error:
                error.add_note(f"{how.value}: call number {moment}, {ended.call}: {ended.raised}")
                raise
        raise AssertionError("it never ends")


def contents(repository: Path) -> dict[str, bytes | None]:
    """Everything in a repository, but for the folders in which a version is made."""
    return {
        str(path.relative_to(repository)): path.read_bytes() if path.is_file() else None
        for path in repository.rglob("*")
        if not any(part.startswith(in_place.STAGING) for part in path.parts)
    }


def without_empty(found: dict[str, bytes | None]) -> dict[str, bytes | None]:
    """Leave out an empty folder in which versions that are still to be built would lie: no reader looks there."""
    inhabited = any(name.startswith("scaled/pending/") for name in found)
    return {name: data for name, data in found.items() if inhabited or name != "scaled/pending"}


def load_all(repository: Path) -> None:
    """Hold configurations, manifests and warm-up data against the files, and open every version as a server does."""
    assert faults(repository) == []
    for file in repository.glob("*/[0-9]*/*.onnx"):
        onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


class Case(NamedTuple):
    """One kind of publication."""

    before: Publication | None
    after: Publication
    version: int | None = None
    replace: bool = False
    disk: str = "any"
    hows: tuple[How, ...] = ALL


WITH_EIO = {
    "a new version": Case(publication(1), publication(2)),
    "a new version with another configuration": Case(publication(1), publication(2, instances=2)),
    "a version that replaces one with another interface": Case(publication(1), publication(2, width=5), 1, True),
}
WITHOUT_EIO = {
    "an engine still to be built": Case(
        publication(1), publication(2, instances=2, pending=True), hows=(How.KILLED, *NOT_KILLED)
    ),
    "a first version": Case(None, publication(2), hows=(How.KILLED, *NOT_KILLED)),
    "a version that replaces another": Case(publication(1), publication(2), 1, True, hows=(How.KILLED, *NOT_KILLED)),
    "a first engine still to be built": Case(None, publication(2, pending=True), hows=(How.KILLED, *NOT_KILLED)),
    "another configuration where nothing can be swapped": Case(
        publication(1), publication(2, instances=2), disk="swaps nothing", hows=NOT_KILLED
    ),
    "another interface where nothing can be swapped": Case(
        publication(1), publication(2, width=5), 1, True, disk="swaps nothing", hows=NOT_KILLED
    ),
    "a first version on a volume of its own": Case(None, publication(2), disk="its own volume", hows=NOT_KILLED),
    "another configuration on a volume of its own": Case(
        publication(1), publication(2, instances=2), disk="its own volume", hows=NOT_KILLED
    ),
}
CASES = {**WITH_EIO, **WITHOUT_EIO}
IN_TEST = [(name, how) for name, case in CASES.items() for how in case.hows]
IN_SOAK = [pytest.param(name, How.EIO, marks=pytest.mark.soak) for name in WITHOUT_EIO]


@pytest.mark.parametrize(("name", "how"), [*IN_TEST, *IN_SOAK])
def test_whatever_call_fails_the_repository_is_whole_and_a_rerun_ends_right(
    name: str, how: How, repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    case = CASES[name]
    trial = trial_of(case, repository, tmp_path, monkeypatch)
    load_all(trial.work / "models")
    trial.restore()
    load_all(trial.work / "models")

    def inspect(ended: Ended) -> None:
        now = contents(repository)
        if how is How.KILLED:
            assert without_empty(now) in (without_empty(trial.before), without_empty(trial.after))
        elif ended.raised is None:
            assert now == trial.after
        else:
            assert (ended.raised.status, bool(ended.raised.hint)) == (MISSING, True)
            assert ended.raised.code == ("repository.failed" if how is How.EIO else "repository.disk-full")
            assert now == trial.before, "what failed has changed something"

    calls = trial.fail(how, inspect)

    assert how is How.SHORT or {"mkdir", "write", "openat"} <= set(calls)
    assert how in (How.SHORT, How.FULL) or ("fsync" in calls and {"rename", "renameat2"} & set(calls))


def trial_of(case: Case, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trial:
    if case.disk == "swaps nothing":
        monkeypatch.setattr(put, "exchange", lambda one, other: False)
    elif case.disk == "its own volume":  # then the folder around it is no place to stage in
        monkeypatch.setattr(in_place.os, "access", lambda path, mode: False)
    model = tmp_path / "model.onnx"
    model.write_bytes(case.after.files["model.onnx"])  # type: ignore[arg-type]
    what = msgspec.structs.replace(case.after, files={"model.onnx": model})  # as from the cache

    def prepare() -> None:
        if case.before is not None:
            published(repository, case.before)

    def act() -> None:
        with locked(repository):
            strangers(repository)
            if find_unchanged(repository, what, case.version) is None:
                same = same_interface(repository / what.name, what.config)
                publish(repository, what, version=case.version, replace=case.replace, same_interface=same)

    return Trial(repository, prepare, act)


# `convkit build`

HERE = Here(gpu=Gpu(name="NVIDIA Fake", compute_capability="8.9", cuda="13.2"), tensorrt="11.4.0.106")


@pytest.fixture
def build(repository: Path, tmp_path: Path) -> Trial:
    """The publication of an engine over a live version, as `convkit build` does it once the engine is there."""
    pending = repository / "live" / "pending" / "2"
    engines: list[Engine] = []

    def prepare() -> None:
        source = write_affine(tmp_path / "live.onnx", scale=1)
        for target in ("onnxruntime", "tensorrt"):
            asked = {"model": str(source), "output": str(repository), "to": target, "measure": {"mode": "none"}}
            convert(make_request(asked, environment={}), cache=Cache(tmp_path / "cache"))
        engines.append(fake_engine(tmp_path / "engine", read_build_plan(pending / "build.json")))
        reports.append(read_report((pending / "report.json").read_bytes(), where="report.json"))

    reports: list[Report] = []
    run: Any = SimpleNamespace(account=lambda *_: contextlib.nullcontext())

    def act() -> None:
        _, models = find_models(repository / "live")
        [task] = find_tasks(models, repository, everything=False)
        made = None if task.standing(HERE) else Finished(engines[0], reports[0], False)
        publish_engine(run, task, HERE, made, None)

    def again() -> None:
        if pending.exists():
            act()
        else:  # nothing to be built: what the killed one has left is cleared away by the next publication
            with locked(repository):
                pass

    return Trial(repository, prepare, act, again)


def fake_engine(folder: Path, plan: BuildPlan) -> Engine:
    folder.mkdir()
    (folder / "model.plan").write_bytes(b"an engine")
    return Engine(
        files=gather(folder), flavour=Flavour.TENSORRT, version="11.4", compute_capabilities=("8.9",),
        gpu=HERE.gpu,
        layers=3, profiles=plan.profiles, options=plan.options,
    )  # fmt: skip


@pytest.mark.parametrize("how", [How.ENOSPC, How.SHORT, *(pytest.param(how, marks=pytest.mark.soak) for how in LONG)])
def test_whatever_call_of_a_build_fails_engine_and_pending_folder_are_whole(
    how: How, repository: Path, build: Trial
) -> None:
    trial = build
    pending = {name: data for name, data in trial.before.items() if "pending" in name}
    between = {**trial.after, **pending}  # the engine is published, what it was built from is not yet taken away
    gone = {**trial.after, "live/pending": None}

    def inspect(ended: Ended) -> None:
        now = contents(repository)
        assert now in (trial.before, between, gone, trial.after)
        if ended.raised is not None:
            assert (ended.raised.status, bool(ended.raised.hint)) == (MISSING, True)
            assert now in (trial.before, between)
        elif how is not How.KILLED:
            assert now in (gone, trial.after)
        if now == gone:
            (repository / "live" / "pending").rmdir()

    calls = trial.fail(how, inspect)

    assert how is How.SHORT or {"mkdir", "write", "openat"} <= set(calls)
