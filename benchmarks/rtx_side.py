"""One side of rtx.py, in a process of its own: prints what it did as JSON.

    python rtx_side.py make MODEL.onnx                      ResNet50, random weights, dynamic batch
    python rtx_side.py builder MODEL.onnx FOLDER            TensorRT-RTX's parser and builder, and nothing else
    python rtx_side.py proof MODEL.onnx FOLDER              the same between the checks that convkit makes, and written
    python rtx_side.py imports NAME [NAME ...]              what importing these modules takes

The GPUs, the profile and the settings are convkit's: compute capabilities 8.6, 8.9 and 12.0; a batch from 1 to 8, tuned
for 8.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import runpy
import shutil
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CAPABILITIES = ("SM86", "SM89", "SM120")
SHAPES = tuple((batch, 3, 224, 224) for batch in (1, 8, 8))
INPUT = "image"
SAMPLES = (1, 3)
"""The batches on which convkit compares."""


class Clock:
    """Wall and processor seconds from one mark to the next."""

    def __init__(self) -> None:
        self.parts: dict[str, dict[str, float]] = {}
        self._last = time.perf_counter(), time.process_time()

    def mark(self, name: str) -> None:
        """Put what has passed since the last mark down as `name`."""
        now = time.perf_counter(), time.process_time()
        self.parts[name] = {"wall_s": now[0] - self._last[0], "cpu_s": now[1] - self._last[1]}
        self._last = now


def make(path: Path) -> None:
    """Export ResNet50 as `networks.py` defines it."""
    import torch

    defined = runpy.run_path(str(HERE / "networks.py"))
    network = defined["ResNet50"]()
    defined["randomize"](network, 0)
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        network.eval(),
        (torch.randn(2, *SHAPES[0][1:]),),
        dynamo=True,
        opset_version=20,
        dynamic_shapes=({0: batch},),
        input_names=[INPUT],
        output_names=["probs"],
        external_data=False,
        verbose=False,
    )
    program.save(str(path))


def builder(path: Path, folder: Path) -> dict[str, Any]:
    """Parse and build; the engine is written, since it is of no use in memory."""
    clock = Clock()
    import tensorrt_rtx

    clock.mark("import")
    plan = build(tensorrt_rtx, path, clock)
    (folder / "model.engine").write_bytes(plan)
    clock.mark("write")
    return clock.parts


def build(trt: Any, path: Path, clock: Clock) -> Any:
    """Return the engine, as TensorRT's manual has it built."""
    logger = trt.Logger(trt.Logger.ERROR)
    maker = trt.Builder(logger)
    network = maker.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        sys.exit(f"TensorRT-RTX does not take the model: {parser.get_error(0).desc()}")
    clock.mark("parse")
    config = maker.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = len(CAPABILITIES)
    for index, name in enumerate(CAPABILITIES):
        config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
    profile = maker.create_optimization_profile()
    profile.set_shape(INPUT, *SHAPES)
    config.add_optimization_profile(profile)
    plan = maker.build_serialized_network(network, config)
    if plan is None:
        sys.exit("TensorRT-RTX could not build the engine")
    clock.mark("build")
    return plan


def proof(path: Path, folder: Path) -> dict[str, Any]:
    """What convkit does around it, in one process: check the file, ask for its answers, compare, write with digests."""
    clock = Clock()
    import numpy as np
    import onnx
    import onnxruntime
    import tensorrt_rtx

    clock.mark("import")
    onnx.checker.check_model(str(path))
    onnx.load(str(path))
    clock.mark("read")
    cases = [np.random.default_rng(0).standard_normal((n, *SHAPES[0][1:])).astype(np.float32) for n in SAMPLES]
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    answers = [
        [session.run(None, {INPUT: case})[0] for case in cases]
        for session in (
            onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            for options in (plain, onnxruntime.SessionOptions())
        )
    ]
    unoptimized, optimized = map(np.concatenate, answers)
    np.testing.assert_allclose(unoptimized, optimized, rtol=1e-3, atol=1e-4)
    clock.mark("answers, compared")
    plan = build(tensorrt_rtx, path, clock)
    (folder / "model.engine").write_bytes(plan)
    shutil.copy(path, folder / "model.onnx")
    for written in folder.iterdir():
        with written.open("rb") as stream:
            hashlib.file_digest(stream, "sha256")
    clock.mark("write, with digests")
    return clock.parts


def imports(*names: str) -> dict[str, Any]:
    """Import modules."""
    clock = Clock()
    for name in names:
        importlib.import_module(name)
    clock.mark("import")
    return clock.parts


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    found = imports(*arguments) if what == "imports" else globals()[what](*map(Path, arguments))
    print(json.dumps(found))
