"""`make zoo`: every class, two worker processes, a line for each in docs/zoo.md; ends with 1 below 95 of 100."""

from __future__ import annotations

import argparse
import os
import queue
import random
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import msgspec

from zoo.classes import class_names
from zoo.convert import Outcome
from zoo.page import WANTED, share, write_page

LIMIT = 300.0
"""Seconds for one class, after which its worker is ended."""


def main() -> int:
    """Run what the arguments ask for, and say how it ended."""
    parser = argparse.ArgumentParser(prog="make zoo", description=__doc__)
    parser.add_argument("names", nargs="*", help="classes; by default all of them")
    parser.add_argument("--sample", type=int, help="only so many, drawn at random")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--results", type=Path, help="a file of outcomes: what stands there is not run again")
    parser.add_argument(
        "--again", default="", help="of what stands there, which verdicts to run again: refused,crashed"
    )
    parser.add_argument("--write", type=Path, help="write the table here")
    given = parser.parse_args()
    every = given.names or class_names()
    names = random.Random(0).sample(every, k=len(every))[: given.sample]
    done = {each.name: each for each in _read(given.results)}
    again = set(given.again.split(","))
    waiting: queue.Queue[str] = queue.Queue()
    for name in names:
        if name not in done or done[name].verdict in again:
            waiting.put(name)
    threads = [threading.Thread(target=_work, args=(waiting, done, given.results)) for _ in range(given.workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outcomes = [done[name] for name in sorted(names)]
    if given.write is not None:
        write_page(given.write, outcomes, of=len(every))
    found = share(outcomes)
    print(f"{found:.1%} of {sum(each.verdict != 'not tiny' for each in outcomes)} classes were converted")
    return int(found < WANTED)


def _read(path: Path | None) -> list[Outcome]:
    if path is None or not path.is_file():
        return []
    return [msgspec.json.decode(line, type=Outcome) for line in path.read_bytes().splitlines()]


def _work(waiting: queue.Queue[str], done: dict[str, Outcome], results: Path | None) -> None:
    """Feed one worker process after the other: a new one where the last has died."""
    with tempfile.TemporaryDirectory() as folder:
        worker = None
        while True:
            try:
                name = waiting.get_nowait()
            except queue.Empty:
                break
            if worker is None or worker.poll() is not None:
                worker = _start(Path(folder))
            outcome = done[name] = _asked(worker, name)
            if results is not None:
                with results.open("ab") as stream:
                    stream.write(msgspec.json.encode(outcome) + b"\n")
            print(
                f"{outcome.verdict:10} {name} {outcome.seconds:.0f} s  {outcome.stage} {outcome.message[:200]}",
                flush=True,
            )
        if worker is not None and worker.stdin is not None:
            worker.stdin.close()
            worker.wait()


def _start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "zoo.convert", str(folder / "work")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def _asked(worker: subprocess.Popen[str], name: str) -> Outcome:
    assert worker.stdin is not None
    assert worker.stdout is not None
    watch = threading.Timer(LIMIT, worker.kill)
    watch.start()
    try:
        worker.stdin.write(f"{name}\n")
        worker.stdin.flush()
        for line in worker.stdout:
            if line.startswith("OUTCOME "):
                return msgspec.json.decode(line.removeprefix("OUTCOME "), type=Outcome)
    except BrokenPipeError:
        pass
    finally:
        watch.cancel()
    return Outcome(name=name, verdict="crashed", stage="the process", message=f"it died, or took more than {LIMIT:g} s")


if __name__ == "__main__":
    sys.exit(main())
