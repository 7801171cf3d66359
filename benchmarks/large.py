"""Peak memory on models larger than comfort: a perceptron of random numbers, quantized or converted.

    python benchmarks/large.py [--gigabytes 2.4] [--only dynamic|int4|static]
    python benchmarks/large.py --only convert [--gigabytes 1.6|2.4]

Each way of quantizing runs in a process of its own, its weights beside the graph. Printed is the peak of its resident
memory, as the kernel counts it (VmHWM), over the size of the model, and the time. `convert` is the whole command with
an empty cache, timing included, on one file with its weights inside, or, above what a file can hold, with its weights
beside it; its figure is the PSS of the whole process tree.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from watch import run

WIDTH = 8192
MOST_IN_ONE = 2**31 - 2**20
"""Bytes of a model whose weights are put inside of its file: protobuf's own limit, less what the graph takes."""
LIMITS = {"dynamic": 0.5, "int4": 0.5, "static": 1.5, "convert": 1.3}
"""What issue and documents promise: the peak over the size of the model."""


def write_model(folder: Path, gigabytes: float) -> None:
    """Write layers of WIDTH x WIDTH float32, weight by weight, into one file beside the graph."""
    import numpy as np
    from onnx import TensorProto, helper

    layers = max(1, round(gigabytes * 1e9 / (WIDTH * WIDTH * 4)))
    generator = np.random.default_rng(0)
    nodes, weights, name = [], [], "x"
    with (folder / "model.onnx.data").open("wb") as stream:
        for number in range(layers):
            weight = TensorProto(name=f"w{number}", data_type=TensorProto.FLOAT, dims=[WIDTH, WIDTH])
            weight.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "model.onnx.data"), ("offset", stream.tell()), ("length", WIDTH**2 * 4)):
                weight.external_data.add(key=key, value=str(value))
            for _ in range(16):
                block = generator.standard_normal((WIDTH // 16, WIDTH), dtype=np.float32) / np.float32(WIDTH**0.5)
                stream.write(block.tobytes())
            weights.append(weight)
            nodes.append(helper.make_node("MatMul", [name, f"w{number}"], [f"h{number}"], f"product{number}"))
            nodes.append(helper.make_node("Relu", [f"h{number}"], [f"r{number}"], f"relu{number}"))
            name = f"r{number}"
    ends = [helper.make_tensor_value_info(each, TensorProto.FLOAT, ["batch", WIDTH]) for each in ("x", name)]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def quantize(way: str, folder: Path) -> None:
    """Quantize in this process, and print its peak in bytes."""
    import onnx

    from convkit.graph.model import Model
    from convkit.pipeline.artifact import gather, use_scratch
    from convkit.quantize.calibrate import collect_ranges
    from convkit.quantize.dynamic import quantize_dynamic
    from convkit.quantize.static import quantize_static
    from convkit.quantize.weight_only import quantize_weights
    from convkit.spec.options import CalibrationMethod
    from convkit.spec.tensor import DType, Interface, TensorSpec
    from convkit.targets.onnxruntime_profile import PROFILE

    last = onnx.load(str(folder / "model.onnx"), load_external_data=False).graph.output[0].name
    ends = [TensorSpec(name=name, dtype=DType.FLOAT32, dims=("batch", WIDTH)) for name in ("x", last)]
    interface = Interface(inputs=(ends[0],), outputs=(ends[1],), max_batch_size=0)
    model = Model(files=gather(folder, ["model.onnx", "model.onnx.data"]), interface=interface)
    use_scratch(folder / "scratch")
    started = time.perf_counter()
    if way == "dynamic":
        done = quantize_dynamic(model)
    elif way == "int4":
        done = quantize_weights(model, form="MatMulNBits")
    else:
        ranges = collect_ranges(model, data=None, samples=4)
        done = quantize_static(model, ranges=ranges, profile=PROFILE, method=CalibrationMethod.MINMAX)
    seconds = time.perf_counter() - started
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    print(peak, done.model.files.bytes, seconds)


def write_in_one(folder: Path) -> Path:
    """Write the model anew with its weights inside of the one file, and return its path."""
    import onnx

    from convkit.graph.model import Model
    from convkit.graph.weights import ModelWriter, Weights
    from convkit.pipeline.artifact import gather, use_scratch
    from convkit.spec.tensor import Interface

    use_scratch(folder)
    nothing = Interface(inputs=(), outputs=())
    weights = Weights(Model(files=gather(folder, ["model.onnx", "model.onnx.data"]), interface=nothing))
    writer = ModelWriter(expected_bytes=0)
    for name in weights.names:
        writer.add(weights.tensor(name))
    return writer.finish(onnx.load(str(folder / "model.onnx"), load_external_data=False), nothing).path


def convert(folder: Path) -> None:
    """Convert the model, and print peak, what was published, in bytes, and the time."""
    file, data = folder / "model.onnx", folder / "model.onnx.data"
    if data.stat().st_size < MOST_IN_ONE:
        file = write_in_one(folder)
        data.unlink()
    usage = run(
        [sys.executable, "-m", "convkit", "convert", str(file), "-o", str(folder / "models"), "--name", "large"],
        cwd=folder,
        environment={**os.environ, "CONVKIT_CACHE_DIR": str(folder / "cache"), "CUDA_VISIBLE_DEVICES": ""},
        output=folder / "out",
        log=folder / "log",
        interval_s=0.05,
    )
    if usage.exit_status:
        sys.exit(f"exit status {usage.exit_status}: {(folder / 'log').read_text()[-2000:]}")
    published = sum(path.stat().st_size for path in (folder / "models" / "large" / "1").iterdir() if path.is_file())
    assert usage.peak_pss_mb is not None
    print(int(usage.peak_pss_mb * 1e6), published, usage.wall_s)


def main() -> None:
    """Measure every way, or the one asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gigabytes", type=float, help="2.4; for `convert` 1.6, up to 2.1 in one file")
    parser.add_argument("--only", choices=LIMITS)
    parser.add_argument("--child", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        way, place = given.child[0], Path(given.child[1])
        convert(place) if way == "convert" else quantize(way, place)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder, given.gigabytes or (1.6 if given.only == "convert" else 2.4))
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(f"model: {size / 1e9:.2f} GB")
        for way in [given.only] if given.only else ("dynamic", "int4", "static"):
            command = [sys.executable, __file__, "--child", way, str(folder)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            peak, made, seconds = (float(word) for word in out.split())
            print(
                f"{way:8} peak {peak / 1e9:.2f} GB, {peak / size:.2f} of the model (at most {LIMITS[way]}); "
                f"result {made / 1e9:.2f} GB, {seconds:.0f} s"
            )


if __name__ == "__main__":
    main()
