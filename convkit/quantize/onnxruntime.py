"""Dynamic INT8 through ONNX Runtime's quantizer."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from convkit.errors import ConvkitError, StepError, UsageError
from convkit.graph.model import DATA_FILE, EXTERNAL_ABOVE, MODEL_FILE, Model, load_model, weight_bytes
from convkit.graph.names import strip_origins
from convkit.pipeline import events
from convkit.pipeline.artifact import gather, new_folder
from convkit.pipeline.step import step
from convkit.quantize.result import Quantized

if TYPE_CHECKING:
    import onnx

_DYNAMIC_OPERATORS = ("MatMul", "Gemm", "LSTM", "Attention", "EmbedLayerNormalization", "Gather")
_CONVOLUTIONS = ("Conv", "ConvTranspose")


@step(version=1, stage="quantize", title="Quantize dynamically", needs="onnx", libraries=("sympy",))
def quantize_dynamic(model: Model) -> Quantized:
    """Write the weights of matrix products in INT8, one scale for each column; activations are scaled at run time.

    Convolutions stay in floating point: ONNX Runtime's ConvInteger is several times slower than its FP32 kernel.

    Raises:
        UsageError: the graph has no matrix product with constant weights.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as quantize

    proto = load_model(model, weights=False)
    constants = {tensor.name for tensor in proto.graph.initializer}
    products = [n for n in proto.graph.node if n.op_type in ("MatMul", "Gemm", "LSTM") and n.input[1] in constants]
    convolutions = sum(node.op_type in _CONVOLUTIONS for node in proto.graph.node)
    if not products:
        raise UsageError(
            "dynamic INT8 works on matrix products with constant weights, and the model has none",
            hint="use --quantize int8 with --calibration-data" if convolutions else "leave --quantize out",
            code="quantize.nothing-to-do",
        )
    if convolutions:
        events.warn(
            "quantize.convolutions-kept",
            f"{convolutions} convolutions stay in FP32: dynamic INT8 would make them slower, "
            "--quantize int8 with calibration data makes them faster",
        )
    folder, beside = new_folder("quantized"), new_folder("inferred")
    for name in model.files.files:  # the quantizer writes beside what it reads, which is no place of this step's
        shutil.copyfile(model.files.file(name), beside / name)
    with _library_errors("quantize_dynamic"):
        quantize(
            beside / MODEL_FILE,
            folder / MODEL_FILE,
            op_types_to_quantize=list(_DYNAMIC_OPERATORS),
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=model.files.bytes > EXTERNAL_ABOVE,
            extra_options={"MatMulConstBOnly": True},
        )
    return Quantized(model=_finished(folder, model), method="at run time", samples=0)


def _finished(folder: Path, model: Model) -> Model:
    path = folder / MODEL_FILE
    proto = _load(path)
    strip_origins(proto)
    proto.producer_name, proto.producer_version = "", ""
    proto.graph.ClearField("value_info")
    original = load_model(model, weights=False)
    proto.ir_version = original.ir_version
    for theirs, ours in ((proto.graph.input, original.graph.input), (proto.graph.output, original.graph.output)):
        for value, declared in zip(theirs, ours, strict=True):
            value.CopyFrom(declared)
    _save(proto, path)
    return Model(files=gather(folder), interface=model.interface)


def _load(path: Path) -> onnx.ModelProto:
    import onnx

    return onnx.load(str(path))


def _save(proto: onnx.ModelProto, path: Path) -> None:
    import onnx

    for stale in path.parent.iterdir():
        stale.unlink()
    external = weight_bytes(proto) > EXTERNAL_ABOVE
    onnx.save_model(proto, str(path), save_as_external_data=external, location=DATA_FILE if external else None)


@contextlib.contextmanager
def _library_errors(call: str) -> Iterator[None]:
    """Turn the quantizer's own errors into a letter to the user."""
    try:
        yield
    except ConvkitError:
        raise
    except Exception as error:
        raise StepError(
            f"onnxruntime.quantization.{call} failed: {type(error).__name__}: {' '.join(str(error).split())}",
            hint="convert with --quantize none to see whether the FP32 model holds; the log names the node",
            code="quantize.failed",
        ) from error
