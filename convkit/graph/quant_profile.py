"""What a target makes of a quantized graph, as data: which operators take INT8, and in which form."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

FourBits = Literal["MatMulNBits", "DequantizeLinear"]
"""How INT4 weights are read: by ONNX Runtime's own operator, or ONNX's DequantizeLinear in blocks (opset 21)."""


class Number(StrEnum):
    """What weights and activations are multiplied as."""

    INT8 = "int8"
    FP8 = "fp8"
    """E4M3: a sign, 4 bits of exponent and 3 of mantissa, no infinities, 448 at most (ONNX's FLOAT8E4M3FN)."""


class Written(StrEnum):
    """What an operator that computes in INT8 leaves behind it."""

    PAIR = "pair"
    """INT8 and nothing else: a Q/DQ pair always stands behind it, and every reader reads that."""
    FUSED = "fused"
    """INT8 where a reader wants it, floating point for the others; no pair of its own."""
    FLOAT = "float"
    """Floating point; a pair that one of its readers wants is fused with it where all of them want it."""


class Rewrite(StrEnum):
    """A form that the target's runtime would fuse wrongly, or not at all, in the presence of Q/DQ pairs."""

    PRODUCT_WITH_BIAS = "product-with-bias"
    """MatMul and Add of a constant become Gemm, where matrices are multiplied."""
    SUM_BEFORE_NORM = "sum-before-norm"
    """The Add before a LayerNormalization becomes Sum."""
    MEAN_AS_POOL = "mean-as-pool"
    """The mean of an image's points becomes GlobalAveragePool, which has an integer kernel."""
    POOL_BEFORE_RELU = "pool-before-relu"
    """MaxPool comes before the Relu of a convolution that stays in floating point."""
    JOINED_SHORTCUTS = "joined-shortcuts"
    """Two convolutions of one point that are added up become one of both inputs."""
    NARROW_SUMS = "narrow-sums"
    """Tensors of few channels are held twice, half a step apart (`narrow_channels`, `narrow_points`)."""
    GELU_ORDER = "gelu-order"
    """Gelu's factors are multiplied in the order in which the runtime knows it."""


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """An operator with weights that is computed in INT8: a convolution, a matrix product."""

    type: str
    """ONNX's name of the operator."""
    weights: tuple[int, ...] = (1,)
    """The inputs that may be the constant weights; the first that is one."""
    writes: Written
    constant_weights_only: bool = True
    """Leave a product of two activations as it is."""
    scores: bool = False
    """But quantize an attention's scores, both activations in int8 around zero, where nothing else reads these."""


class QuantProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Placement and form of the Q/DQ pairs that a target runs fast, or at all. Each target declares its own."""

    signed_activations: bool
    """int8 activations; otherwise uint8."""
    symmetric_activations: bool
    """The zero point of activations is the middle of their type."""
    per_channel: bool
    """One weight scale for each output channel. Weights are int8 around zero everywhere."""
    quantize_bias: bool
    """Biases become int32 behind a DequantizeLinear; a bias that is not constant then keeps its node as it is."""
    products: tuple[Product, ...]
    """What is worth quantizing for its own sake."""
    joins: tuple[str, ...] = ()
    """Operators that are quantized, input and output, where all their inputs come quantized (or are constant) and
    what they write is read by something quantized: between two convolutions they spare the way to float and back."""
    joins_write: Written = Written.PAIR
    views: tuple[str, ...] = ()
    """Operators that move numbers and make no new ones: what comes quantized leaves in its own scale."""
    absorbed: tuple[str, ...] = ("Relu", "Clip")
    """Operators that disappear in the one before them: the pair stands behind both, and its range does their work."""
    residual_branch_only: bool = False
    """Of an Add, quantize only the input that does not come straight from a convolution: that one is fused with it."""
    min_conv_channels: int = 0
    """Convolutions with fewer input or output channels than this stay in floating point."""
    thin_channels: int = 0
    thin_sums: int = 0
    """Convolutions with fewer channels in a group than the one, that sum fewer products for each output than the other,
    stay in floating point, where they read it anyway and convolutions alone read them: those of an image, depthwise
    ones behind them."""
    pooled_sums: int = 0
    """The same where a MaxPool reads them, before their Relu (`Rewrite.POOL_BEFORE_RELU`)."""
    skip_matrix_vector: bool = False
    """MatMul and Gemm whose weights have one row or column stay in floating point."""
    tables: bool = False
    """Write embedding tables in int8, one scale for each row, and look rows up before they are dequantized."""
    narrow_channels: int = 0
    narrow_points: int = 1
    """Most channels, and least points of an image, of what convolutions of one point write and read that is held twice,
    half a step apart: a rounding half as coarse (`Rewrite.NARROW_SUMS`)."""
    fitted_sums: int = 0
    """Weights that sum at most so many products are rounded together, for the least error on calibration data, not each
    to the nearest number."""
    rewrites: tuple[Rewrite, ...] = ()
    """What is done to the graph first."""
    dynamic: bool = False
    """The target runs DynamicQuantizeLinear, ConvInteger and MatMulInteger."""
    four_bits: FourBits | None = None
    """How the target reads INT4 weights; None: not at all."""
    fp8: bool = False
    """The target takes FP8 in place of INT8, placed alike."""
    number: Number = Number.INT8
    """What is asked for."""
    why: str = ""
    """Where these settings come from."""

    def in_fp8(self) -> QuantProfile:
        """Return the same placement for FP8, which has neither zero points nor sums in int32."""
        return msgspec.structs.replace(
            self,
            number=Number.FP8,
            signed_activations=True,
            symmetric_activations=True,
            quantize_bias=False,
            tables=False,
        )

    def product(self, operator: str) -> Product | None:
        """Return how an operator of that type is quantized as a product."""
        return next((product for product in self.products if product.type == operator), None)
