"""One quantization in one process, for quantize.py; prints its seconds as JSON. `make` writes a model and its data.

    python quantize_side.py SIDE NETWORK FP32.onnx DATA OUTPUT [--samples 32] [--method minmax]

Each side gives a function that quantizes, once everything is imported; only that function is timed. It writes
OUTPUT/model.onnx, or OUTPUT/model.xml for OpenVINO.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

SEQUENCE = 128
GRAPH = "model.onnx"
Work = Callable[[], float | None]
"""Quantizes; returns its seconds where they are not those of the whole call."""


def make(options: argparse.Namespace) -> Work:
    """Write a network as ONNX, simplified, and a file for each sample.

    Weights are random, the same ones every time. BatchNorm's statistics are those of the first samples, as training
    would leave them; images are smooth at two scales. Every token of a sequence counts: masks hold ones.
    """
    import onnxslim
    import torch
    from networks import NETWORKS, randomize

    generator = np.random.default_rng(0)
    rows = [_row(options.network, generator) for _ in range(options.samples)]
    network = NETWORKS[options.network].make()
    randomize(network, 0)
    first = {name: torch.from_numpy(np.concatenate([row[name] for row in rows[:16]])) for name in rows[0]}
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    if norms:
        with torch.no_grad():
            network.train()(*first.values())
    names = {"encoder": ["last_hidden_state", "pooled"]}.get(options.network, ["logits"])
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", min=2, max=512)
    sizes = {0: batch, 1: length} if options.network == "encoder" else {0: batch}

    def work() -> None:
        exported = options.output / "exported.onnx"
        torch.onnx.export(
            network.eval(),
            tuple(tensor[:2] for tensor in first.values()),
            str(exported),
            dynamo=True,
            external_data=False,
            opset_version=20,
            dynamic_shapes=tuple(sizes for _ in first),
            input_names=list(first),
            output_names=names,
        )
        onnxslim.slim(str(exported), str(options.model))
        options.data.mkdir()
        for number, row in enumerate(rows):
            np.savez(options.data / f"{number:04d}.npz", **row)  # type: ignore[arg-type]

    return work


def _row(network: str, generator: np.random.Generator) -> dict[str, np.ndarray]:
    if network == "encoder":
        tokens = generator.integers(0, 30522, (1, SEQUENCE), dtype=np.int64)
        return {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
    coarse = generator.standard_normal((3, 8, 8)).repeat(28, axis=1).repeat(28, axis=2)
    fine = generator.standard_normal((3, 56, 56)).repeat(4, axis=1).repeat(4, axis=2)
    return {"image": (coarse + 0.3 * fine).astype(np.float32)[None]}


def rows_of(data: Path, samples: int) -> Iterator[dict[str, np.ndarray]]:
    """Go through the first samples."""
    for path in sorted(data.iterdir())[:samples]:
        yield dict(np.load(path))


# convkit


def convkit(options: argparse.Namespace) -> Work:
    """Convert with INT8 for ONNX Runtime."""
    return _convert(options, to="onnxruntime", precision="int8")


def convkit_openvino(options: argparse.Namespace) -> Work:
    """Convert with INT8 for OpenVINO."""
    return _convert(options, to="openvino", precision="int8")


def convkit_dynamic(options: argparse.Namespace) -> Work:
    """Convert with dynamic INT8 for ONNX Runtime."""
    return _convert(options, to="onnxruntime", precision="dynamic")


def _convert(options: argparse.Namespace, *, to: str, precision: str) -> Work:
    """Convert with everything that belongs to it; counted are the stages that the others have too."""
    import convkit

    quantize: dict[str, Any] = {"precision": precision}
    if precision == "int8":
        quantize |= {"data": options.data, "samples": options.samples, "method": options.method}

    def work() -> float:
        report = convkit.convert(
            options.model,
            to=to,
            output=options.output / "models",
            cache=options.output / "cache",
            export={"samples": sorted(options.data.iterdir())[0]},
            quantize=quantize,
            check={"min_sqnr": -100.0},
            measure={"mode": "none"},
        )
        for path in (options.output / "models" / str(report.name) / "1").glob("model.*"):
            shutil.copy(path, options.output / path.name)
        return sum(stage.seconds for stage in report.stages if stage.name in ("calibrate", "quantize", "compile"))

    return work


# ONNX Runtime


def ort_default(options: argparse.Namespace) -> Work:
    """Quantize with `quantize_static` as it comes: int8 activations, one scale for each weight."""
    return _ort_static(options)


def ort_cpu(options: argparse.Namespace) -> Work:
    """Quantize with `quantize_static` as its manual advises for x86: uint8 activations, int8 weights per channel."""
    from onnxruntime.quantization import QuantType

    return _ort_static(options, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=True)


def _ort_static(options: argparse.Namespace, **more: Any) -> Work:
    from onnxruntime.quantization import quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    reader = _reader(options)
    prepared = options.output / "prepared.onnx"

    def work() -> None:
        quant_pre_process(str(options.model), str(prepared), skip_symbolic_shape=True)
        quantize_static(str(prepared), str(options.output / GRAPH), reader, **more)

    return work


def _reader(options: argparse.Namespace) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = rows_of(options.data, options.samples)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.rows, None)

    return Reader()


def ort_dynamic(options: argparse.Namespace) -> Work:
    """Quantize with `quantize_dynamic` as it comes."""
    from onnxruntime.quantization import quantize_dynamic

    return lambda: quantize_dynamic(str(options.model), str(options.output / GRAPH))


# NNCF


def nncf_onnx(options: argparse.Namespace) -> Work:
    """Quantize the ONNX graph with NNCF."""
    import nncf
    import onnx

    def work() -> None:
        made = nncf.quantize(onnx.load(options.model), _nncf_data(options), **_nncf_options(options))
        onnx.save(made, options.output / GRAPH)

    return work


def nncf_openvino(options: argparse.Namespace) -> Work:
    """Quantize with NNCF in OpenVINO."""
    import nncf
    import openvino

    def work() -> None:
        network = openvino.Core().read_model(str(options.model))
        made = nncf.quantize(network, _nncf_data(options), **_nncf_options(options))
        openvino.save_model(made, str(options.output / "model.xml"), compress_to_fp16=False)

    return work


def _nncf_data(options: argparse.Namespace) -> Any:
    import nncf

    return nncf.Dataset(list(rows_of(options.data, options.samples)))


def _nncf_options(options: argparse.Namespace) -> dict[str, Any]:
    import nncf

    kind = nncf.ModelType.TRANSFORMER if options.network == "encoder" else None
    return {"subset_size": options.samples, "model_type": kind}


# AMD Quark: in an environment of its own, without convkit


def quark(options: argparse.Namespace) -> Work:
    """Quantize with Quark: uint8 activations, int8 weights per channel, min-max, as ONNX Runtime's kernels want it."""
    from onnxruntime.quantization import QuantFormat, QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod
    from quark.onnx import ModelQuantizer
    from quark.onnx.quantization.config.config import Config
    from quark.onnx.quantization.config.legacy import QuantizationConfig

    settings = QuantizationConfig(
        calibrate_method=CalibrationMethod.MinMax,
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    quantizer = ModelQuantizer(Config(global_quant_config=settings))
    reader = _reader(options)
    return lambda: quantizer.quantize_model(str(options.model), str(options.output / GRAPH), reader) and None


SIDES = {
    "make": make,
    "convkit": convkit,
    "convkit-dynamic": convkit_dynamic,
    "convkit-openvino": convkit_openvino,
    "ort": ort_default,
    "ort-cpu": ort_cpu,
    "ort-dynamic": ort_dynamic,
    "nncf-onnx": nncf_onnx,
    "nncf-openvino": nncf_openvino,
    "quark": quark,
}


def main() -> None:
    """Parse the command line, and do one thing."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("network")
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--method", help="convkit's; by default convkit's own default")
    parser.add_argument("--result", type=Path, required=True, help="where the seconds go: libraries print too")
    options = parser.parse_args()
    work = SIDES[options.side](options)
    start = time.perf_counter()
    own = work()
    options.result.write_text(json.dumps({"seconds": time.perf_counter() - start if own is None else own}))


if __name__ == "__main__":
    main()
