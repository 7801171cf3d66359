"""How long a process waited for a processor is read from Linux's accounts, and is unknown where there are none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from convkit.pipeline.run_queue import Look, Turn, between, look

TRIES = 5
BESIDE_ANOTHER = """
import json, os, subprocess, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from convkit.measure.waiting import waited
from convkit.pipeline.stopwatch import time_calls

busy = "print(flush=True)\\nwhile True: pass"
neighbour = subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE)
try:
    neighbour.stdout.readline()
    timing = time_calls(lambda: sum(range(10_000)), 0.5)
finally:
    neighbour.kill()
    neighbour.wait()
json.dump(waited([timing]), sys.stdout)
"""


def accounts(root: Path, threads: dict[str, str], *, stat: str) -> Path:
    """Write a `/proc` with these threads' accounts."""
    for name, text in threads.items():
        (root / "self/task" / name).mkdir(parents=True)
        (root / "self/task" / name / "schedstat").write_text(text)
    (root / "stat").write_text(stat)
    return root


def of_processors(ticks: str) -> str:
    """Return a `/proc/stat` in which the first processor that may be used has these ticks, and all others none."""
    first = min(os.sched_getaffinity(0))
    return f"cpu  9999 9999\ncpu{first} {ticks}\nintr 7 8\nctxt 9\n"


linux = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the accounts are Linux's")


@linux
def test_waiting_is_told_by_thread_and_busy_processors_in_nanoseconds(tmp_path: Path) -> None:
    # user, nice, system, idle, for disks, interrupts, more of them, stolen, guests (which are users already)
    stat = of_processors("1 2 4 1000 2000 8 16 4000 8000 8000")
    found = look(accounts(tmp_path, {"7": "500 40 3\n", "8": "0 2 1\n"}, stat=stat))

    assert found is not None
    assert found.waited_ns == {"7": 40, "8": 2}
    assert found.busy_ns == 31 * 10**9 // os.sysconf("SC_CLK_TCK")


@linux
def test_a_thread_that_ended_while_it_was_read_is_left_out(tmp_path: Path) -> None:
    root = accounts(tmp_path, {"7": "500 40 3\n"}, stat=of_processors("1"))
    (root / "self/task/8").mkdir()

    found = look(root)

    assert found is not None
    assert found.waited_ns == {"7": 40}


@pytest.mark.parametrize(
    ("threads", "stat"),
    [({}, "cpu0 1 2\n"), ({"7": "0 0 0\n"}, "cpu0 1 2\n"), ({"7": "5 4 1\n"}, "cpu0 ? ?\n")],
    ids=["none", "a kernel that keeps none", "not to be read"],
)
def test_without_accounts_nothing_is_known(tmp_path: Path, threads: dict[str, str], stat: str) -> None:
    stat = stat.replace("cpu0", f"cpu{min(os.sched_getaffinity(0))}") if hasattr(os, "sched_getaffinity") else stat

    assert look(tmp_path / "nowhere") is None
    assert look(accounts(tmp_path, threads, stat=stat)) is None


def test_a_turn_is_what_was_added_by_threads_that_were_there_and_new_ones() -> None:
    before = Look(at_ns=1000, ran_ns=100, waited_ns={"1": 50, "2": 60}, busy_ns=7000)
    after = Look(at_ns=2000, ran_ns=500, waited_ns={"1": 55, "3": 4}, busy_ns=8000)

    assert between(before, after) == Turn(wall_ns=1000, ran_ns=400, waited_ns=9, others_ns=600)
    assert between(None, after) is None
    assert between(before, None) is None


@pytest.mark.skipif(look() is None, reason="this system keeps no account of waiting")
def test_timed_calls_on_a_core_that_a_busy_process_shares_are_seen_to_wait() -> None:
    found = []
    for _ in range(TRIES):
        done = subprocess.run(
            [sys.executable, "-c", BESIDE_ANOTHER], capture_output=True, text=True, check=True, timeout=300
        )
        found.append(json.loads(done.stdout))
        if found[-1] >= 0.2:
            return
    pytest.fail(f"a half is to be expected, and found was {found}")
