"""An attention's scores: the product of two activations that a Softmax makes weights of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_ON_THE_WAY = frozenset({"Add", "Sub", "Mul", "Div", "Where", "Identity", "Reshape"})
"""What scores pass before their Softmax: a scale, a mask, a bias."""


def are_scores(name: str, readers: Callable[[str], Iterable[onnx.NodeProto]]) -> bool:
    """Tell whether a Softmax reads a tensor, or what was added to it and multiplied with it, and nothing else does.

    Args:
        name: of the tensor.
        readers: gives the nodes that read one.
    """
    nodes = list(readers(name))
    return bool(nodes) and all(
        node.op_type == "Softmax" or (node.op_type in _ON_THE_WAY and are_scores(node.output[0], readers))
        for node in nodes
    )
