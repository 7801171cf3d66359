"""ONNX to OpenVINO's intermediate representation, and running that on the CPU."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from convkit.errors import StepError
from convkit.graph.model import Model, Tensors, save_tensors
from convkit.graph.work import Work
from convkit.pipeline import events
from convkit.pipeline.allowance import threads
from convkit.pipeline.artifact import Artifact, gather, new_folder
from convkit.pipeline.patience import one_run
from convkit.pipeline.step import observation, step
from convkit.pipeline.stopwatch import Timing, time_calls
from convkit.spec.tensor import DType, Interface
from convkit.targets.answering import answers_to

if TYPE_CHECKING:
    import numpy as np

GRAPH_FILE, WEIGHTS_FILE = "model.xml", "model.bin"

_kept: dict[str, Any] = {}


class OpenVINOOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[openvino]`: how OpenVINO runs the model, here and in Triton."""

    inference_precision: Literal["f32", "bf16"] = "f32"
    """What is not quantized runs in this type. OpenVINO takes bf16 by itself where the CPU has it, and is measured and
    checked here in f32 unless bf16 is asked for."""
    performance_hint: Literal["LATENCY", "THROUGHPUT"] = "LATENCY"
    """OpenVINO's PERFORMANCE_HINT: few callers that wait, or many at once."""


class OpenVINOModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model in OpenVINO's intermediate representation."""

    files: Artifact
    """`model.xml`, the graph, and `model.bin`, the weights."""
    interface: Interface
    version: str
    """The OpenVINO that wrote it."""
    layers: int


@step(version=1, stage="compile", title="Convert to OpenVINO", needs="openvino")
def convert_to_openvino(model: Model) -> OpenVINOModel:
    """Write an ONNX model as OpenVINO's intermediate representation, version 11, weights in their own type.

    Raises:
        StepError: OpenVINO's ONNX frontend refuses the model, or a tensor of the interface lost its name.
    """
    import openvino

    try:
        network = openvino.Core().read_model(str(model.path))
    except RuntimeError as error:
        raise StepError(
            f"OpenVINO {openvino.__version__} refuses the model: {_reason(error)}",
            hint="the message names the operator; convert --to onnxruntime, or export with another --opset",
            code="openvino.refused",
        ) from error
    for specs, ports in ((model.interface.inputs, network.inputs), (model.interface.outputs, network.outputs)):
        for spec in specs:
            if not any(spec.name in port.get_names() for port in ports):
                raise StepError(
                    f"OpenVINO {openvino.__version__} lost the tensor '{spec.name}': an input that nothing reads, or "
                    "an output that is another one's copy",
                    hint="leave the tensor out of config.txt or of the model, or convert --to onnxruntime",
                    code="openvino.lost-tensor",
                )
    folder = new_folder("openvino")
    openvino.save_model(network, str(folder / GRAPH_FILE), compress_to_fp16=False)
    return OpenVINOModel(
        files=gather(folder),
        interface=model.interface,
        version=openvino.__version__.partition("-")[0],
        layers=len(network.get_ops()),
    )


@observation(version=1, stage="check", title="Run OpenVINO", needs="openvino")
def run_openvino(model: OpenVINOModel, *, samples: Tensors, options: OpenVINOOptions) -> Tensors:
    """Return the outputs on the CPU for every case of `samples`, under their wire names.

    Raises:
        StepError: OpenVINO cannot compile the model for this CPU, or fails on an input.
    """
    compiled = _compiled(model, options)
    names = tuple(spec.name for spec in model.interface.outputs)
    return save_tensors(_run(compiled, names, case) for case in samples)


@observation(version=1, stage="measure", title="Ask OpenVINO for its answers", needs="openvino")
def answer_openvino(
    model: OpenVINOModel, *, data: Artifact, outputs: tuple[str, ...], at_most: int | None, options: OpenVINOOptions
) -> Tensors:
    """Return what OpenVINO gives on the CPU for evaluation data: some outputs, a set for each batch.

    Raises:
        InputError: the data do not fit the model, or an output has no row for each sample.
        StepError: OpenVINO cannot compile the model for this CPU, or fails on an input.
    """
    compiled = _compiled(model, options)
    return save_tensors(
        answers_to(model.interface, data, outputs, at_most, lambda inputs: _run(compiled, outputs, inputs)), digits=6
    )


def _run(compiled: Any, names: tuple[str, ...], case: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in case.items())
    try:
        with one_run(f"OpenVINO on the inputs {shapes}"):
            results = compiled(dict(case), share_inputs=False)
    except RuntimeError as error:
        raise StepError(
            f"OpenVINO fails on the inputs {shapes}: {_reason(error)}",
            hint="a dimension that may not be free belongs into config.txt as a number",
            code="openvino.failed",
        ) from error
    return {name: results[name].copy() for name in names}


@observation(version=1, stage="measure", title="Time OpenVINO", needs="openvino")
def time_openvino(model: OpenVINOModel, *, inputs: Tensors, seconds: float, options: OpenVINOOptions) -> Timing:
    """Time one inference request on the first case of `inputs`, copies of the inputs included."""
    key = f"{model.files.digest} {msgspec.json.encode(options).decode()}"
    if key not in _kept:
        _kept[key] = _compiled(model, options).create_infer_request()
    request, case = _kept[key], dict(next(iter(inputs)))
    return time_calls(lambda: request.infer(case, share_inputs=False), seconds)


@observation(version=1, stage="check", title="Count what OpenVINO runs in low precision", needs="openvino")
def openvino_work(model: OpenVINOModel, *, samples: Tensors, options: OpenVINOOptions) -> Work:
    """Count the multiply-accumulates of OpenVINO's compiled graph, at the shapes of the first case of `samples`.

    Convolutions and matrix products are counted; an operator runs in int8 where its primitive does (`..._I8`).
    """
    case = next(iter(samples))
    shapes = {name: list(array.shape) for name, array in case.items()}
    compiled = _compiled(model, options, shapes=shapes)
    macs: dict[str, int] = {}
    for node in compiled.get_runtime_model().get_ops():
        facts = {key: value.astype(str) for key, value in node.get_rt_info().items() if hasattr(value, "astype")}
        count = _macs(facts.get("layerType", ""), node)
        if count:
            integer = facts.get("primitiveType", "").endswith("_I8")
            name = "int8" if integer else _PRECISIONS.get(facts.get("runtimePrecision", ""), "fp32")
            macs[name] = macs.get(name, 0) + count
    return Work(macs=dict(sorted(macs.items())), seen_by=f"OpenVINO {model.version}")


_PRECISIONS = {"f16": "fp16", "bf16": "bf16"}


def _macs(layer: str, node: Any) -> int:
    """Multiply-accumulates of one node of the compiled graph; its weights are [.., in, height, width] for a filter."""
    if layer not in ("Convolution", "FullyConnected", "MatMul"):
        return 0
    left, right = ([int(size) for size in value.get_partial_shape().to_shape()] for value in node.input_values()[:2])
    output = [int(size) for size in node.get_output_partial_shape(0).to_shape()]
    return math.prod(output) * (math.prod(right[1 - len(output) :]) if layer == "Convolution" else left[-1])


def _compiled(model: OpenVINOModel, options: OpenVINOOptions, *, shapes: dict[str, list[int]] | None = None) -> Any:
    """Compile the model for this CPU; for these very input shapes, where they are given."""
    import openvino

    path: Path = model.files.file(GRAPH_FILE)
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": options.inference_precision,
        "PERFORMANCE_HINT": options.performance_hint,
    }
    if (allowed := threads()) is not None:
        settings["INFERENCE_NUM_THREADS"] = allowed
    core = openvino.Core()
    if options.inference_precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        events.warn("openvino.no-bf16", "this CPU has no bf16: OpenVINO runs the model in f32 here")
    try:
        if shapes is None:
            return core.compile_model(str(path), "CPU", settings)
        network = core.read_model(str(path))
        network.reshape(shapes)
        return core.compile_model(network, "CPU", settings)
    except RuntimeError as error:
        raise StepError(
            f"OpenVINO {openvino.__version__} cannot compile the model for this CPU: {_reason(error)}",
            hint="the message names the operator; convert --to onnxruntime instead",
            code="openvino.not-compiled",
        ) from error


def unservable(interface: Interface) -> str | None:
    """Name the first tensor that Triton's openvino backend has no type or shape for; None where it takes them all."""
    for spec in (*interface.inputs, *interface.outputs):
        if spec.dtype is DType.STRING:
            return f"'{spec.name}' holds strings"
        if not spec.dims:
            return f"'{spec.name}' is a scalar"
    return None


def _reason(error: RuntimeError) -> str:
    """Return what OpenVINO says, without the places in its own source."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(("Exception from src", "Check '", "While "))]
    return " ".join(told) or " ".join(lines)
