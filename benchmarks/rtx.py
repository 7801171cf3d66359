"""`convkit convert --to tensorrt-rtx` against TensorRT-RTX's own parser and builder, ResNet50 from an ONNX file.

    python rtx.py [--runs 5] [--output FILE.json]
    python rtx.py --network resnet50 --network resnet152 --network bert      how the difference grows
    python rtx.py --set 'tensorrt-rtx.compute_capabilities=["8.9"]'          with an option of the command's

Needs the extras `torch` (to make the model) and `tensorrt-rtx`; no GPU. Every run is a fresh process with a fresh cache
and a fresh repository; the sides alternate, and change places in every other round. README.md says how to read it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import watch
from convert import machine, show, spread
from rtx_side import NETWORKS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SIDES = ("builder", "proof", "convkit")
IMPORTS = (
    (
        *("convkit.cli.app", "convkit.cli.convert", "convkit.conversion", "typer._adapters"),
        *("convkit.sources.onnx", "convkit.targets.tensorrt"),
    ),
    (
        *("convkit.pipeline.worker", "numpy", "onnx", "onnxruntime", "convkit.sources.onnx", "convkit.graph.simplify"),
        *("convkit.graph.shape_inputs", "convkit.targets.trt_profiles", "convkit.measure.compare"),
        *("convkit.targets.trt_preflight", "convkit.targets.rtx_layout"),
    ),
    ("convkit.pipeline.worker", "tensorrt_rtx", "convkit.targets.trt_build"),
)
"""What each of convkit's three processes imports: the command, the worker for ONNX, the worker for TensorRT-RTX.

typer's module brings pydantic, which typer reads options with.
"""
ASKED = 1.1

Run = dict[str, Any]
Round = dict[str, dict[str, float]]


class Task(NamedTuple):
    """What is built: the model, the command's further options, and the folder with what convkit has recorded of it."""

    model: Path
    options: tuple[str, ...]
    recorded: Path


def run_convkit(task: Task, folder: Path) -> Run:
    """Run the command in `folder`, which holds its cache and repository."""
    argv = [*(sys.executable, "-m", "convkit", "convert", str(task.model), "--to", "tensorrt-rtx"), "--measure", "none"]
    return spawned([*argv, *task.options, "-o", str(folder / "models"), "--json"], folder)


def run_side(side: str, task: Task, folder: Path) -> Run:
    """Run a side of rtx_side.py."""
    (folder / "out").mkdir()
    paths = map(str, (task.model, folder / "out", task.recorded))
    return spawned([sys.executable, str(HERE / "rtx_side.py"), side, *paths], folder)


def record(task: Task) -> None:
    """Convert once, and keep what convkit says that the engine was built from."""
    with tempfile.TemporaryDirectory(prefix="rtx-") as name:
        run_convkit(task, Path(name))
        shutil.copytree(Path(name, "models", task.model.stem, "1", "convkit"), task.recorded)


def spawned(argv: list[str], folder: Path) -> Run:
    """Run a command; return its wall and processor seconds, and the JSON that it printed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CONVKIT_")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else every process compiles again what it imports
    environment |= {"CONVKIT_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    os.sync()  # what the last run left to be written is not this one's
    usage = watch.run(
        argv, cwd=folder, environment=environment, output=folder / "stdout", log=folder / "stderr", interval_s=0
    )
    said, log = ((folder / stream).read_text(errors="replace") for stream in ("stdout", "stderr"))
    if usage.exit_status:
        sys.exit(f"exit status {usage.exit_status}: {' '.join(argv)}\n{said[-2000:]}\n{log[-4000:]}")
    return {"wall_s": usage.wall_s, "cpu_s": usage.cpu_s, "said": json.loads(said)}


def one_round(task: Task, *, forwards: bool) -> dict[str, Run]:
    """Run every side once, then convkit again in the folder that it has just left."""
    runs: dict[str, Run] = {}
    for side in SIDES if forwards else reversed(SIDES):
        with tempfile.TemporaryDirectory(prefix="rtx-") as name:
            folder = Path(name)
            runs[side] = run_convkit(task, folder) if side == "convkit" else run_side(side, task, folder)
            if side == "convkit":
                time.sleep(2.5)  # the file system vouches for a file from its second second on
                run_convkit(task, folder)
                runs["again"] = run_convkit(task, folder)
                if runs["again"]["said"]["status"] != "unchanged":
                    sys.exit(f"the same again was {runs['again']['said']['status']}")
    with tempfile.TemporaryDirectory(prefix="rtx-") as name:
        apart = [
            spawned([sys.executable, str(HERE / "rtx_side.py"), "imports", *names], Path(name)) for names in IMPORTS
        ]
    command, *workers = apart
    runs["imports"] = {
        "wall_s": command["wall_s"] + max(each["wall_s"] for each in workers),  # the workers start side by side
        "cpu_s": sum(each["cpu_s"] for each in apart),
    }
    runs["command's imports"] = {key: command[key] for key in ("wall_s", "cpu_s")}
    return runs


def total(run: Run, *parts: str) -> dict[str, float]:
    """Return the seconds of some parts of a run of rtx_side.py."""
    return {key: sum(run["said"][part][key] for part in parts) for key in ("wall_s", "cpu_s")}


def figures(runs: dict[str, Run]) -> Round:
    """Return one round's rows: name, then wall and processor seconds."""
    called = total(runs["builder"], "parse", "build", "write")
    proven = {
        key: value - total(runs["proof"], "import")[key]
        for key, value in total(runs["proof"], *runs["proof"]["said"]).items()
    }
    chain = total(runs["proof"], "read", "parse", "build", "write, with digests")
    least = {"wall_s": max(chain["wall_s"], proven["cpu_s"] / 2), "cpu_s": proven["cpu_s"]}
    whole = {key: runs["convkit"][key] - runs["imports"][key] for key in ("wall_s", "cpu_s")}
    stages = runs["convkit"]["said"]["stages"]
    compiling = sum(stage["seconds"] for stage in stages if stage["name"] == "compile" and not stage["cached"])
    bare = {key: runs["builder"][key] for key in ("wall_s", "cpu_s")}
    return {
        "parser and builder": called,
        "the same, checked and written": proven,
        "that, were it split between two cores": least,
        "convkit, its imports taken off": whole,
        "of which: the stage compile": {"wall_s": compiling},
        "imports of its three processes": {key: runs["imports"][key] for key in ("wall_s", "cpu_s")},
        "convkit, as a user waits for it": {key: runs["convkit"][key] for key in ("wall_s", "cpu_s")},
        "parser and builder, their process": bare,
        "the same again (unchanged)": {key: runs["again"][key] for key in ("wall_s", "cpu_s")},
        "of which: the command's imports": runs["command's imports"],
        "of which: the rest": {key: runs["again"][key] - runs["command's imports"][key] for key in ("wall_s", "cpu_s")},
    }


RATIOS = (
    ("convkit / parser and builder", "convkit, its imports taken off", "parser and builder"),
    ("stage compile / parser and builder", "of which: the stage compile", "parser and builder"),
    ("two cores at the least / parser and builder", "that, were it split between two cores", "parser and builder"),
    ("convkit / the same, checked and written", "convkit, its imports taken off", "the same, checked and written"),
    ("process / process, with all imports", "convkit, as a user waits for it", "parser and builder, their process"),
)


def by_stage(run: Run) -> dict[str, float]:
    """Return the seconds that convkit's report has for each of its steps, those of one title added up."""
    seconds: dict[str, float] = {}
    for stage in run["said"]["stages"]:
        if not stage["cached"]:
            seconds[stage["title"]] = seconds.get(stage["title"], 0.0) + stage["seconds"]
    return seconds


def show_stages(rounds: list[dict[str, float]]) -> None:
    """Print what convkit says that its steps took; of what runs side by side each has its own time."""
    rows = [["convkit's step", "s"]]
    rows += [[title, spread([each.get(title, 0.0) for each in rounds], 2)] for title in rounds[0]]
    show(rows)


def report(rounds: list[Round], digest_s: float) -> None:
    """Print the table and the ratios, round by round."""
    rows = [["", "wall s", "CPU s"]]
    for name in rounds[0]:
        rows.append([name, *(_cell(rounds, name, key) for key in ("wall_s", "cpu_s"))])
    for title, upper, lower in RATIOS:
        cells = []
        for key in ("wall_s", "cpu_s"):
            if key not in rounds[0][upper]:
                cells.append("")
                continue
            by_round = [each[upper][key] / each[lower][key] for each in rounds]
            cells.append(f"{median(by_round):.2f} ({min(by_round):.2f}–{max(by_round):.2f})")
        rows.append([title, *cells])
    show(rows)
    print(f"\nSHA-256 of the model's file alone: {digest_s:.3f} s. Asked of the first ratio: at most {ASKED}.")


def _cell(rounds: list[Round], name: str, key: str) -> str:
    return spread([each[name][key] for each in rounds], 2) if key in rounds[0][name] else ""


def growth(found: dict[str, tuple[int, list[Round]]]) -> None:
    """Print how what convkit adds to parser and builder grows with the model."""
    rows = [["", "MB", "parser and builder s", "convkit s", "difference s", "ratio", "two cores at the least"]]
    for name, (size, rounds) in found.items():
        bare, whole, least = (
            [each[row]["wall_s"] for each in rounds]
            for row in ("parser and builder", "convkit, its imports taken off", "that, were it split between two cores")
        )
        added = [theirs - ours for theirs, ours in zip(whole, bare, strict=True)]
        ratios = ([upper / lower for upper, lower in zip(each, bare, strict=True)] for each in (whole, least))
        rows.append([name, f"{size / 1e6:.0f}", *(spread(each, 2) for each in (bare, whole, added, *ratios))])
    show(rows)


def made(name: str, folder: Path) -> Path:
    """Return a network of `rtx_side.py` as a file."""
    model = folder / f"{name}.onnx"
    argv = [sys.executable, str(HERE / "rtx_side.py"), "make", str(model), name]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return model


def measured(name: str, options: tuple[str, ...], runs: int) -> tuple[int, list[Round], list[dict[str, float]]]:
    """Measure one network, and print what came of it; returns its bytes, its rounds and convkit's steps."""
    with tempfile.TemporaryDirectory(prefix="model-") as folder:
        task = Task(made(name, Path(folder)), options, Path(folder, "recorded"))
        started = time.perf_counter()
        hashlib.sha256(task.model.read_bytes())
        digest_s = time.perf_counter() - started
        size = task.model.stat().st_size
        record(task)
        one_round(task, forwards=True)  # fills the page cache, writes the libraries' bytecode; does not count
        found = [one_round(task, forwards=number % 2 == 0) for number in range(runs)]
    rounds, steps = [figures(each) for each in found], [by_stage(each["convkit"]) for each in found]
    print(f"{name}, {size / 1e6:.0f} MB {' '.join(options)}\n")
    report(rounds, digest_s)
    print()
    show_stages(steps)
    print(flush=True)
    return size, rounds, steps


def main() -> None:
    """Parse the command line, run, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description="Measure convkit convert --to tensorrt-rtx against the bare builder.")
    parser.add_argument("--runs", type=int, default=5, help="rounds (5)")
    parser.add_argument(
        "--network", action="append", choices=NETWORKS, help="another than resnet50; several: repeat it"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an option of the command's")
    parser.add_argument("--output", type=Path, help="JSON file for every single round")
    options = parser.parse_args()
    here = machine()
    print(f"{here['cpu']}, {here['cores']} cores, load {here['load_at_start']:.1f}; commit {here['commit']}\n")
    asked = tuple(part for each in options.set for part in ("--set", each))
    found = {name: measured(name, asked, options.runs) for name in options.network or ["resnet50"]}
    if len(found) > 1:
        growth({name: (size, rounds) for name, (size, rounds, _) in found.items()})
    if options.output:
        networks = {
            name: {"bytes": size, "rounds": rounds, "steps": steps} for name, (size, rounds, steps) in found.items()
        }
        options.output.write_text(json.dumps({"machine": here, "networks": networks}, indent=1) + "\n")


if __name__ == "__main__":
    main()
