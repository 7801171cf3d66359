"""INT8 as OpenVINO's low-precision transformations take it."""

from __future__ import annotations

from convkit.graph.quant_profile import Product, QuantProfile, Written

PROFILE = QuantProfile(
    signed_activations=False,
    symmetric_activations=False,
    per_channel=True,
    # A layer adds its bias in floating point.
    quantize_bias=False,
    # The transformations carry INT8 through the graph themselves: a pair before what reads INT8 is enough.
    products=(
        Product(type="Conv", writes=Written.FUSED),
        Product(type="ConvTranspose", writes=Written.FUSED),
        Product(type="Gemm", writes=Written.FLOAT),
        # Its attention reads queries and keys in int8: an encoder of 6 layers takes 4 % less time, for 0.3 dB. It would
        # take 4 % less again with what the Softmax makes of them in uint8, but there a steep row spoils all flat ones.
        Product(type="MatMul", writes=Written.FLOAT, scores=True),
    ),
    # What is rounded at the entry is heard in all that follows. MobileNetV2's first four convolutions in FP32 leave
    # 2.8 dB less noise and take a quarter more time, which is still less than NNCF's INT8 takes; ResNet50's first, of
    # 147 products, would take 7 % more for 1.1 dB.
    thin_channels=33,
    thin_sums=33,
    joins=("Add", "AveragePool", "GlobalAveragePool"),
    joins_write=Written.FUSED,
    # A convolution adds the other branch to its sums as it is: ResNet50 takes 3 % less time than with both rounded.
    residual_branch_only=True,
    views=("MaxPool",),
    # Of few products rounding errors average out least, and they stand at the entry of a network. A channel's weights
    # rounded together cost nothing when the model runs: ResNet50's weights add 4 dB less noise, and leave 0.5 dB
    # less altogether.
    fitted_sums=256,
    dynamic=False,
    # Unpacked as they are multiplied.
    four_bits="DequantizeLinear",
    why=(
        "OpenVINO's low-precision transformations want uint8 activations and int8 weights, one scale for each output "
        "channel, and carry them through the graph themselves; they read the bias in floating point. Measured on "
        "ResNet50: a file in ONNX Runtime's form runs as fast as OpenVINO's own."
    ),
)
