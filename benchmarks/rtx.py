"""`convkit convert --to tensorrt-rtx` against TensorRT-RTX's own parser and builder, ResNet50 from an ONNX file.

    python rtx.py [--runs 5] [--output FILE.json]

Needs the extras `torch` (to make the model) and `tensorrt-rtx`; no GPU. Every run is a fresh process with a fresh cache
and a fresh repository; the sides alternate, and change places in every other round. README.md says how to read it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import watch
from convert import machine, show, spread

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SIDES = ("builder", "proof", "convkit")
IMPORTS = (
    ("convkit.cli.app", "convkit.cli.convert", "convkit.conversion"),
    ("convkit.pipeline.worker", "numpy", "onnx", "onnxruntime"),
    ("convkit.pipeline.worker", "tensorrt_rtx"),
)
"""What each of convkit's three processes imports: the command, the worker for ONNX, the worker for TensorRT-RTX."""
ASKED = 1.1

Run = dict[str, Any]


def run_convkit(model: Path, folder: Path) -> Run:
    """Run the command in `folder`, which holds its cache and repository."""
    argv = [*(sys.executable, "-m", "convkit", "convert", str(model), "--to", "tensorrt-rtx"), "--measure", "none"]
    return spawned([*argv, "-o", str(folder / "models"), "--json"], folder)


def run_side(side: str, model: Path, folder: Path) -> Run:
    """Run a side of rtx_side.py."""
    (folder / "out").mkdir()
    return spawned([sys.executable, str(HERE / "rtx_side.py"), side, str(model), str(folder / "out")], folder)


def spawned(argv: list[str], folder: Path) -> Run:
    """Run a command; return its wall and processor seconds, and the JSON that it printed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CONVKIT_")}
    environment |= {"CONVKIT_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    os.sync()  # what the last run left to be written is not this one's
    usage = watch.run(
        argv, cwd=folder, environment=environment, output=folder / "stdout", log=folder / "stderr", interval_s=0
    )
    said, log = ((folder / stream).read_text(errors="replace") for stream in ("stdout", "stderr"))
    if usage.exit_status:
        sys.exit(f"exit status {usage.exit_status}: {' '.join(argv)}\n{said[-2000:]}\n{log[-4000:]}")
    return {"wall_s": usage.wall_s, "cpu_s": usage.cpu_s, "said": json.loads(said)}


def one_round(model: Path, *, forwards: bool) -> dict[str, Run]:
    """Run every side once, then convkit again in the folder that it has just left."""
    runs: dict[str, Run] = {}
    for side in SIDES if forwards else reversed(SIDES):
        with tempfile.TemporaryDirectory(prefix="rtx-") as name:
            folder = Path(name)
            runs[side] = run_convkit(model, folder) if side == "convkit" else run_side(side, model, folder)
            if side == "convkit":
                time.sleep(2.5)  # the file system vouches for a file from its second second on
                run_convkit(model, folder)
                runs["again"] = run_convkit(model, folder)
                if runs["again"]["said"]["status"] != "unchanged":
                    sys.exit(f"the same again was {runs['again']['said']['status']}")
    with tempfile.TemporaryDirectory(prefix="rtx-") as name:
        apart = [
            spawned([sys.executable, str(HERE / "rtx_side.py"), "imports", *names], Path(name)) for names in IMPORTS
        ]
    runs["imports"] = {key: sum(each[key] for each in apart) for key in ("wall_s", "cpu_s")}
    runs["command's imports"] = {key: apart[0][key] for key in ("wall_s", "cpu_s")}
    return runs


def total(run: Run, *parts: str) -> dict[str, float]:
    """Return the seconds of some parts of a run of rtx_side.py."""
    return {key: sum(run["said"][part][key] for part in parts) for key in ("wall_s", "cpu_s")}


def figures(runs: dict[str, Run]) -> dict[str, dict[str, float]]:
    """Return one round's rows: name, then wall and processor seconds."""
    called = total(runs["builder"], "parse", "build", "write")
    proven = {
        key: value - total(runs["proof"], "import")[key]
        for key, value in total(runs["proof"], *runs["proof"]["said"]).items()
    }
    whole = {key: runs["convkit"][key] - runs["imports"][key] for key in ("wall_s", "cpu_s")}
    stages = runs["convkit"]["said"]["stages"]
    compiling = sum(stage["seconds"] for stage in stages if stage["name"] == "compile" and not stage["cached"])
    bare = {key: runs["builder"][key] for key in ("wall_s", "cpu_s")}
    return {
        "parser and builder": called,
        "the same, checked and written": proven,
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


def report(rounds: list[dict[str, dict[str, float]]], digest_s: float) -> None:
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


def _cell(rounds: list[dict[str, dict[str, float]]], name: str, key: str) -> str:
    return spread([each[name][key] for each in rounds], 2) if key in rounds[0][name] else ""


def main() -> None:
    """Parse the command line, run, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description="Measure convkit convert --to tensorrt-rtx against the bare builder.")
    parser.add_argument("--runs", type=int, default=5, help="rounds (5)")
    parser.add_argument("--output", type=Path, help="JSON file for every single round")
    options = parser.parse_args()
    here = machine()
    print(f"{here['cpu']}, {here['cores']} cores, load {here['load_at_start']:.1f}; commit {here['commit']}\n")
    with tempfile.TemporaryDirectory(prefix="model-") as name:
        model = Path(name) / "resnet50.onnx"
        made = subprocess.run(
            [sys.executable, str(HERE / "rtx_side.py"), "make", str(model)], check=False, capture_output=True, text=True
        )
        if made.returncode:
            sys.exit(made.stderr)
        started = time.perf_counter()
        hashlib.sha256(model.read_bytes())
        digest_s = time.perf_counter() - started
        one_round(model, forwards=True)  # fills the page cache, writes the libraries' bytecode; does not count
        runs = [one_round(model, forwards=number % 2 == 0) for number in range(options.runs)]
    rounds, steps = [figures(each) for each in runs], [by_stage(each["convkit"]) for each in runs]
    report(rounds, digest_s)
    print()
    show_stages(steps)
    if options.output:
        options.output.write_text(json.dumps({"machine": here, "rounds": rounds, "steps": steps}, indent=1) + "\n")


if __name__ == "__main__":
    main()
