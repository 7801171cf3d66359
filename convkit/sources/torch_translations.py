"""Operators of torch's own that its exporter does not write, or not for complex numbers, as ONNX."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


@functools.cache
def own_translations() -> dict[Any, Callable[..., Any]]:
    """Return them for ``torch.onnx.export(custom_translation_table=...)``; those for complex numbers are registered."""
    import torch
    from onnx import TensorProto
    from onnxscript import opset18
    from onnxscript.function_libs.torch_lib.registration import torch_op

    op: Any = opset18

    def is_all_true(flags: Any) -> Any:
        """What `torch._check_tensor_all` asks; nothing reads it where the check itself is left out of the graph."""
        least = op.ReduceMin(op.Cast(flags, to=TensorProto.INT32), keepdims=0)
        return op.Cast(least, to=TensorProto.BOOL)

    def unsqueeze_complex(self: Any, dim: int) -> Any:
        """Leave the last dimension, of real and imaginary parts, the last."""
        return op.Unsqueeze(self, [dim - 1 if dim < 0 else dim])

    torch_op("aten::unsqueeze", trace_only=True, complex=True)(unsqueeze_complex)
    return {torch.ops.aten._is_all_true.default: is_all_true}
