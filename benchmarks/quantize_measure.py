"""Latency and noise of quantized models, all in one process and in alternation, for quantize.py; prints JSON.

    python quantize_measure.py DATA --candidates NAME=PATH ... --threads 1 --rounds 12 --seconds 0.2

A path that ends in .xml, or a name that ends in `-openvino`, runs in OpenVINO, the others in ONNX Runtime. The first of
each runtime is FP32.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

Rows = list[dict[str, np.ndarray]]
Call = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


def in_onnxruntime(path: Path, threads: int) -> Call:
    """Return what runs a model in ONNX Runtime; its threads stop spinning when a call is over."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return lambda row: dict(zip(names, session.run(None, row), strict=True))


def in_openvino(path: Path, threads: int) -> Call:
    """Return what runs a model in OpenVINO, in FP32 where it is not quantized: by itself it would take bf16."""
    import openvino

    core = openvino.Core()
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = core.compile_model(core.read_model(str(path)), "CPU", settings)
    request = compiled.create_infer_request()
    names = [sorted(port.get_names())[0] for port in compiled.outputs]

    def call(row: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        results = request.infer(row, share_inputs=False)
        return {name: results[port].copy() for name, port in zip(names, compiled.outputs, strict=True)}

    return call


def sqnr_db(call: Call, rows: Rows, references: Rows) -> float:
    """Return 10 log10 of signal over noise of the output that has the least, over all rows together."""
    signal: dict[str, float] = {}
    noise: dict[str, float] = {}
    for row, reference in zip(rows, references, strict=True):
        for name, value in call(row).items():
            signal[name] = signal.get(name, 0) + float((reference[name].astype(np.float64) ** 2).sum())
            noise[name] = noise.get(name, 0) + float(((reference[name].astype(np.float64) - value) ** 2).sum())
    return min(10 * math.log10(signal[name] / noise[name]) if noise[name] else math.inf for name in signal)


def rounds_of(
    calls: dict[str, Call], row: dict[str, np.ndarray], rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Return each candidate's median latency in ms, round by round; their order turns from round to round."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call(row)
        call(row)
    for index in range(rounds):
        order = list(calls) if index % 2 == 0 else list(reversed(calls))
        for name in order:
            taken: list[float] = []
            end = time.perf_counter() + seconds
            while len(taken) < 3 or time.perf_counter() < end:
                start = time.perf_counter()
                calls[name](row)
                taken.append(1000 * (time.perf_counter() - start))
            found[name].append(median(taken))
    return found


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--candidates", nargs="+", required=True)
    parser.add_argument("--skip", type=int, default=32, help="samples that were used for calibration")
    parser.add_argument("--threads", type=int, default=1, help="0: the runtime's own choice")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=0.2)
    options = parser.parse_args()
    rows: Rows = [dict(np.load(path)) for path in sorted(options.data.iterdir())[options.skip :]]
    paths = {name: Path(path) for name, _, path in (each.partition("=") for each in options.candidates)}
    calls: dict[str, Call] = {}
    for name, path in paths.items():
        runs = in_openvino if name.endswith("openvino") else in_onnxruntime
        calls[name] = runs(path, options.threads)
    references = [calls["fp32"](row) for row in rows]
    print(
        json.dumps(
            {
                "latency_ms": rounds_of(calls, rows[0], options.rounds, options.seconds),
                "sqnr_db": {name: sqnr_db(call, rows, references) for name, call in calls.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
