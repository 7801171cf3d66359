"""TensorRT and TensorRT-RTX as targets: what they take of a quantized graph.

trt_api        the seam to the modules `tensorrt` and `tensorrt_rtx`; trt_types says what of them is used
trt_options    the recipe's tables          trt_profiles   the shapes that an engine is built for
trt_parse      the parser's verdict         trt_findings   that verdict in words, with what to do
trt_build      ONNX to an engine            trt_run        an engine on recorded inputs
build_plan     build.json, for an engine that is built elsewhere
"""

from __future__ import annotations

from convkit.graph.quant_profile import QuantProfile

TENSORRT_PROFILE = QuantProfile(
    signed_activations=True,
    symmetric_activations=True,
    per_channel=True,
    quantize_bias=False,
    operators=("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "AveragePool", "MaxPool"),
    residual_branch_only=True,
    min_conv_channels=16,
    skip_matrix_vector=True,
    dynamic=False,
    why=(
        "TensorRT's parser refuses any zero point but 0, int32 biases and dynamic quantization (measured on "
        "TensorRT-RTX 1.7.1). It fuses a convolution with what follows it, so Relu, Sigmoid, Softmax, Concat and shape "
        "operators stay as they are, and of a residual Add only the other branch is quantized; convolutions of fewer "
        "than 16 channels and products with a vector gain nothing from int8 there."
    ),
)
