"""Dynamic INT8: weights in INT8 once, activations scaled to each input as it comes.

A product x W becomes what ONNX Runtime fuses to one integer kernel:
DynamicQuantizeLinear(x) -> MatMulInteger with W in int8 -> Cast -> times the scale of x and that of each column.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from convkit.errors import UsageError
from convkit.graph.model import Model, load_model
from convkit.graph.names import name_nodes, strip_origins
from convkit.graph.weights import ModelWriter, Weights
from convkit.pipeline import events
from convkit.pipeline.step import step
from convkit.quantize.constants import Constants
from convkit.quantize.grid import Rounded, round_weight
from convkit.quantize.result import Quantized

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_RECURRENT = ("LSTM",)
_LARGE_TABLE = 1 << 16
"""Elements of an embedding table from which on it is worth a scale for each row."""


@step(version=2, stage="quantize", title="Quantize dynamically", needs="onnx")
def quantize_dynamic(model: Model) -> Quantized:
    """Write the weights of matrix products in INT8, one scale for each column; activations are scaled at run time.

    LSTMs take part, in ONNX Runtime's own operator, and large embedding tables, one scale for each row. Convolutions
    stay in floating point: ONNX Runtime's ConvInteger is several times slower than its FP32 kernel. Weights are read,
    rounded and written one at a time.

    Raises:
        UsageError: the graph has no matrix product with constant weights.
        StepError: a weight is not finite.
    """
    weights = Weights(model)
    proto = load_model(model, weights=False)
    name_nodes(proto.graph)
    writer = ModelWriter(expected_bytes=model.files.bytes // 4)
    work = _Dynamic(proto, weights, writer)
    work.run()
    convolutions = sum(node.op_type in _CONVOLUTIONS for node in proto.graph.node)
    if not work.products:
        raise UsageError(
            "dynamic INT8 works on matrix products with constant weights, and the model has none",
            hint="use --quantize int8 with --calibration-data" if convolutions else "leave --quantize out",
            code="quantize.nothing-to-do",
        )
    if convolutions:
        events.warn(
            "quantize.convolutions-kept",
            f"{convolutions} convolutions stay in FP32: dynamic INT8 would make them slower, "
            "--quantize int8 with calibration data makes them faster",
        )
    strip_origins(proto)
    proto.producer_name, proto.producer_version = "", ""
    proto.graph.ClearField("value_info")
    if work.recurrent and not any(entry.domain == "com.microsoft" for entry in proto.opset_import):
        proto.opset_import.add(domain="com.microsoft", version=1)
    return Quantized(model=writer.finish(proto, model.interface), method="at run time", samples=0)


class _Dynamic:
    def __init__(self, proto: onnx.ModelProto, weights: Weights, writer: ModelWriter) -> None:
        self.graph = proto.graph
        self.weights = weights
        self.writer = writer
        self.constants = Constants(proto.graph, lambda tensor: weights.array(tensor.name))
        self.products = self.recurrent = 0
        self.quantized: dict[str, tuple[str, str, str]] = {}
        """Activations that are scaled already: their integers, scale and zero point."""
        self.rounded: dict[tuple[str, bool], tuple[str, str, str]] = {}
        """Weights that are written already, by name and whether they were transposed."""

    def run(self) -> None:
        nodes: list[onnx.NodeProto] = []
        for node in self.graph.node:
            nodes.extend(self._rewritten(node))
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        read = {name for node in self.graph.node for name in node.input} | _captured(self.graph)
        read |= {value.name for value in self.graph.output}
        for name in self.weights.names:
            if name in read:
                self.writer.add(self.weights.tensor(name))

    def _rewritten(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        if node.op_type == "MatMul" and self._is_matrix(node.input[1]):
            yield from self._product(node, node.input[1], node.output[0])
        elif node.op_type == "Gemm" and self._is_plain_gemm(node):
            yield from self._gemm(node)
        elif node.op_type == "Gather" and self._is_table(node):
            yield from self._table(node)
        elif node.op_type in _RECURRENT and self._is_recurrent(node):
            yield self._lstm(node)
        else:
            yield node

    def _is_matrix(self, name: str) -> bool:
        shape = self.constants.shape(name)
        return shape is not None and len(shape) == 2 and min(shape) > 1 and self.constants.is_float32(name)

    def _is_plain_gemm(self, node: onnx.NodeProto) -> bool:
        given = _attributes(node)
        plain = not given.get("transA") and given.get("alpha", 1.0) == 1.0 and given.get("beta", 1.0) == 1.0
        return plain and self._is_matrix(node.input[1])

    def _is_table(self, node: onnx.NodeProto) -> bool:
        shape = self.constants.shape(node.input[0])
        large = shape is not None and len(shape) == 2 and shape[0] * shape[1] >= _LARGE_TABLE
        return large and not _attributes(node).get("axis") and self.constants.is_float32(node.input[0])

    def _is_recurrent(self, node: onnx.NodeProto) -> bool:
        return all(
            (shape := self.constants.shape(name)) is not None and len(shape) == 3 and self.constants.is_float32(name)
            for name in node.input[1:3]
        )

    def _gemm(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        from onnx import helper

        transposed = bool(_attributes(node).get("transB"))
        bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
        product = f"{node.output[0]}_product" if bias else node.output[0]
        yield from self._product(node, node.input[1], product, transposed=transposed)
        if bias:
            yield helper.make_node("Add", [product, bias], [node.output[0]], f"{node.name}_bias")

    def _product(
        self, node: onnx.NodeProto, weight: str, output: str, *, transposed: bool = False
    ) -> Iterator[onnx.NodeProto]:
        from onnx import TensorProto, helper

        source = node.input[0]
        if source not in self.quantized:
            names = (f"{source}_quantized", f"{source}_scale", f"{source}_zero_point")
            yield helper.make_node("DynamicQuantizeLinear", [source], list(names), f"{source}_quantize")
            self.quantized[source] = names
        integers, scale, zero = self.quantized[source]
        values, columns, zeros = self._matrix(weight, transposed=transposed)
        inner, real, scales = (f"{output}_{part}" for part in ("integers", "cast", "scales"))
        yield helper.make_node("MatMulInteger", [integers, values, zero, zeros], [inner], node.name)
        yield helper.make_node("Cast", [inner], [real], f"{node.name}_cast", to=TensorProto.FLOAT)
        yield helper.make_node("Mul", [scale, columns], [scales], f"{node.name}_scales")
        yield helper.make_node("Mul", [real, scales], [output], f"{node.name}_scale")
        self.products += 1

    def _matrix(self, weight: str, *, transposed: bool) -> tuple[str, str, str]:
        """Write a weight [K, N] in int8, and its scales [N]; return the names of values, scales and zero points."""
        import numpy as np

        if (weight, transposed) not in self.rounded:
            array = self.constants.value(weight)
            rounded = self._round(weight, array, 0 if transposed else 1)
            values = np.ascontiguousarray(rounded.values.T) if transposed else rounded.values
            stem = f"{weight}_transposed" if transposed else weight
            self.rounded[weight, transposed] = self._write(stem, values, rounded.scale)
        return self.rounded[weight, transposed]

    def _table(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Gather rows in int8 and, beside them, their scales."""
        from onnx import TensorProto, helper

        name = node.input[0]
        if (name, False) not in self.rounded:
            rounded = self._round(name, self.constants.value(name), 0)
            self.rounded[name, False] = self._write(name, rounded.values, rounded.scale[:, None])
        values, scales, _ = self.rounded[name, False]
        output = node.output[0]
        rows, real, row_scales = (f"{output}_{part}" for part in ("rows", "cast", "scales"))
        yield helper.make_node("Gather", [values, node.input[1]], [rows], node.name)
        yield helper.make_node("Gather", [scales, node.input[1]], [row_scales], f"{node.name}_scales")
        yield helper.make_node("Cast", [rows], [real], f"{node.name}_cast", to=TensorProto.FLOAT)
        yield helper.make_node("Mul", [real, row_scales], [output], f"{node.name}_scale")

    def _lstm(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """ONNX Runtime's DynamicQuantizeLSTM: W and R transposed, [directions, input, 4 hidden], a scale by column."""
        import numpy as np
        from onnx import helper

        names: list[tuple[str, str, str]] = []
        for weight in node.input[1:3]:
            key = (weight, True)
            if key not in self.rounded:
                parts = [self._round(weight, part, 0) for part in self.constants.value(weight)]
                values = np.stack([np.ascontiguousarray(part.values.T) for part in parts])
                self.rounded[key] = self._write(
                    f"{weight}_transposed", values, np.stack([part.scale for part in parts])
                )
            names.append(self.rounded[key])
        rest = [*node.input[3:8], *[""] * (5 - len(node.input[3:8]))]
        (w, w_scale, w_zero), (r, r_scale, r_zero) = names
        made = helper.make_node(
            "DynamicQuantizeLSTM",
            [node.input[0], w, r, *rest, w_scale, w_zero, r_scale, r_zero],
            list(node.output),
            node.name,
            domain="com.microsoft",
        )
        made.attribute.extend(attribute for attribute in node.attribute if attribute.name != "layout")
        self.products += 1
        self.recurrent += 1
        return made

    def _round(self, name: str, array: Array, axis: int) -> Rounded:
        from convkit.errors import StepError

        try:
            return round_weight(array, axis)
        except ValueError as error:
            raise StepError(
                f"the weight '{name}' holds {error}",
                hint="no scale can hold that: mend the model, or leave --quantize out",
                code="quantize.not-finite",
            ) from error

    def _write(self, stem: str, values: Array, scale: Array) -> tuple[str, str, str]:
        import numpy as np
        from onnx import numpy_helper

        names = (f"{stem}_int8", f"{stem}_column_scale", f"{stem}_column_zero")
        zeros = np.zeros(scale.shape, np.int8)
        for name, array in zip(names, (values, scale.astype(np.float32), zeros), strict=True):
            self.writer.add(numpy_helper.from_array(array, name))
        return names


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _captured(graph: onnx.GraphProto) -> set[str]:
    """Return every name that loops and branches read."""
    found: set[str] = set()
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.g.node else []), *attribute.graphs):
                found |= {name for each in inner.node for name in each.input} | _captured(inner)
                found |= {value.name for value in inner.output}
    return found
