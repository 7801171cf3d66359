"""convkit's calibration against ONNX Runtime's calibrators: wall time and peak memory, in alternation.

    python calibrate.py [--runs 5] [--samples 32] [--sides convkit minmax entropy] [--output FILE.json]
    python calibrate.py --memory [--samples 8 512]      # convkit's peak memory, entropy, by the number of samples

The model is ResNet50 with random weights, the data smooth random images of 224 x 224. Every run is a fresh process.
The time is that of collecting and choosing the ranges of every tensor: not of imports, which all sides share.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import watch
from convert import HERE, ROOT, machine, show, spread

SIDES = ("convkit", "minmax", "entropy")
Run = dict[str, Any]


def run_once(side: str, method: str, model: Path, data: Path, samples: int) -> Run:
    """Calibrate once in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="calibrate-") as name:
        folder = Path(name)
        command = [sys.executable, str(HERE / "calibrate_side.py"), side, str(model), str(data)]
        usage = watch.run(
            [*command, "--samples", str(samples), "--method", method, "--scratch", str(folder)],
            cwd=ROOT,
            environment={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
            output=folder / "stdout",
            log=folder / "stderr",
            interval_s=0,
        )
        if usage.exit_status:
            sys.exit(
                f"{side}: exit status {usage.exit_status}\n{(folder / 'stderr').read_text(errors='replace')[-4000:]}"
            )
        return asdict(usage) | json.loads((folder / "stdout").read_text())


def compare(model: Path, data: Path, options: argparse.Namespace) -> dict[str, list[Run]]:
    """Run the sides in alternation and in changing order, after one round that does not count; print the table."""
    samples = options.samples[0] if options.samples else 32
    runs: dict[str, list[Run]] = {side: [] for side in options.sides}
    for index in range(-1, options.runs):
        for side in options.sides if index % 2 == 0 else reversed(options.sides):
            method = "minmax" if side == "convkit" else side
            run = run_once(side, method, model, data, samples)
            print(f"{side}: {run['seconds']:.2f} s, {run['largest_rss_mb']:.0f} MB", file=sys.stderr)
            if index >= 0:
                runs[side].append(run)
    ours = runs["convkit"]
    rows = [
        [
            "",
            "calibration, s",
            "convkit / it",
            "largest RSS, MB",
            "convkit / it",
            "wall s of the process",
            "CPU s of it",
        ]
    ]
    for side, done in runs.items():
        row = [side]
        for figure, digits in (("seconds", 2), ("largest_rss_mb", 0)):
            by_pair = [a[figure] / b[figure] for a, b in zip(ours, done, strict=True)]
            row += [spread([run[figure] for run in done], digits), spread(by_pair, 2) if done is not ours else ""]
        rows.append([*row, *(spread([run[figure] for run in done], 2) for figure in ("wall_s", "cpu_s"))])
    show(rows)
    return runs


def memory(model: Path, data: Path, options: argparse.Namespace) -> dict[str, list[Run]]:
    """Run convkit's entropy calibration with few and with many samples; print the table."""
    few, many = options.samples or (8, 512)
    runs: dict[str, list[Run]] = {str(few): [], str(many): []}
    for _ in range(options.runs):
        for samples, done in runs.items():
            done.append(run_once("convkit", "entropy", model, data, int(samples)))
            print(f"{samples} samples: {done[-1]['largest_rss_mb']:.0f} MB", file=sys.stderr)
    peaks = {samples: [run["largest_rss_mb"] for run in done] for samples, done in runs.items()}
    show([["samples", "largest RSS, MB"], *([samples, spread(values, 0)] for samples, values in peaks.items())])
    by_pair = [b / a for a, b in zip(*peaks.values(), strict=True)]
    print(f"\n{many} samples / {few} samples: {spread(by_pair, 3)}")
    return runs


def main() -> None:
    """Parse the command line, run, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description="Measure calibration.")
    parser.add_argument("--runs", type=int, default=5, help="of each side (5)")
    parser.add_argument("--samples", type=int, nargs="+", help="how many (32); with --memory few and many (8 512)")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=("convkit", "minmax"))
    parser.add_argument("--memory", action="store_true", help="compare convkit with itself on more samples")
    parser.add_argument("--output", type=Path, help="JSON file for every single run")
    options = parser.parse_args()
    if "convkit" not in options.sides:
        parser.error("--sides without convkit compare nothing")
    here = machine()
    with tempfile.TemporaryDirectory(prefix="calibrate-") as folder:
        model, data = Path(folder, "model"), Path(folder, "data")
        most = max(options.samples or ((8, 512) if options.memory else (32,)))
        make = [sys.executable, str(HERE / "calibrate_side.py"), "make", str(model), str(data), "--samples", str(most)]
        subprocess.run(
            make, check=True, stdout=subprocess.DEVNULL
        )  # a process of its own, that torch stays out of this
        print(f"{here['cpu']}, {here['cores']} cores, load {here['load_at_start']:.2f}, convkit at {here['commit']}")
        print(f"onnxruntime {here['libraries']['onnxruntime']}, median (range) of {options.runs} alternating runs\n")
        runs = (memory if options.memory else compare)(model, data, options)
    if options.output:
        options.output.write_text(json.dumps({"machine": here, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
