"""Steps run once: what is remembered is not run again, what is damaged is, and a failure says what happened."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from convkit.errors import InputError, MissingError, StepError
from convkit.pipeline import cache as cache_module
from convkit.pipeline import runner as runner_module
from convkit.pipeline.artifact import gather
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import Event, StepFinished, StepProgress, StepStarted, Warned
from convkit.pipeline.runner import Contender, DryRunEnded, Runner
from pipeline.steps import (
    call_exit,
    die,
    double_text,
    fill_the_disk,
    leave,
    leave_a_child,
    measure,
    overrun,
    read_changing_file,
    read_file,
    refuse,
    stumble,
    talk,
    write_text,
)

WITH_STEPS = {**os.environ, "CONVKIT_ISOLATION": "off", "PYTHONPATH": str(Path(__file__).parents[1])}


class NoWorker:
    """Stands in for a worker where none may be started."""

    def __init__(self, *args: object) -> None:
        raise AssertionError("a worker was started")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@contextlib.contextmanager
def no_worker() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner_module, "Worker", NoWorker)
        yield


def cached(run: Runner) -> list[bool]:
    return [stage.cached for stage in run.stages]


def process_is_there(number: int) -> bool:
    """Whether a process runs; a zombie has ended."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(number: int) -> bool:
    deadline = time.monotonic() + 30
    while process_is_there(number) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not process_is_there(number)


def test_a_rerun_starts_no_worker_and_repeats_the_warnings(cache: Cache) -> None:
    first: list[Event] = []
    with Runner(cache, first.append) as run:
        made = run(double_text, run(write_text, "abc"))
    again: list[Event] = []
    with no_worker(), Runner(cache, again.append) as run:
        assert run(double_text, run(write_text, "abc")) == made
        assert cached(run) == [True, True]

    assert made.files.file().read_text() == "abcabc"
    assert [event for event in first if isinstance(event, Warned)] == [
        event for event in again if isinstance(event, Warned)
    ]
    assert list((cache.root / "scratch").glob("[0-9]*")) == []


def test_events_tell_the_steps_course_in_order(cache: Cache) -> None:
    events: list[Event] = []
    with Runner(cache, events.append) as run:
        run(write_text, "abc")

    assert [type(event) for event in events] == [StepStarted, Warned, StepProgress, StepFinished]
    assert events[2] == StepProgress(done=1, total=2, text="letters")
    finished = events[3]
    assert isinstance(finished, StepFinished)
    assert not finished.cached
    assert finished.peak_bytes > 1 << 20


def test_one_changed_option_runs_again_only_what_follows_from_it(cache: Cache) -> None:
    with Runner(cache, lambda event: None) as run:
        run(double_text, run(write_text, "abc"))
    with Runner(cache, lambda event: None) as run:
        run(double_text, run(write_text, "abc"), times=3)
        assert cached(run) == [True, False]
    with Runner(cache, lambda event: None) as run:
        run(double_text, run(write_text, "xyz"), times=3)
        assert cached(run) == [False, False]


def test_a_result_that_came_out_the_same_ends_the_rerunning(cache: Cache, tmp_path: Path) -> None:
    """The key holds the content of what went in, not how it came about."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file.txt").write_text("same", encoding="utf-8")
    with Runner(cache, lambda event: None) as run:
        run(read_file, gather(tmp_path / "one"))
        assert run(read_file, gather(tmp_path / "two")) == "same"
        assert cached(run) == [False, True]


def test_steps_of_one_environment_share_one_process_which_ends_with_the_run(cache: Cache) -> None:
    with Runner(cache, lambda event: None) as run:
        one, two = run(write_text, "abc"), run(write_text, "xyz")
        assert process_is_there(one.process)

    assert one.process == two.process
    assert not process_is_there(one.process)


@pytest.mark.parametrize("damage", ["cut short", "garbled", "emptied", "with another result"])
def test_a_damaged_entry_is_made_again(damage: str, cache: Cache) -> None:
    with Runner(cache, lambda event: None) as run:
        made = run(write_text, "abc")
    [entry] = [path for path in (cache.root / "entries").rglob("*") if path.is_file()]
    whole = entry.read_bytes()
    entry.write_bytes(
        {
            "cut short": whole[:-9],
            "garbled": whole.replace(b'"', b"\xff", 1),
            "emptied": b"",
            "with another result": whole.replace(str(made.process).encode(), b"1"),
        }[damage]
    )
    assert entry.read_bytes() != whole

    with Runner(cache, lambda event: None) as run:
        assert run(write_text, "abc").files == made.files
        assert cached(run) == [False]
    with no_worker(), Runner(cache, lambda event: None) as run:
        run(write_text, "abc")


@pytest.mark.parametrize("damage", ["removed", "cut short", "a bit turned", "a folder"])
def test_a_damaged_artifact_is_made_again(damage: str, cache: Cache) -> None:
    with Runner(cache, lambda event: None) as run:
        file = run(write_text, "abc").files.file()
    if damage == "cut short":
        file.write_text("ab", encoding="utf-8")
    elif damage == "a bit turned":
        file.write_text("abb", encoding="utf-8")
    else:
        file.unlink()
    if damage == "a folder":
        file.mkdir()

    with Runner(Cache(cache.root), lambda event: None) as run:
        again = run(write_text, "abc").files.file()
        assert cached(run) == [False]

    assert again == file
    assert again.read_text() == "abc"


def test_a_source_that_changes_while_it_is_read_is_told_and_not_remembered(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file.txt").write_text("before", encoding="utf-8")

    with Runner(cache, lambda event: None) as run, pytest.raises(InputError, match="has changed while it was read"):
        run(read_changing_file, gather(tmp_path / "source"))

    assert [path for path in (cache.root / "entries").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGSEGV, "SIGSEGV"), (signal.SIGTERM, "SIGTERM"), (40, "a real-time signal")]
)
def test_a_worker_killed_by_a_signal_is_told_with_its_last_words(number: int, name: str, cache: Cache) -> None:
    with Runner(cache, lambda event: None) as run, pytest.raises(StepError) as failed:
        run(die, number=int(number))

    assert f"was killed by signal {int(number)} ({name})" in failed.value.message
    assert "the last words of the worker" in failed.value.message
    assert (failed.value.code, failed.value.stage) == ("worker.died", "compile")


def test_a_worker_killed_for_memory_is_told_as_that(cache: Cache) -> None:
    with Runner(cache, lambda event: None) as run, pytest.raises(StepError) as failed:
        run(die, number=int(signal.SIGKILL))

    assert "SIGKILL" in failed.value.message
    assert "out of memory" in failed.value.hint
    assert failed.value.code == "worker.out-of-memory"


def test_a_worker_that_crashes_in_native_code_is_told(cache: Cache) -> None:
    with Runner(cache, lambda event: None) as run, pytest.raises(StepError, match="SIGSEGV"):
        run(overrun)


def test_a_worker_that_ends_by_itself_is_told_with_its_status(cache: Cache) -> None:
    with Runner(cache, lambda event: None) as run, pytest.raises(StepError, match="ended by itself with status 7") as e:
        run(leave, status=7)

    assert "the last words of the worker" in e.value.message


def test_a_library_that_calls_exit_does_not_end_convkit(cache: Cache) -> None:
    with Runner(cache, lambda event: None) as run, pytest.raises(StepError, match="a library thought that it may"):
        run(call_exit)


def test_a_worker_that_ends_is_noticed_though_its_children_live_on(cache: Cache) -> None:
    with Runner(cache, lambda event: None) as run, pytest.raises(StepError, match="ended by itself with status 9"):
        run(leave_a_child, status=9)


def test_an_unexpected_exception_becomes_a_step_error_that_names_the_step_and_its_log(cache: Cache) -> None:
    with Runner(cache, lambda event: None) as run, pytest.raises(StepError) as failed:
        run(stumble, text="over\n   two lines")

    assert failed.value.message == r"Stumble: KeyError: 'over\n two lines'"
    assert (failed.value.code, failed.value.stage) == ("step.failed", "quantize")
    [log] = (cache.root / "logs").iterdir()
    assert str(log) in failed.value.hint
    assert "Traceback" in log.read_text()


def test_a_steps_own_error_crosses_the_pipe_whole(cache: Cache) -> None:
    with Runner(cache, lambda event: None) as run, pytest.raises(InputError) as failed:
        run(refuse)

    error = failed.value
    assert (error.message, error.hint, error.code) == ("the thing is refused", "bring another", "test.refused")
    assert error.stage == "quantize"


def test_a_failed_step_is_not_remembered_and_its_worker_goes_on(cache: Cache) -> None:
    with Runner(cache, lambda event: None) as run:
        for _ in range(2):
            with pytest.raises(InputError):
                run(refuse)
        run(write_text, "abc")
        assert [stage.title for stage in run.stages] == ["Write text"]


def test_a_full_disk_is_something_missing_here(cache: Cache) -> None:
    with Runner(cache, lambda event: None) as run, pytest.raises(MissingError, match="no space left in") as failed:
        run(fill_the_disk)

    assert failed.value.code == "cache.disk-full"


def test_a_disk_that_is_full_when_the_result_is_kept_is_something_missing_here(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module, "write_atomically", full)
    with Runner(cache, lambda event: None) as run, pytest.raises(MissingError, match="no space left in"):
        run(write_text, "abc")


def test_what_a_step_prints_goes_into_the_log_alone(cache: Cache, capfd: pytest.CaptureFixture[str]) -> None:
    with Runner(cache, lambda event: None) as run:
        assert run(talk, lines=300) == 300

    assert capfd.readouterr() == ("", "")
    [log] = (cache.root / "logs").iterdir()
    assert all(text in log.read_text() for text in ("print 299", "descriptor 1", "descriptor 2", "a child's output"))


def test_contenders_take_turns_and_the_first_round_does_not_count(cache: Cache, tmp_path: Path) -> None:
    log = tmp_path / "log"
    contenders = [Contender(measure, name=name, log=str(log)) for name in ("a", "bb")]
    with Runner(cache, lambda event: None) as run:
        results = run.alternate(contenders, rounds=3, title="Measure")
    with no_worker(), Runner(cache, lambda event: None) as run:
        assert run.alternate(contenders, rounds=3, title="Measure") == results

    assert results == [[1, 1, 1], [2, 2, 2]]
    assert log.read_text() == "bba" + "abb" + "bba" + "abb"


def test_a_dry_run_stops_at_the_first_step_that_would_run(cache: Cache) -> None:
    with Runner(cache, lambda event: None) as run:
        run(write_text, "abc")
    with no_worker(), Runner(cache, lambda event: None, dry=True) as run:
        written = run(write_text, "abc")
        with pytest.raises(DryRunEnded, match="Double text"):
            run(double_text, written)


def start_waiting_run(root: Path, ready: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start a process of its own that runs a step which never ends; returns it and its worker's number."""
    code = f"""
from pathlib import Path
from convkit.pipeline.cache import Cache
from convkit.pipeline.runner import Runner
from pipeline.steps import wait
with Runner(Cache(Path({str(root)!r})), lambda event: None) as run:
    run(wait, ready={str(ready)!r})
"""
    process = subprocess.Popen([sys.executable, "-c", code], env=WITH_STEPS, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while (not ready.exists() or not ready.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return process, int(ready.read_text())


def test_a_worker_dies_with_a_runner_that_is_killed_and_the_next_run_clears_away(cache: Cache, tmp_path: Path) -> None:
    process, worker = start_waiting_run(cache.root, tmp_path / "ready")
    process.kill()
    process.wait()

    assert wait_until_gone(worker)
    assert len(list((cache.root / "scratch").glob("[0-9]*"))) == 1
    with Runner(cache, lambda event: None) as run:
        run(write_text, "abc")
    assert list((cache.root / "scratch").glob("[0-9]*")) == []


def test_the_working_files_of_a_living_run_are_left_alone(cache: Cache, tmp_path: Path) -> None:
    process, worker = start_waiting_run(cache.root, tmp_path / "ready")
    try:
        with Runner(cache, lambda event: None) as run:
            run(write_text, "abc")

        assert len(list((cache.root / "scratch").glob("[0-9]*"))) == 1
        assert process_is_there(worker)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
    assert wait_until_gone(worker)
    assert list((cache.root / "scratch").glob("[0-9]*")) == []


def test_old_logs_are_pruned(cache: Cache) -> None:
    for number in range(100):
        log = cache.root / "logs" / f"{number:03}.log"
        log.write_text("old", encoding="utf-8")
        os.utime(log, (number, number))
    with Runner(cache, lambda event: None) as run:
        run(write_text, "abc")

    names = sorted(path.name for path in (cache.root / "logs").iterdir())
    assert len(names) == 61
    assert names[0] == "040.log"


def test_a_cache_that_cannot_be_made_is_told_with_the_variable_that_moves_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")

    with pytest.raises(MissingError, match="cannot be made") as failed:
        Cache(tmp_path / "file" / "cache")

    assert "CONVKIT_CACHE_DIR" in failed.value.hint


def test_an_entry_holds_no_path_of_this_machine(cache: Cache) -> None:
    with Runner(cache, lambda event: None) as run:
        run(double_text, run(write_text, "abc"))
    for entry in (cache.root / "entries").rglob("*"):
        if entry.is_file():
            _, _, body = entry.read_bytes().partition(b"\n")
            json.loads(body)
            assert str(cache.root).encode() not in body


def test_two_runs_at_once_with_one_cache_both_end_well(cache: Cache) -> None:
    code = f"""
from pathlib import Path
from convkit.pipeline.cache import Cache
from convkit.pipeline.runner import Runner
from pipeline.steps import double_text, write_text
for number in range(6):
    with Runner(Cache(Path({str(cache.root)!r})), lambda event: None) as run:
        made = run(double_text, run(write_text, f"text {{number}}"))
        assert made.files.file().read_text() == f"text {{number}}" * 2
"""
    runs = [subprocess.Popen([sys.executable, "-c", code], env=WITH_STEPS) for _ in range(2)]

    assert [run.wait(60) for run in runs] == [0, 0]
