"""How often convkit's verdict on speed is right on this machine.

    python verdicts.py [--times 100] [--neighbour-times 10] [--mode full] [--output FILE.json]

Three questions, each asked again and again with `convkit.measure.latency`, in worker processes, as a conversion does:

same        a network against itself, in two sessions: "no difference" is right
planted     a network against itself made 3 % slower by waiting in each call: "slower" is right
neighbour   a network against itself, beside processes that take every core for a moment at random: "inconclusive" is
            right

Exit status 1 where the verdicts miss what convkit sets itself. An idle machine is wanted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from convert import machine, show

HERE = Path(__file__).parent
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))

from verdict_side import time_network, write_network  # noqa: E402

from convkit.measure.latency import PLANS, measure_latency  # noqa: E402
from convkit.pipeline.cache import Cache  # noqa: E402
from convkit.pipeline.events import nobody  # noqa: E402
from convkit.pipeline.runner import Contender, Runner  # noqa: E402
from convkit.report.speeds import Speeds  # noqa: E402
from convkit.spec.options import MeasureMode  # noqa: E402

WANTED = {"same": ("no difference", 0.99), "planted": ("slower", 0.95), "neighbour": ("inconclusive", 0.95)}
BUSY = """
import random, sys, time
while True:
    until = time.perf_counter() + random.expovariate(1 / 0.4)
    while time.perf_counter() < until:
        pass
    time.sleep(random.expovariate(1 / 0.4))
"""


@contextlib.contextmanager
def neighbours(number: int) -> Iterator[None]:
    """Let so many processes take a core each, half of the time, in pieces of random length."""
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(number)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def ask(run: Runner, network: Path, question: str, mode: MeasureMode) -> dict[str, Any]:
    """Ask once; returns the verdict, the interval, and the seconds it took."""
    seconds = PLANS[mode].seconds
    where = {"path": str(network), "seconds": seconds}
    sides = {
        "before": Contender(time_network, **where, session=0),
        "after": Contender(time_network, **where, session=1, slower=0.03 if question == "planted" else 0.0),
    }
    again = ("before", Contender(time_network, **where, session=2))
    began = time.perf_counter()
    measurement = measure_latency(run, sides, mode, again=again, fresh=True)
    seconds = time.perf_counter() - began
    speeds = Speeds(measurement, final="after", mode=mode)
    [found] = speeds.comparisons
    interval = f"{found.low:.4f} to {found.high:.4f}"
    waited = (found.before_waited, found.after_waited)
    told = f"{found.finding.value}, {interval}, {found.rounds} rounds, {seconds:.1f} s"
    print(f"{question}: {told}, waited {' and '.join(map(_percent, waited))}", file=sys.stderr)
    return {
        "verdict": found.finding.value,
        "speedup": found.speedup,
        "interval": [found.low, found.high],
        "self": [speeds.self_check.low, speeds.self_check.high] if speeds.self_check else None,
        "waited": waited,
        "rounds": found.rounds,
        "seconds": seconds,
    }


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.2g} %"


def main() -> None:
    """Parse the command line, ask, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description="Measure how often convkit's verdict on speed is right.")
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--neighbour-times", type=int, default=10)
    parser.add_argument("--mode", choices=["quick", "full"], default="full")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    mode, here = MeasureMode(options.mode), machine()
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        network = Path(scratch) / "network.onnx"
        write_network(network)
        with Runner(Cache(Path(scratch) / "cache"), nobody) as run:
            for question in ("same", "planted"):
                found[question] = [ask(run, network, question, mode) for _ in range(options.times)]
            with neighbours(os.cpu_count() or 1):
                times = range(options.neighbour_times)
                found["neighbour"] = [ask(run, network, "neighbour", mode) for _ in times]
    rows, missed = [["question", "times", "verdicts", "rounds", "longest"]], False
    for question, answers in found.items():
        verdicts = Counter(answer["verdict"] for answer in answers)
        said = ", ".join(f"{verdict} {count}" for verdict, count in verdicts.most_common())
        rounds = sorted(answer["rounds"] for answer in answers)
        longest = max((answer["seconds"] for answer in answers), default=0.0)
        rows.append([question, str(len(answers)), said, f"{rounds[0]} to {rounds[-1]}", f"{longest:.1f} s"])
        verdict, share = WANTED[question]
        missed |= verdicts[verdict] < share * len(answers)
    show(rows)
    if options.output:
        options.output.write_text(json.dumps({"machine": here, "answers": found}, indent=2))
    sys.exit(missed)


if __name__ == "__main__":
    main()
