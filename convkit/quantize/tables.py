"""Embedding tables in INT8: a row is looked up in integers, and only that row becomes floating point again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convkit.quantize.constants import Constants
from convkit.quantize.draft import Draft
from convkit.quantize.grid import round_weight
from convkit.quantize.products import not_finite

if TYPE_CHECKING:
    import onnx


def write_table(draft: Draft, constants: Constants, node: onnx.NodeProto) -> str:
    """Write a lookup with one scale for each row, in place of `node`; return what it results in.

    Q/DQ would have to stand between table and lookup, and the whole table be dequantized to find one row.

    Raises:
        StepError: the table holds NaN or infinity.
    """
    from onnx import TensorProto, helper

    table, rows = node.input[0], node.input[1]
    try:
        rounded = round_weight(constants.value(table), 0)
    except ValueError as error:
        raise not_finite(f"the table '{table}'", str(error)) from error
    whole, scale, number = (draft.new(f"{node.output[0]}__{part}") for part in ("whole", "scale", "number"))
    result: str = node.output[0]
    node.input[0] = draft.tensor(f"{table}__quantized", rounded.values)
    node.output[0] = whole
    draft.replace(table)
    scales = draft.tensor(f"{table}__scale", rounded.scale[:, None])
    draft.nodes.append(node)
    draft.node("Gather", [scales, rows], scale, f"{result}__scales")
    draft.nodes.append(
        helper.make_node("Cast", [whole], [number], name=draft.new(f"{result}__cast"), to=TensorProto.FLOAT)
    )
    draft.node("Mul", [number, scale], result, f"{result}__dequantize")
    return result
