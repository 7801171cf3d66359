"""convkit's INT8 against other quantizers' on the same networks, samples and runtimes: latency, noise, time, memory.

    python quantize.py [--models resnet50 mobilenetv2 encoder] [--sides ...] [--quark PYTHON] [--output FILE.json]
    python quantize.py --budget      # the accuracy budget against NNCF's accuracy control: quantize_budget.py

Every quantizer runs in a process of its own; then all models run in one process, in alternation, with one thread and
with the runtime's own number. README.md says how to read the table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import quantize_budget
import watch
from convert import HERE, ROOT, machine, show

MODELS = ("resnet50", "mobilenetv2", "encoder")
PEERS = {
    "ort": "convkit",
    "ort-cpu": "convkit",
    "ort-dynamic": "convkit-dynamic",
    "nncf-onnx": "convkit",
    "quark": "convkit",
    "nncf-openvino": "convkit-openvino",
}
"""Other quantizers, and what of convkit's they are compared with: the same runtime, the same kind."""
OURS = tuple(dict.fromkeys(PEERS.values()))
CALIBRATION, HELD_OUT = 32, 16
"""Samples for calibration, and others on which the noise is measured."""
THREADS = {"1 thread": 1, "default threads": 0}
Found = dict[str, Any]


def side(name: str, model: str, folder: Path, options: argparse.Namespace) -> Found:
    """Quantize once in a process of its own, into FOLDER/NAME; or, for the side `make`, write model and data."""
    output = folder / name
    output.mkdir()
    python = options.quark if name == "quark" else sys.executable
    method = ["--method", options.method] if options.method and name.startswith("convkit") else []
    samples = CALIBRATION + HELD_OUT if name == "make" else CALIBRATION
    paths = [str(folder / "fp32.onnx"), str(folder / "data"), str(output)]
    usage = watch.run(
        [
            *(str(python), str(HERE / "quantize_side.py"), name, model, *paths),
            *("--samples", str(samples), "--result", str(output / "result.json"), *method),
        ],
        cwd=output,
        environment={"PATH": "/usr/bin:/bin", "PYTHONPATH": "" if name == "quark" else str(ROOT)},
        output=output / "stdout",
        log=output / "stderr",
        interval_s=0.02,
    )
    if usage.exit_status:
        sys.exit(f"{name} on {model}: {(output / 'stderr').read_text(errors='replace')[-4000:]}")
    return asdict(usage) | json.loads((output / "result.json").read_text())


def candidates(folder: Path, names: list[str]) -> list[str]:
    """Return what is measured, as `quantize_measure.py` takes it."""
    made = {name: next(folder.joinpath(name).glob("model.[ox][nm][nl]*")) for name in names}
    floating = {"fp32": folder / "fp32.onnx"}
    if any(name.endswith("openvino") for name in names):
        floating["fp32-openvino"] = floating["fp32"]
    return [f"{name}={path}" for name, path in (floating | made).items()]


def measure(folder: Path, names: list[str], threads: int, options: argparse.Namespace) -> Found:
    """Run every model in alternation in one process."""
    command = [sys.executable, str(HERE / "quantize_measure.py"), str(folder / "data"), "--skip", str(CALIBRATION)]
    timing = ["--threads", str(threads), "--rounds", str(options.rounds), "--seconds", str(options.seconds)]
    done = subprocess.run(
        [*command, *timing, "--candidates", *candidates(folder, names)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"measuring: {done.stderr[-4000:]}")
    found: Found = json.loads(done.stdout)
    return found


def rows(model: str, found: Found) -> list[list[str]]:
    """Return the table's rows for one model."""
    measured, quantizing = found["measured"], found["quantizing"]
    noise = measured["1 thread"]["sqnr_db"]
    lines = []
    for name in noise:
        ours = PEERS.get(name)
        baseline = "fp32-openvino" if name.endswith("openvino") and "fp32-openvino" in noise else "fp32"
        line = [model, name]
        for threads in THREADS:
            latency = measured[threads]["latency_ms"]
            line.append(f"{median(latency[name]):.2f}")
            line.append(f"{_ratio(latency[baseline], latency[name]):.2f}")
            line.append(f"{_ratio(latency[ours], latency[name]):.2f}" if ours in latency else "")
        line.append(f"{noise[name]:.1f}" if name != "fp32" else "")
        line.append(f"{noise[ours] - noise[name]:+.1f}" if ours in noise else "")
        taken = quantizing.get(name)
        line += [f"{taken['seconds']:.1f}", f"{taken['peak_pss_mb']:.0f}"] if taken else ["", ""]
        lines.append(line)
    return lines


def _ratio(above: list[float], below: list[float]) -> float:
    return median(a / b for a, b in zip(above, below, strict=True))


HEADING = [
    *("model", "", "ms, 1 thread", "times FP32", "convkit / it", "ms, default threads", "times FP32", "convkit / it"),
    *("SQNR, dB", "convkit - it", "quantizing, s", "peak PSS of the tree, MB"),
]


def main() -> None:
    """Parse the command line, run, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description="Measure convkit's INT8 against other quantizers'.")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--sides", nargs="+", choices=(*OURS, *PEERS), help="all, quark only with --quark")
    parser.add_argument("--quark", type=Path, help="the Python of an environment with amd-quark and onnxruntime")
    parser.add_argument("--method", help="convkit's calibration method; by default its own default")
    parser.add_argument("--rounds", type=int, default=12, help="of each model and number of threads (12)")
    parser.add_argument("--seconds", type=float, default=0.3, help="of each model in a round (0.3)")
    parser.add_argument(
        "--keep",
        type=lambda name: Path(name).resolve(),
        help="an empty folder for the models; by default they are thrown away",
    )
    parser.add_argument("--budget", action="store_true", help="compare the searches within an accuracy budget instead")
    parser.add_argument("--output", type=Path, help="JSON file for every single figure")
    options = parser.parse_args()
    here = machine()
    print(f"{here['cpu']}, {here['cores']} cores, load {here['load_at_start']:.2f}, convkit at {here['commit']}\n")
    if options.budget:
        results: Found = {"budget": quantize_budget.compare()}
    else:
        names = list(options.sides or (*OURS, *(peer for peer in PEERS if peer != "quark" or options.quark)))
        with tempfile.TemporaryDirectory(prefix="quantize-") as folder:
            results = {
                model: run(model, (options.keep or Path(folder)) / model, names, options) for model in options.models
            }
        show([HEADING, *(line for model, found in results.items() for line in rows(model, found))])
    if options.output:
        options.output.write_text(json.dumps({"machine": here, "results": results}, indent=1) + "\n")


def run(model: str, folder: Path, names: list[str], options: argparse.Namespace) -> Found:
    """Make a network, quantize it on every side, measure the results."""
    folder.mkdir(parents=True)
    side("make", model, folder, options)
    quantizing: Found = {}
    for name in names:
        quantizing[name] = side(name, model, folder, options)
        print(f"{model} {name}: {quantizing[name]['seconds']:.1f} s", file=sys.stderr)
    return {
        "quantizing": quantizing,
        "measured": {label: measure(folder, names, threads, options) for label, threads in THREADS.items()},
    }


if __name__ == "__main__":
    main()
