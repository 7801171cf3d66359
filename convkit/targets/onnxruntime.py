"""ONNX Runtime on the CPU: the target that runs anywhere."""

from __future__ import annotations

from convkit.graph.model import Model, Tensors
from convkit.graph.quant_profile import QuantProfile
from convkit.graph.session import open_session
from convkit.pipeline.step import observation
from convkit.pipeline.stopwatch import Timing, time_calls

PROFILE = QuantProfile(
    signed_activations=False,
    symmetric_activations=False,
    per_channel=True,
    quantize_bias=True,
    operators=(),
    dynamic=True,
    why=(
        "x86 kernels take uint8 activations against int8 weights (VNNI's own form) and fuse Q/DQ around every operator "
        "that has an integer kernel; one scale for each output channel costs nothing there. Measured on ResNet50: "
        "3.4 times FP32; signed symmetric activations reach 1.2 to 1.5 times."
    ),
)


@observation(version=1, stage="measure", title="Time ONNX Runtime", needs="onnx")
def time_onnxruntime(model: Model, *, inputs: Tensors, seconds: float) -> Timing:
    """Time one session with default threads on the first case of `inputs`, copies of inputs and outputs included."""
    session = open_session(model.path, key=model.files.digest)
    case = next(iter(inputs))
    return time_calls(lambda: session.run(None, case), seconds)
