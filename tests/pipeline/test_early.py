"""The first part of a step, asked for by itself, is done once, and counts where the whole is."""

from __future__ import annotations

from pathlib import Path

import pytest

from convkit.errors import InputError
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import Event, StepFinished, StepStarted, Warned, nobody
from convkit.pipeline.runner import DryRunEnded, Runner
from convkit.pipeline.watch import Limits
from pipeline.early_steps import ENVIRONMENT, PART_S, first_part, whole

AMPLE = Limits(memory_bytes=1 << 40, memory_from="for a test")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def told(cache: Cache, *, early: bool) -> list[str]:
    """What is told of the whole step."""
    events: list[Event] = []
    with Runner(cache, events.append, limits=AMPLE) as run:
        if early:
            run.before(whole, lambda: run.ahead(first_part, name="it"))
        run(whole, name="it")
    titles = {StepStarted: "begins", StepFinished: "ends"}
    return [
        event.message if isinstance(event, Warned) else f"{event.title} {titles[type(event)]}"
        for event in events
        if isinstance(event, Warned | StepStarted | StepFinished)
    ]


def test_the_part_is_taken_up_once(cache: Cache) -> None:
    with Runner(cache, nobody, limits=AMPLE) as run:
        part = run.ahead(first_part, name="it")
        assert run(whole, name="it") == (part, 0)
        assert run(whole, name="it", rest=1)[0] not in (None, part)


def test_its_warnings_are_told_with_the_whole_and_remembered_with_it(tmp_path: Path) -> None:
    for early in (True, False):
        cache = Cache(tmp_path / str(early))
        expected = ["Do it all begins", "it is old", "the rest is old, too", "Do it all ends"]
        assert told(cache, early=early) == expected
        assert sorted(told(cache, early=early)) == sorted(expected)  # remembered


def test_its_seconds_and_memory_are_the_wholes(cache: Cache) -> None:
    with Runner(cache, nobody, limits=AMPLE) as run:
        run.ahead(first_part, name="it")
        run(whole, name="it")
        run(whole, name="another", rest=1)
        [taken_up, alone] = run.stages

    assert taken_up.seconds >= PART_S
    assert alone.seconds >= PART_S
    assert min(taken_up.peak_bytes, alone.peak_bytes) > 1 << 20


def test_another_worker_does_it_again(cache: Cache) -> None:
    with Runner(cache, nobody, limits=AMPLE) as run:
        part = run.ahead(first_part, name="it")
        run.end_worker(ENVIRONMENT)
        done, _ = run(whole, name="it")

    assert part is not None
    assert done.split()[0] != part.split()[0]


def test_a_part_that_fails_is_told_as_the_whole(cache: Cache) -> None:
    with Runner(cache, nobody, limits=AMPLE) as run:
        run.before(whole, lambda: run.ahead(first_part, name="refused"))
        with pytest.raises(InputError, match="the thing is refused") as failed:
            run(whole, name="refused")

    assert (failed.value.code, failed.value.stage) == ("test.refused", "source")


def test_what_comes_before_a_step_is_done_where_that_has_to_run_and_nowhere_else(cache: Cache) -> None:
    done: list[str] = []
    with Runner(cache, nobody, limits=AMPLE, dry=True) as run:
        run.before(whole, lambda: done.append("in a dry run"))
        with pytest.raises(DryRunEnded):
            run(whole, name="it")
    for time in ("first", "second"):
        with Runner(cache, nobody, limits=AMPLE) as run:
            run.before(whole, lambda time=time: done.append(time))  # type: ignore[misc]
            run(whole, name="it")
            run(whole, name="it", rest=1)

    assert done == ["first"]
