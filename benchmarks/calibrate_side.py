"""One calibration in one process, for calibrate.py; prints its seconds as JSON. `make` writes the model and the data.

python calibrate_side.py make|convkit|minmax|entropy MODEL DATA --samples 32
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

INPUT, OUTPUT = "image", "scores"


def make(model: Path, data: Path, samples: int) -> None:
    """Write ResNet50 as ONNX, its batch dynamic, and a file of one image for each sample."""
    import torch
    from networks import NETWORKS, randomize

    network = NETWORKS["resnet50"].make().eval()
    randomize(network, 0)
    model.mkdir()
    torch.onnx.export(
        network,
        (torch.zeros(2, 3, 224, 224),),
        str(model / "model.onnx"),
        dynamo=True,
        external_data=False,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=[INPUT],
        output_names=[OUTPUT],
    )
    data.mkdir()
    generator = np.random.default_rng(0)
    for number in range(samples):
        coarse = generator.standard_normal((3, 8, 8)).repeat(28, axis=1).repeat(28, axis=2)
        fine = generator.standard_normal((3, 56, 56)).repeat(4, axis=1).repeat(4, axis=2)
        image = (coarse + 0.3 * fine).astype(np.float32)
        arrays: dict[str, Any] = {INPUT: image[None]}
        np.savez(data / f"{number:04d}.npz", **arrays)


def convkit(model: Path, data: Path, samples: int, method: str, scratch: Path) -> float:
    """Return the seconds that convkit takes to collect, and to choose every range."""
    import onnx  # noqa: F401 - imports are not what is measured
    import onnxruntime  # noqa: F401

    from convkit.graph.model import Model
    from convkit.graph.present import interface_of
    from convkit.graph.wire import read_without_weights
    from convkit.pipeline.artifact import gather, use_scratch
    from convkit.quantize.calibrate import collect_ranges
    from convkit.quantize.ranges import open_ranges
    from convkit.spec.options import CalibrationMethod

    use_scratch(scratch / "convkit")
    interface = interface_of(read_without_weights(model / "model.onnx"))
    source, rows = Model(files=gather(model), interface=interface), gather(data)
    start = time.perf_counter()
    table = open_ranges(collect_ranges(source, data=rows, samples=samples))
    for name in table.names():
        table.choose(name, CalibrationMethod(method), levels=256, symmetric=False)
    return time.perf_counter() - start


def onnxruntime(model: Path, data: Path, samples: int, method: str, scratch: Path) -> float:
    """Return the seconds that ONNX Runtime's calibrator takes, with the settings of its `quantize_static`."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = self._read()

        def _read(self) -> Iterator[dict[str, np.ndarray]]:
            for path in sorted(data.iterdir())[:samples]:
                yield dict(np.load(path))

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.rows, None)

    methods = {"minmax": CalibrationMethod.MinMax, "entropy": CalibrationMethod.Entropy}
    start = time.perf_counter()
    calibrator = create_calibrator(
        model / "model.onnx", [], str(scratch / "augmented.onnx"), calibrate_method=methods[method]
    )
    calibrator.collect_data(Reader())
    calibrator.compute_data()
    return time.perf_counter() - start


def main() -> None:
    """Parse the command line, and do one thing."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=("make", "convkit", "minmax", "entropy"))
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--method", default="minmax")
    parser.add_argument("--scratch", type=Path)
    options = parser.parse_args()
    if options.side == "make":
        make(options.model, options.data, options.samples)
        return
    side = convkit if options.side == "convkit" else onnxruntime
    seconds = side(options.model, options.data, options.samples, options.method, options.scratch)
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
