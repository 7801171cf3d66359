"""What never changes in a graph: initializers, Constant nodes, and what Identity and Transpose make of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]
    Reader = Callable[[onnx.TensorProto], Array]


class Constants:
    """The constant tensors of a graph's outermost level.

    An initializer that is listed among the graph's inputs too counts: convkit's interfaces leave it out, so that no
    caller can give another value.
    """

    def __init__(self, graph: onnx.GraphProto, read: Reader | None = None) -> None:
        """`read` gives the values of an initializer whose data are left out; by default they are in the graph."""
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._nodes = {
            output: node
            for node in graph.node
            if node.op_type in ("Constant", "Identity", "Transpose")
            for output in node.output
        }
        self._read = read

    def __contains__(self, name: str) -> bool:
        return self.shape(name) is not None

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return a constant's dims, without reading it; None for what is no constant."""
        if name in self._initializers:
            return tuple(self._initializers[name].dims)
        node = self._nodes.get(name)
        if node is None:
            return None
        if node.op_type == "Constant":
            return tuple(self.value(name).shape)
        inner = self.shape(node.input[0])
        if inner is None or node.op_type == "Identity":
            return inner
        return tuple(inner[axis] for axis in _permutation(node, len(inner)))

    def is_float32(self, name: str) -> bool:
        """Tell whether a tensor is a constant of the type float32."""
        import numpy as np
        from onnx import TensorProto

        if name in self._initializers:
            return bool(self._initializers[name].data_type == TensorProto.FLOAT)
        node = self._nodes.get(name)
        if node is None:
            return False
        if node.op_type == "Constant":
            return bool(self.value(name).dtype == np.float32)
        return self.is_float32(node.input[0])

    def value(self, name: str) -> Array:
        """Return a constant's values, a view of them where that is possible.

        Raises:
            KeyError: it is no constant.
        """
        from onnx import numpy_helper

        if name in self._initializers:
            tensor = self._initializers[name]
            return self._read(tensor) if self._read is not None else numpy_helper.to_array(tensor)
        node = self._nodes[name]
        if node.op_type == "Constant":
            return _constant(node)
        inner = self.value(node.input[0])
        return inner if node.op_type == "Identity" else inner.transpose(_permutation(node, inner.ndim))


def _permutation(node: onnx.NodeProto, rank: int) -> tuple[int, ...]:
    given = next((tuple(attribute.ints) for attribute in node.attribute if attribute.name == "perm"), None)
    return given if given is not None else tuple(reversed(range(rank)))


def _constant(node: onnx.NodeProto) -> Array:
    import numpy as np
    from onnx import helper, numpy_helper

    [attribute] = node.attribute
    if attribute.name == "value":
        return np.asarray(numpy_helper.to_array(attribute.t))
    value = helper.get_attribute_value(attribute)
    return np.asarray(value, np.float32 if attribute.name.startswith("value_float") else None)
