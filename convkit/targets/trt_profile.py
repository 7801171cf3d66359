"""INT8, FP8 and INT4 as TensorRT and TensorRT-RTX take them. What is refused was measured on TensorRT-RTX 1.7.1."""

from __future__ import annotations

from convkit.graph.quant_profile import Product, QuantProfile, Written

TENSORRT_PROFILE = QuantProfile(
    # The parser refuses uint8, and any zero point but 0.
    signed_activations=True,
    symmetric_activations=True,
    per_channel=True,
    # The parser refuses DequantizeLinear of int32. A layer adds its bias in floating point.
    quantize_bias=False,
    # A layer is INT8 where its inputs are dequantized; what it writes is INT8 where the next one wants it so: pairs
    # stand before what reads INT8, and nowhere else.
    products=(
        Product(type="Conv", writes=Written.FUSED),
        Product(type="ConvTranspose", writes=Written.FUSED),
        Product(type="Gemm", weights=(1, 0), writes=Written.FLOAT),
        # Products of two activations are left to TensorRT's fused attention, which Q/DQ pairs would cut in pieces.
        Product(type="MatMul", weights=(1, 0), writes=Written.FLOAT),
    ),
    joins=("Add", "AveragePool", "GlobalAveragePool"),
    joins_write=Written.FUSED,
    views=("MaxPool",),
    # Convolution, sum and Relu are one layer: of the sum's inputs the convolution's own stays inside it, and a pair
    # there would split it. Relu, Sigmoid, Softmax, Concat and shape operators follow their neighbours.
    absorbed=("Relu", "Clip"),
    residual_branch_only=True,
    # Tensor cores work on 16 channels at a time, and a product with a vector waits for memory, not for arithmetic.
    min_conv_channels=16,
    skip_matrix_vector=True,
    # The parser refuses DynamicQuantizeLinear, ConvInteger and MatMulInteger.
    dynamic=False,
    # Per channel as well, at every operator above (measured on TensorRT-RTX 1.7.1).
    fp8=True,
    # Symmetric blocks of 32, 64 or 128 along the summed axis (measured on TensorRT-RTX 1.7.1).
    four_bits="DequantizeLinear",
    why=(
        "TensorRT's parser refuses any zero point but 0, int32 biases and dynamic quantization (measured on "
        "TensorRT-RTX 1.7.1). It fuses a convolution with what follows it, so Relu, Sigmoid, Softmax, Concat and shape "
        "operators stay as they are, and of a residual Add only the other branch is quantized; convolutions of fewer "
        "than 16 channels and products with a vector gain nothing from int8 there."
    ),
)
