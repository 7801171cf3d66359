"""`convkit convert` against the bare libraries: wall time and the whole process tree's peak memory, in alternation.

    python convert.py [--runs 5] [--models resnet50 mobilenetv2 encoder] [--measure none|quick] [--output FILE.json]

Each run is a fresh process with a fresh cache and output folder; the order within a pair alternates. Exit status 1 as
soon as either side fails. README.md says how to read the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import watch

from convkit.measure.latency import PLANS
from convkit.spec.options import MeasureMode

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MODELS = ("resnet50", "mobilenetv2", "encoder")
SIDES = ("bare", "convkit")
LIBRARIES = ("torch", "onnx", "onnxscript", "onnxruntime", "onnxsim", "onnxslim", "tritonclient", "numpy")

PLAN = PLANS[MeasureMode.QUICK]
"""How long convkit measures; bare.py has to measure as long."""

Run = dict[str, Any]


def command(side: str, model: Path, repository: Path, options: argparse.Namespace) -> list[str]:
    """Return the command line that converts `model` into `repository`."""
    if side == "bare":
        script = [sys.executable, str(HERE / "bare.py"), str(model), "-o", str(repository)]
        plan = {name: str(getattr(options, name)) for name in PLAN._fields}
        timing = [word for name, value in plan.items() for word in (f"--{name}", value)]
        return [*script, "--measure", options.measure, *timing, "--check", options.check]
    convkit = [sys.executable, "-m", "convkit", "convert", str(model), "--to", "onnxruntime", "--trust"]
    return [*convkit, "-o", str(repository), "--measure", options.measure, "--quiet", "--json"]


def run_once(side: str, model: Path, options: argparse.Namespace) -> Run:
    """Convert `model` once, in new folders; the process ends with a message where the conversion failed."""
    with tempfile.TemporaryDirectory(prefix=f"{side}-") as name:
        folder = Path(name)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("CONVKIT_")}
        for key in ("SOURCE_MODEL_PATH", "TARGET_MODEL_PATH", "MODEL_NAME", "MODEL_TYPE"):
            environment.pop(key, None)  # convkit takes these for options
        environment["CONVKIT_CACHE_DIR"] = str(folder / "cache")
        argv = command(side, model, folder / "repository", options)
        os.sync()  # what the last run left to be written is not this one's
        usage = watch.run(
            argv,
            cwd=ROOT,
            environment=environment,
            output=folder / "stdout",
            log=folder / "stderr",
            interval_s=options.interval_ms / 1000,
        )
        said, log = ((folder / stream).read_text(errors="replace") for stream in ("stdout", "stderr"))
        written = list((folder / "repository" / model.name).glob("*/model.onnx"))
        if usage.exit_status != 0 or not written:
            wrong = f"exit status {usage.exit_status}" if usage.exit_status else "no model.onnx was written"
            sys.exit(f"{side} on {model.name}: {wrong}\n  {' '.join(argv)}\n{said[-2000:]}\n{log[-4000:]}")
        return asdict(usage) | {"said": json.loads(said)}


def pairs(models: list[Path], options: argparse.Namespace) -> Iterator[tuple[str, str, Run]]:
    """Yield (model, side, run), the sides in alternation and in changing order, model by model within each round."""
    for index in range(options.runs):
        for model in models:
            for side in options.sides if index % 2 == 0 else reversed(options.sides):
                yield model.name, side, run_once(side, model, options)


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, memory, versions, the commit."""
    cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "cpu": cpu.partition(":")[2].strip(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mb": int(memory.split()[1]) * 1024 // 10**6,
        "load_at_start": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "commit": commit.stdout.strip() or None,
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def spread(values: list[float], digits: int) -> str:
    """Return the median and the range."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


FIGURES = (("wall_s", 2), ("cpu_s", 2), ("peak_pss_mb", 0), ("largest_rss_mb", 0))


def table(model: str, runs: dict[str, list[Run]]) -> Iterator[list[str]]:
    """Yield the rows for one model: each side, then convkit divided by bare where both ran."""
    for side, done in runs.items():
        yield [
            model,
            side,
            *(_figure(done, name, digits) for name, digits in FIGURES),
            str(done[0]["processes_at_peak"]),
        ]
    if len(runs) == len(SIDES):
        yield [model, "ratio", *(_ratio(runs, name) for name, _ in FIGURES), ""]


def _figure(runs: list[Run], name: str, digits: int) -> str:
    return spread([run[name] for run in runs], digits) if runs[0][name] is not None else "–"


def _ratio(runs: dict[str, list[Run]], name: str) -> str:
    """Return the medians' ratio, and in brackets the range of the ratios pair by pair."""
    bare, convkit = ([run[name] for run in runs[side]] for side in SIDES)
    if bare[0] is None:
        return "–"
    by_pair = [a / b for a, b in zip(convkit, bare, strict=True)]
    return f"{median(convkit) / median(bare):.2f} ({min(by_pair):.2f}–{max(by_pair):.2f})"


def _phases(side: str, runs: list[Run]) -> str:
    """Return each phase's median seconds: bare.py's phases, the stages of convkit's JSON."""
    by_name: dict[str, list[float]] = {}
    for run in runs:
        said = run["said"]
        phases = said["phases"].items() if side == "bare" else ((stage["name"], stage) for stage in said["stages"])
        for name, phase in phases:
            by_name.setdefault(name, []).append(phase["seconds"])
    return ", ".join(f"{name} {median(seconds):.2f}" for name, seconds in by_name.items())


def show(rows: list[list[str]]) -> None:
    """Print rows as a Markdown table with aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rows.insert(1, ["-" * width for width in widths])
    for row in rows:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")


def main() -> None:
    """Parse the command line, run, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description="Measure convkit convert against the libraries called directly.")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--runs", type=int, default=5, help="of each side and model (5)")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--measure", choices=("none", "quick"), default="quick", help="of latency, on both sides")
    for name, value in PLAN._asdict().items():
        text = f"bare.py's; by default that of convkit's --measure quick ({value:g})"
        parser.add_argument(f"--{name}", type=type(value), default=value, help=text)
    parser.add_argument("--check", choices=("final", "both"), default="final", help="bare.py's")
    parser.add_argument("--interval-ms", type=float, default=50, help="between memory samples; 0 takes none (50)")
    parser.add_argument("--no-warm-up", action="store_true", help="skip the one uncounted run of each side")
    parser.add_argument("--output", type=Path, help="JSON file for every single run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="models-") as folder:
        result = benchmark(Path(folder), options)
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n")


def benchmark(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Write the models into `folder`, run everything, print the table; return every run and the machine."""
    here = machine()
    models = [folder / name for name in options.models]
    for model in models:  # in a process of its own: torch stays out of this one, whose memory children start from
        subprocess.run([sys.executable, str(HERE / "networks.py"), model.name, str(model)], check=True)
    if not options.no_warm_up:  # fills the page cache and writes the libraries' bytecode
        for side in options.sides:
            run_once(side, models[0], options)
    runs: dict[str, dict[str, list[Run]]] = {model.name: {side: [] for side in options.sides} for model in models}
    for name, side, run in pairs(models, options):
        runs[name][side].append(run)
        print(f"{name} {side}: {run['wall_s']:.2f} s, {run['peak_pss_mb'] or 0:.0f} MB", file=sys.stderr)
    report(here, runs, options)
    return {"machine": here, "options": vars(options) | {"output": None}, "runs": runs}


def report(here: dict[str, Any], runs: dict[str, dict[str, list[Run]]], options: argparse.Namespace) -> None:
    """Print the machine, the table, and what the sampling cost."""
    print(f"{here['cpu']}, {here['cores']} cores, {here['memory_mb'] / 1000:.0f} GB, load {here['load_at_start']:.2f}")
    print(f"{here['system']}, Python {here['python']}, convkit at {here['commit']}")
    print(", ".join(f"{name} {number}" for name, number in here["libraries"].items()))
    print(f"median (range) of {options.runs} alternating runs, --measure {options.measure}\n")
    heading = ["model", "", "wall s", "CPU s", "peak PSS of the tree, MB", "largest RSS, MB", "processes at peak"]
    show([heading, *(row for model, sides in runs.items() for row in table(model, sides))])
    print("\nwhere the time went, medians in seconds")
    for model, sides in runs.items():
        for side, done in sides.items():
            print(f"{model}, {side}: {_phases(side, done)}")
    print()
    for side in options.sides:
        done = [run for sides in runs.values() for run in sides[side]]
        spent, wall = sum(run["sampling_s"] for run in done), sum(run["wall_s"] for run in done)
        counts = f"{sum(run['samples'] for run in done)} samples, {sum(run['pss_samples'] for run in done)} with PSS"
        print(f"sampling, {side}: {counts}, {spent:.2f} s in {wall:.1f} s, {spent / wall:.1%} of one core")


if __name__ == "__main__":
    main()
