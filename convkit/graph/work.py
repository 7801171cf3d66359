"""How many multiply-accumulates a model needs, and in which precision they run.

Two ways of telling: `declared_work` counts what the graph says (for a runtime that is not here), `executed_work` what
ONNX Runtime's compiled graph really ran, in which a Q/DQ pair that was not fused leaves its operator in fp32.
Shapes come from ONNX Runtime's own profile of one run, so that nothing has to be inferred.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from convkit.graph.model import Model, Tensors, load_model
from convkit.pipeline.artifact import new_folder
from convkit.pipeline.step import observation

if TYPE_CHECKING:
    import onnx

Shape = Sequence[int]

LOW = {"int4": 4, "int8": 8, "fp8": 8, "fp16": 16, "bf16": 16}
"""Bits of every precision below fp32, by its name here."""


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """Multiply-accumulates of one call, by precision."""

    macs: dict[str, int]
    """By ``int4`` (weights of 4 bits, whatever the activations), ``int8``, ``fp8``, ``fp16``, ``bf16``, ``fp32``."""
    seen_by: str | None = None
    """The runtime whose compiled graph was counted; None: counted from the graph that it will be given."""

    @property
    def total(self) -> int:
        """Return all of them."""
        return sum(self.macs.values())

    def share(self, bits: int) -> float:
        """Return the share, 0 to 1, that runs in so many bits or fewer; 0 where there is no work at all."""
        low = sum(count for name, count in self.macs.items() if LOW.get(name, 32) <= bits)
        return low / self.total if self.total else 0.0


class NodeWork(msgspec.Struct, frozen=True, kw_only=True):
    """The multiply-accumulates of one node in one call, and the precision that the graph asks for."""

    macs: int
    precision: str


class Ran(NamedTuple):
    """One operator that ONNX Runtime ran."""

    node: str
    operator: str
    inputs: list[tuple[str, Shape]]
    """Type, as ONNX Runtime calls it (`float`, `uint8`), and shape."""
    output: Shape
    outputs: list[tuple[str, Shape]]


@observation(version=1, stage="check", title="Count what runs in low precision", needs="onnx")
def executed_work(model: Model, *, samples: Tensors) -> Work:
    """Count what ONNX Runtime's compiled graph runs for the first case of `samples`.

    Raises:
        StepError: ONNX Runtime refuses the model or the inputs.
    """
    import onnxruntime

    macs: dict[str, int] = {}
    for ran in ran_operators(model, samples, optimized=True):
        count = _macs(ran)
        if count:
            precision = _precision_of(ran)
            macs[precision] = macs.get(precision, 0) + count
    return Work(macs=_ordered(macs), seen_by=f"ONNX Runtime {onnxruntime.__version__}")


@observation(version=1, stage="check", title="Count what is in low precision", needs="onnx")
def declared_work(model: Model, *, samples: Tensors, runnable: Model | None = None) -> Work:
    """Count what the graph declares for the first case of `samples`: an operator between Q/DQ pairs is low.

    `runnable` is a graph of the same nodes that ONNX Runtime can run here, where it has no kernels for the model's own.

    Raises:
        StepError: ONNX Runtime refuses the model or the inputs.
    """
    macs: dict[str, int] = {}
    for node in node_work.function(model, samples=samples, runnable=runnable).values():
        macs[node.precision] = macs.get(node.precision, 0) + node.macs
    return Work(macs=_ordered(macs))


@observation(version=1, stage="check", title="Count the work of each node", needs="onnx")
def node_work(model: Model, *, samples: Tensors, runnable: Model | None = None) -> dict[str, NodeWork]:
    """Count the same node by node, under the nodes' names; those that multiply nothing are left out.

    Raises:
        StepError: ONNX Runtime refuses the model or the inputs.
    """
    declared = _declared_precisions(load_model(model, weights=False))
    found: dict[str, NodeWork] = {}
    for ran in ran_operators(runnable or model, samples, optimized=False):
        count = _macs(ran)
        if count:
            before = found[ran.node].macs if ran.node in found else 0  # in a loop's body it runs again and again
            found[ran.node] = NodeWork(macs=before + count, precision=declared.get(ran.node, "fp32"))
    return found


@observation(version=1, stage="quantize", title="See where the work is", needs="onnx")
def conv_share(model: Model, *, samples: Tensors) -> float:
    """Return the share of convolutions in the multiply-accumulates of a floating point graph, 0 to 1.

    Raises:
        StepError: ONNX Runtime refuses the model or the inputs.
    """
    by_operator = [(ran.operator, _macs(ran)) for ran in ran_operators(model, samples, optimized=False)]
    total = sum(count for _, count in by_operator)
    return sum(count for operator, count in by_operator if "Conv" in operator) / total if total else 0.0


def ran_operators(model: Model, samples: Tensors, *, optimized: bool) -> Iterator[Ran]:
    """Run the first case once, and yield what ran.

    Weights are not packed, since packed ones hide their shape, and layouts are left as they are, since a blocked one
    pads channels; neither changes which operators are fused to integer ones.
    """
    import onnxruntime

    from convkit.graph.session import run_session, session_options, start_session

    options = session_options(plain=not optimized)
    if optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.enable_profiling = True
    options.profile_file_prefix = str(new_folder("profile") / "run")
    session = start_session(model.path, options)
    case = next(iter(samples))
    run_session(session, tuple(spec.name for spec in model.interface.outputs), case)
    events = msgspec.json.decode(Path(session.end_profiling()).read_bytes())
    for event in events:
        name, details = event.get("name", ""), event.get("args", {})
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            outputs = _typed(details["output_type_shape"])
            yield Ran(
                node=name.removesuffix("_kernel_time"),
                operator=details["op_name"],
                inputs=_typed(details["input_type_shape"]),
                output=outputs[0][1] if outputs else (),
                outputs=outputs,
            )


def _typed(entries: Sequence[Mapping[str, Shape]]) -> list[tuple[str, Shape]]:
    return [next(iter(entry.items())) for entry in entries]


def _inner(position: int) -> Callable[[Ran], int]:
    """A matrix product: one multiply-accumulate for each output and each element of the summed dimension."""

    def count(ran: Ran) -> int:
        rows = math.prod(ran.output[:-1])
        left = ran.inputs[position][1]
        return math.prod(ran.output) * (math.prod(left) // rows if rows else 0)

    return count


def _product(ran: Ran) -> int:
    """MatMul with broadcasting: the summed dimension is the left operand's last."""
    left = ran.inputs[0][1]
    return math.prod(ran.output) * (left[-1] if left else 1)


def _convolution(position: int) -> Callable[[Ran], int]:
    """A convolution: each output sums over one filter, whose shape is that of one row of the weights."""
    return lambda ran: math.prod(ran.output) * math.prod(ran.inputs[position][1][1:])


def _transposed(position: int) -> Callable[[Ran], int]:
    return lambda ran: math.prod(ran.inputs[0][1]) * math.prod(ran.inputs[position][1][1:])


def _recurrent(ran: Ran) -> int:
    """LSTM, GRU, RNN: X [length, batch, input], W [directions, gates x hidden, input], R [.., .., hidden]."""
    (length, batch, _), weights, recurrence = (ran.inputs[index][1] for index in range(3))
    return length * batch * (math.prod(weights) + math.prod(recurrence))


def _attention(ran: Ran) -> int:
    """ONNX Runtime's Attention: three projections of [batch, length, hidden], then length x length products."""
    source, weights = ran.inputs[0][1], ran.inputs[1][1]
    batch, length, _ = source
    return math.prod(source) * weights[-1] + 2 * batch * length * length * (weights[-1] // 3)


_COUNTS: dict[str, Callable[[Ran], int]] = {
    **dict.fromkeys(("Conv", "FusedConv", "NhwcFusedConv", "ConvInteger"), _convolution(1)),
    "QLinearConv": _convolution(3),
    "ConvTranspose": _transposed(1),
    "QLinearConvTranspose": _transposed(3),
    **dict.fromkeys(("Gemm", "FusedGemm", "QGemm"), _inner(0)),
    **dict.fromkeys(
        (
            *("MatMul", "MatMulInteger", "MatMulInteger16", "QLinearMatMul", "MatMulIntegerToFloat"),
            *("DynamicQuantizeMatMul", "MatMulNBits", "MatMulBnb4"),
        ),
        _product,
    ),
    "FusedMatMul": _inner(0),
    **dict.fromkeys(("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"), _recurrent),
    **dict.fromkeys(("Attention", "QAttention"), _attention),
}
_INTEGER = {"DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "QAttention", "MatMulIntegerToFloat"}
_FOUR_BITS = {"MatMulNBits", "MatMulBnb4"}
_TYPES = {"float": "fp32", "double": "fp32", "float16": "fp16", "bfloat16": "bf16", "uint8": "int8", "int8": "int8"}


def _macs(ran: Ran) -> int:
    return _COUNTS[ran.operator](ran) if ran.operator in _COUNTS else 0


def _precision_of(ran: Ran) -> str:
    if ran.operator in _FOUR_BITS:
        return "int4"
    return "int8" if ran.operator in _INTEGER else _TYPES.get(ran.inputs[0][0], "fp32")


def _declared_precisions(proto: onnx.ModelProto) -> dict[str, str]:
    """Return each operator's precision by its node's name: from the Q/DQ pairs before it, else its weights' type."""
    from onnx import TensorProto, shape_inference

    names = {
        **dict.fromkeys((TensorProto.INT8, TensorProto.UINT8), "int8"),
        **dict.fromkeys((TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2), "fp8"),
        **dict.fromkeys((TensorProto.INT4, TensorProto.UINT4), "int4"),
        TensorProto.FLOAT16: "fp16",
        TensorProto.BFLOAT16: "bf16",
    }
    inferred = shape_inference.infer_shapes(proto, strict_mode=False)
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    types |= {value.name: value.type.tensor_type.elem_type for value in (*proto.graph.input, *proto.graph.output)}
    types |= {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    producer = {name: node for node in proto.graph.node for name in node.output}

    def stored(tensor: str) -> str | None:
        """The type in which a tensor comes to its reader; None: in floating point."""
        node = producer.get(tensor)
        while node is not None and node.op_type in ("Transpose", "Reshape", "Cast"):
            tensor = node.input[0]
            node = producer.get(tensor)
        if node is None or node.op_type != "DequantizeLinear":
            return None
        pair = producer.get(node.input[0])
        if node.input[0] in types:
            return names.get(types[node.input[0]])
        if pair is not None and pair.op_type == "QuantizeLinear" and len(pair.input) > 2:
            return names.get(types.get(pair.input[2], 0))
        return None

    found: dict[str, str] = {}
    for node in proto.graph.node:
        if node.op_type not in _COUNTS:
            continue
        if node.op_type in _FOUR_BITS or node.op_type in _INTEGER:
            found[node.name] = "int4" if node.op_type in _FOUR_BITS else "int8"
            continue
        left, right = (stored(name) for name in node.input[:2])
        if right == "int4":
            found[node.name] = "int4"
        elif left is not None and right is not None:
            found[node.name] = left
        else:
            own = (names.get(types.get(name, 0)) for name in node.input[:2])
            found[node.name] = next((name for name in own if name is not None), "fp32")
    return found


def _ordered(macs: Mapping[str, int]) -> dict[str, Any]:
    return {name: macs[name] for name in (*LOW, "fp32") if macs.get(name)}
