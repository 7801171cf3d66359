"""INT8 through ONNX Runtime's quantizer, with the settings that the target takes."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from convkit.errors import ConvkitError, StepError, UsageError
from convkit.graph.model import DATA_FILE, EXTERNAL_ABOVE, MODEL_FILE, Model, load_model, weight_bytes
from convkit.graph.names import strip_origins
from convkit.graph.quant_profile import QuantProfile
from convkit.graph.samples import case_sizes, random_case, read_rows
from convkit.pipeline import events
from convkit.pipeline.artifact import Artifact, gather, new_folder
from convkit.pipeline.step import step
from convkit.spec.options import CalibrationMethod
from convkit.spec.tensor import Interface

if TYPE_CHECKING:
    import numpy as np
    import onnx

_DYNAMIC_OPERATORS = ("MatMul", "Gemm", "LSTM", "Attention", "EmbedLayerNormalization", "Gather")
_CONVOLUTIONS = ("Conv", "ConvTranspose")


class Quantized(msgspec.Struct, frozen=True, kw_only=True):
    """An INT8 model and what its scales were taken from."""

    model: Model
    method: str
    samples: int
    """Samples that the ranges were taken from; 0 where they are taken at run time."""
    kept: tuple[str, ...] = ()
    """Nodes that the target's profile keeps in floating point."""


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


@step(version=1, stage="quantize", title="Calibrate and quantize to INT8", needs="onnx", libraries=("sympy",))
def quantize_static(
    model: Model, *, data: Artifact | None, profile: QuantProfile, method: CalibrationMethod, samples: int
) -> Quantized:
    """Quantize weights and activations to INT8 with Q/DQ pairs placed as `profile` wants them.

    Args:
        model: the simplified FP32 graph.
        data: calibration inputs; None draws random ones.
        profile: what the target takes.
        method: how a range is chosen from what calibration saw.
        samples: at most this many samples are used.

    Raises:
        InputError: the data do not fit the model.
        UsageError: nothing in the graph can be quantized.
        StepError: the quantizer failed.
    """
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantize
    from onnxruntime.quantization.shape_inference import quant_pre_process

    batches = _batches(model.interface, data, samples)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.done = 0
            self.rows = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            events.progress(self.done, len(batches), "samples")
            self.done += 1
            return next(self.rows, None)

    folder = new_folder("quantized")
    prepared = folder / "prepared.onnx"
    methods = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
    with _library_errors("quantize_static"):
        quant_pre_process(str(model.path), str(prepared), skip_optimization=True, auto_merge=True)
        kept = _kept_nodes(_load(prepared), profile)
        quantize(
            prepared,
            folder / MODEL_FILE,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(profile.operators) or None,
            per_channel=profile.per_channel,
            activation_type=QuantType.QInt8 if profile.signed_activations else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(kept),
            calibrate_method=getattr(CalibrationMethod, methods[method.value]),
            use_external_data_format=model.files.bytes > EXTERNAL_ABOVE,
            extra_options={
                "ActivationSymmetric": profile.symmetric_activations,
                "WeightSymmetric": True,
                "QuantizeBias": profile.quantize_bias,
            },
        )
    prepared.unlink()
    if not any(node.op_type == "QuantizeLinear" for node in _load(folder / MODEL_FILE).graph.node):
        raise UsageError(
            "static INT8 found nothing to quantize: the target has no INT8 kernel for any of the model's operators, or "
            "gains nothing from those it has" + (f" ({', '.join(kept[:5])})" if kept else ""),
            hint="use --quantize fp16, or leave --quantize out",
            code="quantize.nothing-to-do",
        )
    if profile.residual_branch_only:
        _free_fused_branches(folder / MODEL_FILE)
    return Quantized(
        model=_finished(folder, model),
        method=method.value,
        samples=sum(len(next(iter(batch.values()))) for batch in batches),
        kept=kept,
    )


def _batches(interface: Interface, data: Artifact | None, samples: int) -> list[dict[str, np.ndarray]]:
    """Return the calibration inputs, a batch of one sample each, or of the model's fixed batch."""
    sizes = case_sizes(interface)[0]
    first = interface.inputs[0].dims[0] if interface.inputs[0].dims else 1
    batch = first if isinstance(first, int) else 1
    if data is None:
        return [random_case(interface, sizes, seed=number) for number in range(-(-samples // batch))]
    rows = read_rows(interface, data, at_least=batch, at_most=max(samples, batch))
    count = len(next(iter(rows.values()))) // batch * batch
    return [{name: array[start : start + batch] for name, array in rows.items()} for start in range(0, count, batch)]


def _kept_nodes(proto: onnx.ModelProto, profile: QuantProfile) -> tuple[str, ...]:
    """Name the nodes that the profile keeps in floating point: narrow convolutions, matrix-vector products."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    kept = []
    for node in proto.graph.node:
        weight = shapes.get(node.input[1]) if len(node.input) > 1 else None
        if weight is None:
            continue
        if node.op_type in _CONVOLUTIONS and min(weight[0], _input_channels(node, weight)) < profile.min_conv_channels:
            kept.append(node.name)
        if profile.skip_matrix_vector and node.op_type in ("MatMul", "Gemm") and min(weight) == 1:
            kept.append(node.name)
    return tuple(kept)


def _input_channels(node: onnx.NodeProto, weight: tuple[int, ...]) -> int:
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return weight[1] * int(groups)


def _free_fused_branches(path: Path) -> None:
    """Take the Q/DQ pair from the input of an Add that comes straight from a convolution: the two fuse."""
    proto = _load(path)
    producer = {name: node for node in proto.graph.node for name in node.output}
    readers: dict[str, int] = {}
    for node in proto.graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    removed: set[str] = set()
    for node in proto.graph.node:
        if node.op_type != "Add":
            continue
        for index, name in enumerate(node.input):
            dequantize = producer.get(name)
            quantize = producer.get(dequantize.input[0]) if dequantize is not None else None
            if (
                dequantize is not None
                and quantize is not None
                and dequantize.op_type == "DequantizeLinear"
                and quantize.op_type == "QuantizeLinear"
                and readers[name] == readers[dequantize.input[0]] == readers[quantize.input[0]] == 1
                and producer.get(quantize.input[0]) is not None
                and producer[quantize.input[0]].op_type in _CONVOLUTIONS
            ):
                node.input[index] = quantize.input[0]
                removed |= {dequantize.output[0], quantize.output[0]}
                break
    remaining = [node for node in proto.graph.node if not removed & set(node.output)]
    del proto.graph.node[:]
    proto.graph.node.extend(remaining)
    _save(proto, path)


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
