"""What a target takes of a quantized graph, as data."""

from __future__ import annotations

import msgspec


class QuantProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Placement and form of the Q/DQ pairs that a target runs fast, or at all. Each target declares its own."""

    signed_activations: bool
    """int8 activations; otherwise uint8."""
    symmetric_activations: bool
    """Zero points of activations are 0 (signed) or fixed; a target may refuse any other."""
    per_channel: bool
    """One weight scale for each output channel."""
    quantize_bias: bool
    """Biases become int32 behind a DequantizeLinear."""
    operators: tuple[str, ...]
    """ONNX operator types whose inputs are quantized; empty: all that the quantizer knows."""
    residual_branch_only: bool = False
    """Of an Add, quantize only the input that does not come straight from a convolution."""
    min_conv_channels: int = 0
    """Convolutions with fewer input or output channels than this stay in floating point."""
    skip_matrix_vector: bool = False
    """MatMul and Gemm with one row or column stay in floating point."""
    dynamic: bool = False
    """The target runs DynamicQuantizeLinear, ConvInteger and MatMulInteger."""
    why: str = ""
    """Where these settings come from."""
