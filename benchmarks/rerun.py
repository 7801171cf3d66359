"""How long `convkit convert` takes where nothing has changed, and how much memory the first conversion of a large file.

    python rerun.py [--sizes 100 2400] [--runs 5] [--folder FOLDER] [--output FILE.json]

For each size (MB of weights) an ONNX model of square matrix products is made, converted once with an empty cache, and
then by the same command again and again. The first repetition still reads every file; from then on what the file system
vouches for is not read again. Every repetition must end `unchanged`, with no file of the repository or of the cache's
entries and artifacts written. Exit status 1 where it does not.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from convert import machine, show
from startup import start_once
from watch import Usage, run

LIMITS = {100: 0.4, 2400: 1.0}
"""The seconds that convkit sets itself as limits, by the size in MB."""


def make_model(folder: Path, megabytes: int) -> Path:
    """Write a chain of matrix products with so many MB of weights, beside the graph where they are 1 GB or more."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    side = 2048 if megabytes < 1000 else 4096
    count = max(1, round(megabytes * 1e6 / (4 * side * side)))
    external = megabytes >= 1000
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    weights, nodes, last = [], [], "x"
    with (folder / "model.onnx.data").open("wb") as data:
        for number in range(count):
            array = generator.standard_normal((side, side), np.float32) * np.float32((2 / side) ** 0.5)
            weight = TensorProto(name=f"w{number}", data_type=TensorProto.FLOAT, dims=array.shape)
            if external:
                weight.data_location = TensorProto.EXTERNAL
                about = {"location": "model.onnx.data", "offset": data.tell(), "length": array.nbytes}
                for key, value in about.items():
                    weight.external_data.add(key=key, value=str(value))
                data.write(array.data.cast("B"))
            else:
                weight.raw_data = array.tobytes()
            weights.append(weight)
            nodes.append(helper.make_node("MatMul", [last, f"w{number}"], [f"h{number}"], f"matmul_{number}"))
            last = "y" if number == count - 1 else f"r{number}"
            nodes.append(helper.make_node("Relu", [f"h{number}"], [last], f"relu_{number}"))
    if not external:
        (folder / "model.onnx.data").unlink()
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", side]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "products", ends[:1], ends[1:], weights)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "model.onnx"
    )
    return folder / "model.onnx"


def converted(model: Path, folder: Path, interval_s: float) -> tuple[Usage, dict[str, Any]]:
    """Run the command once; return what it took and what it said."""
    usage = run(
        command(model, folder),
        cwd=folder,
        environment={**os.environ, "CONVKIT_CACHE_DIR": str(folder / "cache")},
        output=folder / "said.json",
        log=folder / "log",
        interval_s=interval_s,
    )
    if usage.exit_status:
        sys.exit(f"{model}: exit status {usage.exit_status}: {(folder / 'log').read_text()[-2000:]}")
    return usage, json.loads((folder / "said.json").read_text())


def command(model: Path, folder: Path) -> list[str]:
    """Return the command line."""
    line = [sys.executable, "-m", "convkit", "convert", str(model), "--measure", "none", "--json"]
    return [*line, "-o", str(folder / "models")]


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of modification of all that a rerun must leave alone."""
    kept = [folder / "models", *(folder / "cache" / part for part in ("objects", "logs", "scratch"))]
    files = [path for place in kept for path in place.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def measured(megabytes: int, runs: int, folder: Path) -> dict[str, Any]:
    """Convert a model of one size, and again."""
    model = make_model(folder / "source", megabytes)
    size = sum(file.stat().st_size for file in model.parent.iterdir())
    first, _ = converted(model, folder, 0.02)
    before = state(folder)
    time.sleep(3)  # files so young are read again, whatever the file system says
    os.environ["CONVKIT_CACHE_DIR"] = str(folder / "cache")
    again = [start_once(command(model, folder), cwd=folder) for _ in range(runs + 1)]
    _, said = converted(model, folder, 0.0)
    if said["status"] != "unchanged" or state(folder) != before:
        sys.exit(f"{megabytes} MB: {said['status']}, and what was written: {set(state(folder)) ^ set(before)}")
    return {"bytes": size, "first": first.__dict__, "second": again[0], "later": again[1:]}


def main() -> None:
    """Parse the command line, run, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description="Measure a conversion where nothing has changed.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 2400], help="MB of weights (100 2400)")
    parser.add_argument("--runs", type=int, default=5, help="repetitions that count (5)")
    parser.add_argument("--folder", type=Path, help="work here, where there is room for four times the largest size")
    parser.add_argument("--output", type=Path, help="JSON file for every single run")
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    found = {}
    for size in options.sizes:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            found[size] = measured(size, options.runs, Path(folder))
    here = machine()
    print(f"{here['cpu']}, Python {here['python']}, load {os.getloadavg()[0]:.1f}")
    head = [
        "MB",
        "first, s",
        "peak of the tree / file",
        "second, s",
        "later, s: median (range)",
        "asked",
        "peak RSS, MB",
    ]
    show([head, *(row(size, one) for size, one in found.items())])
    if options.output:
        options.output.write_text(json.dumps({"machine": here, "sizes": found}, indent=1) + "\n")


def row(size: int, one: dict[str, Any]) -> list[str]:
    """Return the table's row for one size."""
    seconds = [run[0] for run in one["later"]]
    limit = LIMITS.get(size)
    return [
        str(size),
        f"{one['first']['wall_s']:.1f}",
        f"{one['first']['peak_pss_mb'] * 1e6 / one['bytes']:.2f}",
        f"{one['second'][0]:.2f}",
        f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})",
        f"< {limit:g}" if limit else "",
        f"{max(run[1] for run in one['later']):.0f}",
    ]


if __name__ == "__main__":
    main()
