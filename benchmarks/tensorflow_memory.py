"""Peak memory and time from a Keras ResNet50, as a SavedModel, to ONNX: tf2onnx's own command against convkit's export.

    python benchmarks/tensorflow_memory.py [--runs 3] [--output FILE.json]

Both sides run in turn, each in a process tree of its own whose memory (PSS) is sampled; convkit's is the whole command
`convkit convert --measure none` with an empty cache, answers, checks and publication included. Exit status 1 where
convkit's peak is above a quarter of tf2onnx's, or the two files differ by more than a node in ten.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from convert import machine, show
from watch import run

SHARE = 0.25
MAKE = "import sys, keras; keras.applications.ResNet50(weights=None).export(sys.argv[1], verbose=False)"
INTERVAL_S = 0.02


def measured(side: str, folder: Path, number: int) -> dict[str, Any]:
    """Run one side once; return what it took and the nodes of its graph."""
    place = folder / f"{side}-{number}"
    place.mkdir()
    if side == "tf2onnx":
        command = ["tf2onnx.convert", "--saved-model", str(folder / "resnet50"), "--signature_def", "serving_default"]
        command += ["--opset", "18", "--output", str(place / "model.onnx")]
    else:
        command = ["convkit", "convert", str(folder / "resnet50"), "--measure", "none", "-o", str(place), "--json"]
    usage = run(
        [sys.executable, "-m", *command],
        cwd=place,
        environment={**os.environ, "CONVKIT_CACHE_DIR": str(place / "cache"), "CUDA_VISIBLE_DEVICES": ""},
        output=place / "out",
        log=place / "log",
        interval_s=INTERVAL_S,
    )
    if usage.exit_status:
        sys.exit(f"{side}: exit status {usage.exit_status}: {(place / 'log').read_text()[-2000:]}")
    import onnx

    file = next(path for path in place.rglob("model.onnx") if "cache" not in path.parts)
    nodes = len(onnx.load(str(file), load_external_data=False).graph.node)
    return {"peak_mb": usage.peak_pss_mb, "wall_s": usage.wall_s, "cpu_s": usage.cpu_s, "nodes": nodes}


def main() -> None:
    """Parse the command line, run both sides in turn, print the table and the ratio."""
    parser = argparse.ArgumentParser(description="Measure the memory of a conversion from TensorFlow.")
    parser.add_argument("--runs", type=int, default=3, help="runs of each side (3)")
    parser.add_argument("--output", type=Path, help="JSON file for every single run")
    options = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {"tf2onnx": [], "convkit": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-c", MAKE, str(folder / "resnet50")], check=True)
        for number in range(options.runs):
            for side, runs in found.items():
                runs.append(measured(side, folder, number))
    middle = {
        side: {key: statistics.median(each[key] for each in runs) for key in runs[0]} for side, runs in found.items()
    }
    here = machine()
    print(f"{here['cpu']}, Python {here['python']}, load {os.getloadavg()[0]:.1f}, {options.runs} runs each, medians")
    rows = [[side, *(f"{each[key]:.0f}" for key in each)] for side, each in middle.items()]
    show([["", "peak of the tree, MB", "wall, s", "CPU, s", "nodes"], *rows])
    ratio = middle["convkit"]["peak_mb"] / middle["tf2onnx"]["peak_mb"]
    print(f"peak: {ratio:.2f} of tf2onnx's (at most {SHARE})")
    if options.output:
        options.output.write_text(json.dumps({"machine": here, "runs": found}, indent=1) + "\n")
    if ratio > SHARE or middle["convkit"]["nodes"] > 1.1 * middle["tf2onnx"]["nodes"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
