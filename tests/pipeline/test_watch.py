"""A worker that takes more memory or time than it may is ended, with all that it has started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from nobody import as_nobody, needs_root, open_to_all

from convkit.errors import ExitStatus, MissingError, StepError
from convkit.pipeline.cache import Cache
from convkit.pipeline.removal import remove_tree
from convkit.pipeline.runner import Runner
from convkit.pipeline.watch import Limits, limits_from
from convkit.spec.options import LimitOptions
from pipeline.control_groups import JOIN, control_group
from pipeline.greedy_steps import (
    close_folders,
    dawdle,
    leave_a_daemon,
    map_file,
    share_memory,
    take_memory,
    take_memory_in_a_daemon,
)
from pipeline.steps import write_text
from pipeline.test_runner import NoWorker, wait_until_gone

MB = 10**6


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def limited(memory: str | None = None, time: str | None = None) -> Limits:
    return limits_from(LimitOptions(memory=memory, time=time))


def running(cache: Cache, limits: Limits) -> Runner:
    return Runner(cache, lambda event: None, limits=limits)


def test_a_worker_that_takes_too_much_memory_is_told_with_the_figures(cache: Cache) -> None:
    with running(cache, limited("200MB")) as run, pytest.raises(MissingError) as failed:
        run(take_memory, megabytes=2000)

    error = failed.value
    assert (error.code, error.stage, error.exit_status) == ("worker.memory-limit", "quantize", ExitStatus.MISSING)
    assert error.message.startswith("Take memory: the worker was ended because it ran out of memory")
    assert "the limit is 191 MiB: as --memory-limit says" in error.message
    assert "--memory-limit" in error.hint


def test_what_is_finished_is_remembered_and_the_next_run_goes_on_from_there(cache: Cache) -> None:
    with running(cache, limited("100MB")) as run:
        run(write_text, "done")
        with pytest.raises(MissingError):
            run(take_memory, megabytes=300)
    with running(cache, limited("2GB")) as run:
        run(write_text, "done")
        run(take_memory, megabytes=300)

    assert [stage.cached for stage in run.stages] == [True, False]
    assert not [path for path in (cache.root / "scratch").iterdir() if path.is_dir()]


def test_a_daemon_that_a_step_has_started_counts_and_is_ended_with_the_worker(cache: Cache, tmp_path: Path) -> None:
    told = tmp_path / "daemon"
    with running(cache, limited("300MB")) as run, pytest.raises(MissingError, match="ran out of memory"):
        run(take_memory_in_a_daemon, megabytes=600, told=str(told))

    assert wait_until_gone(int(told.read_text()))


def test_a_daemon_that_a_step_has_left_ends_with_the_run(cache: Cache, tmp_path: Path) -> None:
    told = tmp_path / "daemon"
    with running(cache, limited()) as run:
        run(leave_a_daemon, told=str(told))

    assert wait_until_gone(int(told.read_text()))


def test_memory_that_processes_share_counts_once(cache: Cache) -> None:
    with running(cache, limited("500MB")) as run:
        assert run(share_memory, megabytes=200, processes=4, seconds=0.5) == 200 * MB


def test_a_mapped_file_takes_no_memory(cache: Cache, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as stream:
        stream.truncate(300 * MB)

    with running(cache, limited("150MB")) as run:
        assert run(map_file, path=str(large), seconds=0.5) == 300 * MB // 4096 + 1


def test_a_step_that_takes_too_long_is_told_with_the_limit_and_its_last_words(cache: Cache) -> None:
    with running(cache, limited(time="2s")) as run, pytest.raises(StepError) as failed:
        run(dawdle, seconds=60.0)

    assert (failed.value.code, failed.value.exit_status) == ("worker.time-limit", ExitStatus.STEP_FAILED)
    assert failed.value.message.startswith("Dawdle: the worker was ended after 2 s")
    assert "what it was doing" in failed.value.message
    assert "--time-limit" in failed.value.hint


def test_each_step_has_the_time_for_itself(cache: Cache) -> None:
    with running(cache, limited(time="5s")) as run:
        run(dawdle, seconds=2.6)
        run(dawdle, seconds=2.7)


def test_limits_change_no_key(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(cache, limited("1GB", "10m")) as run:
        run(write_text, "done")
    monkeypatch.setattr("convkit.pipeline.runner.Worker", NoWorker)

    with running(cache, limited()) as run:
        run(write_text, "done")


def test_runs_side_by_side_share_what_there_is() -> None:
    alone, third = limits_from(LimitOptions()), limits_from(LimitOptions(), share=3)

    assert third.memory_bytes == alone.memory_bytes // 3
    assert "3 conversions at a time share the rest (--jobs)" in third.memory_from
    assert limits_from(LimitOptions(memory="1GB"), share=3).memory_bytes == 10**9


@pytest.fixture
def memory_group() -> Iterator[Path]:
    limit = str(400 * MB)
    with control_group(version_1=("memory", "memory.limit_in_bytes", limit), version_2=("memory.max", limit)) as group:
        yield group


IN_GROUP = f"""{JOIN}
import json
from convkit.errors import ConvkitError
from convkit.pipeline.cache import Cache
from convkit.pipeline.runner import Runner
from pipeline import greedy_steps
with Runner(Cache(Path(sys.argv[2])), lambda event: None) as run:
    run(greedy_steps.take_memory, megabytes=100)
    try:
        run(getattr(greedy_steps, sys.argv[3]), megabytes=2000)
    except ConvkitError as error:
        print(json.dumps([error.code, error.message]))
"""


def overrun(group: Path, cache: Path, step: str) -> tuple[str, str]:
    """What a run in the group, one of whose steps takes more than the group has, is told: code and message."""
    ended = subprocess.run(
        [sys.executable, "-c", IN_GROUP, str(group), str(cache), step],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    code, message = json.loads(ended.stdout)
    return code, message


def test_a_containers_limit_is_kept_before_the_kernel_does_it(memory_group: Path, tmp_path: Path) -> None:
    code, message = overrun(memory_group, tmp_path / "cache", "take_memory")

    assert code == "worker.memory-limit"
    assert f"the control group /{memory_group.name} has 381 MiB" in message
    assert wait_until_empty(memory_group)


def test_where_the_kernel_is_quicker_it_ends_the_worker_and_the_run_lives_on(
    memory_group: Path, tmp_path: Path
) -> None:
    code, message = overrun(memory_group, tmp_path / "cache", "take_memory_at_once")

    assert code in ("worker.out-of-memory", "worker.memory-limit")
    assert message.startswith("Take memory at once")
    assert wait_until_empty(memory_group)


def wait_until_empty(group: Path) -> bool:
    deadline = time.monotonic() + 30
    while (processes := (group / "cgroup.procs").read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not processes


def test_the_peak_of_a_step_is_that_steps_alone_also_where_writing_is_confined(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CONVKIT_ISOLATION")
    with running(cache, limited()) as run:
        run(take_memory, megabytes=200)
        run(take_memory, megabytes=0)

    large, small = (stage.peak_bytes for stage in run.stages)
    assert large > 200 * MB > 2 * small > 0


@needs_root
def test_scratch_space_is_removed_whatever_a_step_has_done_to_it(tmp_path: Path) -> None:
    open_to_all(tmp_path)
    cache = tmp_path / "closed"
    cache.mkdir()
    cache.chmod(0o777)

    def run_as_another() -> None:
        from convkit.pipeline import artifact

        scratch, _ = Cache(cache).new_scratch()
        artifact.use_scratch(scratch)
        close_folders()
        remove_tree(scratch)

    assert as_nobody(run_as_another) is None
    assert [path for path in (cache / "scratch").iterdir() if path.is_dir()] == []


def test_a_worker_goes_before_its_runner_where_the_kernel_has_to_choose(cache: Cache) -> None:
    with running(cache, limited()) as run:
        process = run(write_text, "x").process
        assert int(Path(f"/proc/{process}/oom_score_adj").read_text()) >= 500
