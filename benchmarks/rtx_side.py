"""One side of rtx.py, in a process of its own: prints what it did as JSON.

    python rtx_side.py make MODEL.onnx [NETWORK]            a network of NETWORKS, random weights, dynamic batch
    python rtx_side.py builder MODEL.onnx FOLDER BUILD      TensorRT-RTX's parser and builder, and nothing else
    python rtx_side.py proof MODEL.onnx FOLDER BUILD        the same between the checks that convkit makes, and written
    python rtx_side.py imports NAME [NAME ...]              what importing these modules takes

BUILD is the folder in which convkit has recorded what an engine of the model was built from: build.json with the GPUs,
the profiles and the level; samples/ with the inputs on which it was compared.
"""

from __future__ import annotations

import contextlib
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
CAPABILITIES = ("8.6", "8.9", "12.0")
"""Those that convkit builds for where nobody says."""
INPUT = "image"
NETWORKS = ("resnet50", "resnet152", "mobilenetv2", "encoder", "bert")
"""`networks.py` has them; `resnet152` and `bert` are larger than its own: 60,192,808 and 109,482,240 parameters."""


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


def make(path: Path, name: str = "resnet50") -> None:
    """Export a network as `networks.py` defines it; beside sequences lies a config.txt that says how long they are."""
    import torch

    defined = runpy.run_path(str(HERE / "networks.py"))
    kind = "encoder" if name == "bert" else "resnet50" if name == "resnet152" else name
    known = defined["NETWORKS"][kind]
    larger = {
        "resnet152": lambda: defined["ResNet50"]((3, 8, 36, 3)),
        "bert": lambda: defined["Encoder"](12, 768, 12),
    }
    network = larger.get(name, known.make)()
    defined["randomize"](network, 0)
    dims = {0: torch.export.Dim("batch")}
    inputs: tuple[Any, ...] = (torch.randn(2, 3, 224, 224),)
    names, outputs = [INPUT], ["probs"]
    if kind == "encoder":
        dims[1] = torch.export.Dim("sequence", max=512)
        inputs = (torch.ones(2, 32, dtype=torch.int64), torch.ones(2, 32, dtype=torch.int64))
        names, outputs = ([spec["name"] for spec in known.config[side]] for side in ("input", "output"))
        config = json.dumps(known.config).replace("384", "768" if name == "bert" else "384")
        path.with_name("config.txt").write_text(config + "\n")
    program = torch.onnx.export(
        network.eval(),
        inputs,
        dynamo=True,
        opset_version=20,
        dynamic_shapes=(dims,) * len(inputs),
        input_names=names,
        output_names=outputs,
        external_data=False,
        verbose=False,
    )
    program.save(str(path))


def builder(path: Path, folder: Path, recorded: Path) -> dict[str, Any]:
    """Parse and build; the engine is written, since it is of no use in memory."""
    asked = json.loads((recorded / "build.json").read_bytes())
    clock = Clock()
    import tensorrt_rtx

    clock.mark("import")
    plan = build(tensorrt_rtx, path, asked, clock)
    (folder / "model.engine").write_bytes(plan)
    clock.mark("write")
    return clock.parts


def build(trt: Any, path: Path, asked: dict[str, Any], clock: Clock) -> Any:
    """Return the engine, as TensorRT's manual has it built; `asked` is what build.json says."""
    logger = trt.Logger(trt.Logger.ERROR)
    maker = trt.Builder(logger)
    network = maker.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        sys.exit(f"TensorRT-RTX does not take the model: {parser.get_error(0).desc()}")
    clock.mark("parse")
    config = maker.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    capabilities = asked["options"]["compute_capabilities"] or CAPABILITIES
    config.num_compute_capabilities = len(capabilities)
    for index, name in enumerate(capabilities):
        config.set_compute_capability(getattr(trt.ComputeCapability, "SM" + name.replace(".", "")), index)
    level = asked["options"]["builder_optimization_level"]
    if level is not None:
        config.builder_optimization_level = level
    for shapes in (each["shapes"] for each in asked["profiles"]):
        profile = maker.create_optimization_profile()
        for name, sizes in shapes.items():
            profile.set_shape(name, sizes["min"], sizes["opt"], sizes["max"])
        config.add_optimization_profile(profile)
    plan = maker.build_serialized_network(network, config)
    if plan is None:
        sys.exit("TensorRT-RTX could not build the engine")
    clock.mark("build")
    return plan


def proof(path: Path, folder: Path, recorded: Path) -> dict[str, Any]:
    """What convkit does around it, in one process: check the file, ask for its answers, compare, write with digests."""
    asked = json.loads((recorded / "build.json").read_bytes())
    clock = Clock()
    import numpy as np
    import onnx
    import onnxruntime
    import tensorrt_rtx

    clock.mark("import")
    onnx.checker.check_model(str(path))
    onnx.load(str(path))
    clock.mark("read")
    cases = [dict(np.load(file)) for file in sorted((recorded / "samples").iterdir())]
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    answers = [
        [output for case in cases for output in session.run(None, case)]
        for session in (
            onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            for options in (plain, onnxruntime.SessionOptions())
        )
    ]
    for unoptimized, optimized in zip(*answers, strict=True):
        np.testing.assert_allclose(unoptimized, optimized, rtol=1e-3, atol=1e-4)
    clock.mark("answers, compared")
    plan = build(tensorrt_rtx, path, asked, clock)
    (folder / "model.engine").write_bytes(plan)
    shutil.copy(path, folder / "model.onnx")
    for written in folder.iterdir():
        with written.open("rb") as stream:
            hashlib.file_digest(stream, "sha256")
    clock.mark("write, with digests")
    return clock.parts


def imports(*names: str) -> dict[str, Any]:
    """Import modules; what the versions that are installed do not have is passed over."""
    clock = Clock()
    for name in names:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
    clock.mark("import")
    return clock.parts


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "imports":
        print(json.dumps(imports(*arguments)))
    elif what == "make":
        make(Path(arguments[0]), *arguments[1:])
    else:
        print(json.dumps(globals()[what](*map(Path, arguments))))
