"""Q/DQ pairs, and other forms of quantization, that TensorRT does not take."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from preflight.making import I8, I32, NUMBERS, F, broken, floats, model, node


def pair(
    tensor: str, name: str, scale: float = 0.05, zero: np.generic | None = None
) -> tuple[list[Any], dict[str, Any]]:
    """Q and DQ of a tensor: the nodes, and their constants."""
    point = np.int8(0) if zero is None else zero
    consts = {f"{name}_s": np.float32(scale), f"{name}_z": np.asarray(point)}
    nodes = [
        node("QuantizeLinear", f"{tensor} {name}_s {name}_z", f"{name}_q", f"{name}_Q"),
        node("DequantizeLinear", f"{name}_q {name}_s {name}_z", f"{name}_d", f"{name}_DQ"),
    ]
    return nodes, consts


def quantized_conv(
    zero: np.generic | None = None,
    weight: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
    bias: str = "float",
) -> onnx.ModelProto:
    """Q/DQ, Conv with quantized weights, Relu."""
    nodes, consts = pair("x", "act", zero=zero)
    raw, scale, point = weight or (
        NUMBERS.integers(-127, 128, (8, 4, 3, 3)).astype(np.int8),
        np.full(8, 0.01, np.float32),
        np.zeros(8, np.int8),
    )
    consts |= {"w_q": raw, "w_s": scale, "w_z": point}
    axis = {"axis": 0} if np.ndim(scale) else {}
    nodes.append(node("DequantizeLinear", "w_q w_s w_z", "w_d", "weight_DQ", **axis))
    if bias == "int32":
        consts |= {
            "b_q": np.arange(8, dtype=np.int32),
            "b_s": np.full(8, 5e-4, np.float32),
            "b_z": np.zeros(8, np.int32),
        }
        nodes.append(node("DequantizeLinear", "b_q b_s b_z", "b", "bias_DQ", axis=0))
    else:
        consts["b"] = floats(8)
    nodes.append(node("Conv", "act_d w_d b", "c", "conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
    nodes.append(node("Relu", "c", "y", "relu"))
    return model(nodes, {"x": (F, [1, 4, 8, 8])}, {"y": (F, [1, 8, 8, 8])}, consts)


@broken("act_Q", "QuantizeLinear", mended=True)
def asymmetric_uint8_activations() -> onnx.ModelProto:
    """uint8 activations with a zero point of 128, as quantizers for CPUs write them."""
    return quantized_conv(zero=np.uint8(128))


@broken("act_Q", "QuantizeLinear", mended=True)
def asymmetric_int8_activations() -> onnx.ModelProto:
    """int8 activations with a zero point of -20."""
    return quantized_conv(zero=np.int8(-20))


@broken("act_Q", "QuantizeLinear", mended=True)
def uint8_activations_around_zero() -> onnx.ModelProto:
    """uint8 activations with a zero point of 0."""
    return quantized_conv(zero=np.uint8(0))


@broken("weight_DQ", "DequantizeLinear", mended=True)
def asymmetric_weights() -> onnx.ModelProto:
    """uint8 weights with zero points that differ by channel."""
    raw = NUMBERS.integers(0, 256, (8, 4, 3, 3)).astype(np.uint8)
    return quantized_conv(weight=(raw, np.full(8, 0.01, np.float32), np.arange(120, 128, dtype=np.uint8)))


@broken("bias_DQ", "DequantizeLinear", mended=True)
def int32_bias() -> onnx.ModelProto:
    """A bias as int32 with a DequantizeLinear, as ONNX Runtime's quantizer writes it."""
    return quantized_conv(bias="int32")


@broken("act_Q", "QuantizeLinear")
def int16_activations() -> onnx.ModelProto:
    """int16 activations."""
    nodes, consts = pair("x", "act", zero=np.int16(0))
    nodes.append(node("Relu", "act_d", "y", "relu"))
    return model(nodes, {"x": (F, [2, 6])}, {"y": (F, [2, 6])}, consts, opset=21)


@broken("act_Q", "QuantizeLinear", mended=True)
def scale_of_zero() -> onnx.ModelProto:
    """A scale of 0: a dead channel's range, as some calibrations write it."""
    nodes, consts = pair("x", "act", scale=0.0)
    nodes.append(node("Relu", "act_d", "y", "relu"))
    return model(nodes, {"x": (F, [2, 6])}, {"y": (F, [2, 6])}, consts)


@broken("weight_DQ", "DequantizeLinear", mended=True)
def scales_along_another_axis() -> onnx.ModelProto:
    """Scales for 8 channels along an axis of 4."""
    made = quantized_conv()
    [dq] = [each for each in made.graph.node if each.name == "weight_DQ"]
    dq.attribute[0].i = 1
    return made


@broken("dynamic_Q", "DynamicQuantizeLinear")
def dynamic_quantization() -> onnx.ModelProto:
    """What ONNX Runtime's quantize_dynamic writes for a product."""
    nodes = [
        node("DynamicQuantizeLinear", "x", "q s z", "dynamic_Q"),
        node("MatMulInteger", "q w z wz", "i", "product"),
        node("Cast", "i", "f", "cast", to=F),
        node("Mul", "f s", "y", "rescale"),
    ]
    weights = {"w": NUMBERS.integers(-99, 99, (6, 5)).astype(np.int8), "wz": np.int8(0)}
    return model(nodes, {"x": (F, [2, 6])}, {"y": (F, [2, 5])}, weights)


@broken("product", "MatMulInteger")
def integer_product() -> onnx.ModelProto:
    """A product of int8 matrices on the model's own inputs."""
    nodes = [node("MatMulInteger", "x w", "y", "product")]
    weights = {"w": NUMBERS.integers(-99, 99, (6, 5)).astype(np.int8)}
    return model(nodes, {"x": (I8, [2, 6])}, {"y": (I32, [2, 5])}, weights)


@broken("conv", "QLinearConv")
def operator_form_of_quantization() -> onnx.ModelProto:
    """QLinearConv, the operator form of quantization."""
    nodes = [
        node("QuantizeLinear", "x s z", "q", "in_Q"),
        node("QLinearConv", "q s z w s z s z", "r", "conv", kernel_shape=[3, 3]),
        node("DequantizeLinear", "r s z", "y", "out_DQ"),
    ]
    weights = {"s": np.float32(0.1), "z": np.int8(0), "w": NUMBERS.integers(-9, 9, (8, 4, 3, 3)).astype(np.int8)}
    return model(nodes, {"x": (F, [1, 4, 8, 8])}, {"y": (F, [1, 8, 6, 6])}, weights)
