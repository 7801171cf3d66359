"""INT8 as ONNX Runtime's CPU kernels want it.

Fused here means: in the optimized graph of ONNX Runtime 1.31 there is one integer operator in place of
DequantizeLinear, the operator and QuantizeLinear. Each line below was seen there.
"""

from __future__ import annotations

from convkit.graph.quant_profile import Product, QuantProfile, Rewrite, Written

PROFILE = QuantProfile(
    # x86 multiplies unsigned by signed bytes (VNNI; on older CPUs by pairs, which can saturate): uint8 times int8.
    # Signed activations reach half the speed. A free zero point costs nothing, and gives what follows a Relu 8 bits.
    signed_activations=False,
    symmetric_activations=False,
    # One scale for each output channel goes into the requantization, which is there anyway.
    per_channel=True,
    # QLinearConv and QGemm take int32 biases only: with a bias in floating point nothing is fused.
    quantize_bias=True,
    products=(
        # QLinearConv writes INT8 only: without a pair behind it the convolution runs in FP32. Depthwise ones too.
        Product(type="Conv", writes=Written.PAIR),
        # QGemm and MatMulIntegerToFloat write FP32 as well: what a Softmax or a LayerNormalization reads keeps its
        # precision, and nothing is rounded twice. ConvTranspose has no integer kernel.
        Product(type="Gemm", writes=Written.FLOAT),
        # Of two activations, the products of attention: in INT8 three times slower than in FP32, and less exact.
        Product(type="MatMul", writes=Written.FLOAT),
    ),
    # VNNI sums four channels at a time; with fewer, INT8 is no faster. In microseconds, FP32 against INT8 with what
    # turns the image into it: MobileNetV2's first convolution 236 : 326, its first depthwise one 107 : 139, but
    # ResNet50's first, of 147 products, 982 : 930. With both in FP32 MobileNetV2 takes a tenth less time.
    thin_channels=4,
    thin_sums=64,
    # Before a MaxPool fewer numbers are rounded, and the pool is as fast in FP32: ResNet50 has 1.5 dB less noise.
    pooled_sums=192,
    joins=(
        # QLinearAdd, QLinearMul, QLinearConcat, QLinearAveragePool, QLinearGlobalAveragePool, QLinearSigmoid,
        # QLinearLeakyRelu. QLinearSoftmax is ten times slower than Softmax.
        *("Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "Sigmoid", "LeakyRelu"),
        # No integer kernel, but between two convolutions there is a pair on either side of them in any case, and
        # with it the products of MobileNetV3's gates stay in INT8.
        *("HardSigmoid", "HardSwish"),
    ),
    joins_write=Written.PAIR,
    # Integer kernels that want the same scale before and behind.
    views=(
        *("MaxPool", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity"),
        *("Slice", "Gather", "Split", "DepthToSpace", "Expand", "Tile", "Resize"),
    ),
    # Relu and Clip before QuantizeLinear are dropped, for the range begins at 0 and ends at the bound or before it.
    absorbed=("Relu", "Clip"),
    # Three small operators more for each lookup, and a quarter of the table's size.
    tables=True,
    # Of a network's early blocks every rounding is heard in all that follows. What has up to 32 channels on images of
    # 56x56 points, held twice, half a step apart, takes 0.8 dB of MobileNetV2's noise away for about 5 % more
    # time in its kernels, with no operator more; on 28x28 points, too, another 0.2 dB. 0 channels turns it off.
    narrow_channels=32,
    narrow_points=3000,
    # Of few products rounding errors average out least, and they stand at the entry of a network. A channel's weights
    # rounded together cost nothing when the model runs: MobileNetV2's weights add 1.4 dB less noise, and leave
    # 0.1 to 0.3 dB less altogether.
    fitted_sums=256,
    rewrites=(
        # MatMul and Add of a constant are fused to a Gemm before Q/DQ pairs are looked at, and its bias is FP32 then.
        Rewrite.PRODUCT_WITH_BIAS,
        # Behind a convolution in FP32 QuantizeLinear moves before the MaxPool, whose kernel for bytes costs ResNet50
        # 3 ms more. A Relu between the two holds it back, and disappears in it.
        Rewrite.POOL_BEFORE_RELU,
        # A QLinearAdd and a QLinearConv less; QLinearConcat with one scale only copies. ResNet50 takes 2 % less time
        # and has 0.4 dB less noise, 1 dB where its first convolution is in FP32.
        Rewrite.JOINED_SHORTCUTS,
        # Wider convolutions and sums, but as many.
        Rewrite.NARROW_SUMS,
        # ReduceMean has no integer kernel, and would have what it reads turned back to floating point and NCHW.
        Rewrite.MEAN_AS_POOL,
        # SkipLayerNormalization is slower than Add and LayerNormalization: an encoder takes 1.6 times as long with it.
        Rewrite.SUM_BEFORE_NORM,
        # BiasGelu is one pass over what five operators go through one after another: 8 % of an encoder.
        Rewrite.GELU_ORDER,
    ),
    dynamic=True,
    # Unpacked inside the kernel; the block form of DequantizeLinear would be unpacked to FP32 for every call.
    four_bits="MatMulNBits",
    why=(
        "x86 kernels take uint8 activations against int8 weights (VNNI's own form) and fuse Q/DQ around every operator "
        "that has an integer kernel; one scale for each output channel costs nothing there. Measured on ResNet50: "
        "3.4 times FP32; signed symmetric activations reach 1.2 to 1.5 times."
    ),
)
