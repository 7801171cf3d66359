"""What begins ahead runs beside what comes before it, and nothing but the time tells."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec
import pytest

from convkit.errors import InputError, StepError
from convkit.pipeline import ahead
from convkit.pipeline import runner as runner_module
from convkit.pipeline.artifact import Artifact
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import Event, StepFinished, nobody
from convkit.pipeline.runner import Runner
from convkit.pipeline.watch import Limits
from pipeline.ahead_steps import die_early, make, measure_alone, refuse_late, tell_time, wait_for

AMPLE = Limits(memory_bytes=1 << 40, memory_from="for a test")


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "cores", lambda: 2)


@pytest.fixture(autouse=True)
def free_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers meet in a folder of the test's."""
    monkeypatch.setenv("CONVKIT_ISOLATION", "off")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def told(cache: Cache, file: Path, *, begin: bool) -> list[Event]:
    """What is told, without seconds and memory, of a step that waits for a file and one that makes it."""
    events: list[Event] = []
    with Runner(cache, events.append, limits=AMPLE) as run:
        if begin:
            run.begin(make, file=str(file))
        waited = run(wait_for, file=str(file))
        assert run(make, file=str(file)) != waited
        assert [stage.cached for stage in run.stages] == [False, False]
    return [
        msgspec.structs.replace(event, seconds=0.0, peak_bytes=0) if isinstance(event, StepFinished) else event
        for event in events
    ]


def test_a_step_that_has_begun_is_at_work_beside_another_and_nothing_that_is_told_says_so(tmp_path: Path) -> None:
    """The first step waits for what the second one makes: in vain, did that not begin ahead."""
    with_it = told(Cache(tmp_path / "one"), tmp_path / "file", begin=True)

    assert told(Cache(tmp_path / "two"), tmp_path / "file", begin=False) == with_it


def test_what_is_remembered_does_not_begin_again(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    with Runner(cache, nobody, limits=AMPLE) as run:
        run.begin(tell_time, name="once")
        first = run(tell_time, name="once")
        assert run(tell_time, name="once") == first

    class NoWorker:
        def __init__(self, *args: object) -> None:
            raise AssertionError("a worker was started")

    monkeypatch.setattr(runner_module, "Worker", NoWorker)
    with Runner(cache, nobody, limits=AMPLE) as run:
        run.begin(tell_time, name="once")
        assert run.ahead(tell_time, name="once") == first
        assert run(tell_time, name="once") == first
        assert [stage.cached for stage in run.stages] == [True]
    with Runner(cache, nobody, limits=AMPLE, dry=True) as run:
        run.begin(tell_time, name="another")
        assert run.ahead(tell_time, name="another") is None


def test_a_failure_is_told_where_the_pipeline_comes_to_it(cache: Cache) -> None:
    with Runner(cache, nobody, limits=AMPLE) as run:
        run.begin(refuse_late)
        assert run.ahead(refuse_late) is None
        run(measure_alone, name="between")
        assert run.warnings == []
        with pytest.raises(InputError, match="the thing is refused") as failed:
            run(refuse_late)
        assert [warning.code for warning in run.warnings] == ["test.late"]

    assert (failed.value.code, failed.value.stage) == ("test.refused", "compile")


def test_a_failure_to_which_the_pipeline_never_comes_is_none(cache: Cache) -> None:
    with Runner(cache, nobody, limits=AMPLE) as run:
        run.begin(refuse_late)
        run(measure_alone, name="between")

    assert run.warnings == []


def test_a_worker_that_dies_ahead_is_told_in_its_place_and_another_takes_the_next_step(cache: Cache) -> None:
    with Runner(cache, nobody, limits=AMPLE) as run:
        assert run.ahead(die_early) is None
        assert run(tell_time, name="after it")
        with pytest.raises(StepError, match="Die early: the tensorrt-rtx worker was killed by signal 9"):
            run(die_early)


def test_what_is_not_asked_for_any_more_ends_with_the_run(cache: Cache, tmp_path: Path) -> None:
    before = children()
    with contextlib.suppress(KeyboardInterrupt), Runner(cache, nobody, limits=AMPLE) as run:
        run.begin(tell_time, name="for ever", seconds=1e6)
        [worker] = children() - before
        (tmp_path / "file").touch()
        run(wait_for, file=str(tmp_path / "file"))
        assert worker in children()
        raise KeyboardInterrupt

    assert children() <= before, "what earlier tests have left may have been waited for meanwhile"
    assert list((cache.root / "scratch").glob("[0-9]*")) == []


def children() -> set[int]:
    """The processes that this one has started and that run."""
    return {int(number) for number in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def test_another_step_of_the_same_environment_waits_for_what_has_begun(cache: Cache) -> None:
    with Runner(cache, nobody, limits=AMPLE) as run:
        run.begin(tell_time, name="first", seconds=0.2)
        second, _ = run(tell_time, name="second")
        _, first_ended = run(tell_time, name="first", seconds=0.2)

    assert first_ended <= second
    assert [warning.message for warning in run.warnings] == ["second", "first"]


def test_a_measurement_waits_until_nothing_else_is_at_work(cache: Cache) -> None:
    with Runner(cache, nobody, limits=AMPLE) as run:
        run.begin(tell_time, name="long", seconds=0.3)
        measured, _ = run(measure_alone, name="alone")
        _, ended = run(tell_time, name="long", seconds=0.3)

    assert ended <= measured


def test_the_time_that_is_waited_for_it_is_made_use_of_once(cache: Cache) -> None:
    done: list[str] = []
    with Runner(cache, nobody, limits=AMPLE) as run:
        run.meanwhile(lambda: done.append("made ready"))
        run(measure_alone, name="between")
        assert done == []
        for name in ("first", "second"):
            run.begin(tell_time, name=name)
            run(tell_time, name=name)

    assert done == ["made ready"]


def test_nothing_begins_ahead_where_there_is_no_room_for_two(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    model = msgspec.to_builtins(Artifact(digest="", bytes=1 << 30, files=()))
    small = Limits(memory_bytes=8 << 30, memory_from="for a test")

    assert ahead.has_room({}, small)
    assert not ahead.has_room({"model": model}, small)
    assert ahead.has_room({"model": model}, AMPLE)
    monkeypatch.setattr(ahead, "cores", lambda: 1)
    assert not ahead.has_room({}, AMPLE)
