"""convkit's own rules for TensorRT: what its parser and builder refuse, told without either.

trt_rules_forms    forms of operators        trt_rules_types    element types, inputs and outputs
trt_rules_quant    Q/DQ pairs                trt_rules_shapes   shapes under the optimization profiles

Each rule is one row of a table: which operators it looks at, what is wrong with a node, what mends it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from convkit.graph.facts import Facts, Placed
from convkit.graph.mend_col2im import read_folding
from convkit.graph.mend_dft import read_transform
from convkit.graph.mend_uniform import is_everywhere
from convkit.targets.finding import Finding, Weight
from convkit.targets.trt_operators import operator_table

CONVKIT = "convkit"

Wrong = Callable[[Placed, Facts], str | None]
"""Returns what is wrong with a node; None: nothing."""


class Rule(NamedTuple):
    """One thing that TensorRT does not take of a node."""

    code: str
    operators: str
    """A regular expression for the whole operator type."""
    wrong: Wrong
    fix: str
    mend: str = ""
    """The repair that `--fix` makes; empty: none."""
    severity: Weight = Weight.ERROR
    beyond_parser: bool = False
    wants_plugin: bool = False

    def finding(self, node: Placed, reason: str) -> Finding:
        """Return the finding of a node."""
        return Finding(
            severity=self.severity,
            code=self.code,
            node=node.name,
            operator=node.operator,
            reason=reason,
            fix=self.fix,
            mend=self.mend,
            found_by=(CONVKIT,),
            wants_plugin=self.wants_plugin,
            beyond_parser=self.beyond_parser,
        )


def apply(rules: Iterable[Rule], facts: Facts) -> Iterator[Finding]:
    """Hold every node against every rule; a node gets the first finding of each severity only."""
    compiled = [(re.compile(rule.operators), rule) for rule in rules]
    for node in facts.nodes:
        seen: set[Weight] = set()
        for pattern, rule in compiled:
            if rule.severity in seen or not pattern.fullmatch(node.operator):
                continue
            if (reason := rule.wrong(node, facts)) is not None:
                seen.add(rule.severity)
                yield rule.finding(node, reason)


def is_onnx(node: Placed) -> bool:
    """Tell whether an operator is one of ONNX's own."""
    return node.proto.domain in ("", "ai.onnx")


def _dynamic_quantization(node: Placed, facts: Facts) -> str | None:
    return "TensorRT has no dynamic quantization" if is_onnx(node) and not all_constant(node, facts) else None


def _operator_form(_node: Placed, _facts: Facts) -> str | None:
    return "TensorRT takes quantization as QuantizeLinear and DequantizeLinear pairs only"


def _of_constants(node: Placed, facts: Facts) -> str | None:
    if _known(node) or not is_onnx(node) or not all_constant(node, facts):
        return None
    return f"TensorRT has no {node.operator}; all its inputs are constants here"


def _expandable(node: Placed, facts: Facts) -> str | None:
    if _known(node) or not is_onnx(node) or not _has_body(node.operator, facts.opset):
        return None
    return f"TensorRT has no {node.operator}, which ONNX defines by simpler operators"


def _transform(node: Placed, facts: Facts) -> str | None:
    if _known(node) or not is_onnx(node) or read_transform(node, facts) is None:
        return None
    return f"TensorRT has no {node.operator}, which is a product with a matrix of cosines and sines"


def _folding(node: Placed, facts: Facts) -> str | None:
    if _known(node) or not is_onnx(node) or read_folding(node, facts) is None:
        return None
    return f"TensorRT has no {node.operator}, which puts blocks of known size into an image"


def _everywhere(node: Placed, facts: Facts) -> str | None:
    if not is_onnx(node) or not is_everywhere(node, facts):
        return None
    return "TensorRT-RTX finds no places of what is not 0; this is nowhere 0"


def _values_decide(node: Placed, _: Facts) -> str | None:
    return _unknown(node, "whose output's size depends on the values")


def _of_strings(node: Placed, _: Facts) -> str | None:
    return _unknown(node, "which is about strings")


def _of_sequences(node: Placed, _: Facts) -> str | None:
    return _unknown(node, "which is about sequences or optional values: it knows tensors only")


def _unknown_operator(node: Placed, _: Facts) -> str | None:
    return _unknown(node, "")


def _unknown(node: Placed, what: str) -> str | None:
    if _known(node) or not is_onnx(node):
        return None
    return f"TensorRT has no {node.operator}" + (f", {what}" if what else "")


def _fused_by_onnxruntime(node: Placed, _: Facts) -> str | None:
    if node.proto.domain not in ("com.microsoft", "com.microsoft.nchwc", "ai.onnx.contrib", "org.pytorch.aten"):
        return None
    return f"{node.proto.domain}.{node.operator} is an operator of one runtime's own, which TensorRT does not have"


def _of_another_domain(node: Placed, facts: Facts) -> str | None:
    if is_onnx(node) or (node.proto.domain, node.operator) in facts.functions or _is_plugin(node):
        return None
    return f"TensorRT knows neither an operator nor a plugin called {node.proto.domain}.{node.operator}"


def _named_plugin(node: Placed, _: Facts) -> str | None:
    return (
        f"{node.operator} is a plugin of TensorRT: it must be there where the engine is built"
        if _is_plugin(node)
        else None
    )


def _only_as_plugin(node: Placed, _: Facts) -> str | None:
    entry = operator_table().operators.get(node.operator) if is_onnx(node) else None
    if entry is None or entry.taken or not (entry.known and entry.plugin):
        return None
    return f"TensorRT has {node.operator} as a plugin only, and TensorRT-RTX has no plugins"


def _known(node: Placed) -> bool:
    entry = operator_table().operators.get(node.operator)
    return entry is None or entry.known


def _is_plugin(node: Placed) -> bool:
    return node.operator.endswith("_TRT") or node.proto.domain.startswith("trt")


def all_constant(node: Placed, facts: Facts) -> bool:
    """Tell whether a node computes the same from run to run, whatever the inputs are."""
    return bool(node.proto.input) and all(facts.is_constant(name) for name in node.proto.input)


def _has_body(operator: str, opset: int) -> bool:
    from onnx import defs

    if operator == "DynamicQuantizeLinear":  # what it is defined by has a zero point that is computed
        return False
    try:
        schema = defs.get_schema(operator, max(opset, 1), "")
    except defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


_ELSEWHERE = "compute it outside the model, in the client or in another model of an ensemble; or use --to onnxruntime"

OPERATORS = (
    Rule(
        "constants-only",
        "(?!Constant$).*",
        _of_constants,
        "store the result as a weight",
        mend="fold",
    ),
    Rule(
        "dynamic-quantization",
        "DynamicQuantizeLinear|ConvInteger|MatMulInteger|DynamicQuantize(MatMul|LSTM)|MatMulIntegerToFloat",
        _dynamic_quantization,
        "quantize with calibration data instead: --quantize int8 --calibration-data FILE, or use --quantize fp16",
    ),
    Rule(
        "operator-form",
        "QLinear.*|QAttention|QGemm",
        _operator_form,
        "quantize in the Q/DQ form: let convkit do it from the floating-point model with --quantize int8",
    ),
    Rule(
        "optimized-for-onnxruntime",
        ".*",
        _fused_by_onnxruntime,
        "convert the file as it was exported, before onnxruntime optimized it (optimization level basic at most); "
        "or use --to onnxruntime",
    ),
    Rule(
        "plugin-named",
        ".*",
        _named_plugin,
        "load the plugin's library where the engine is built, and where it is served",
        severity=Weight.WARNING,
        wants_plugin=True,
    ),
    Rule(
        "custom-operator",
        ".*",
        _of_another_domain,
        "export the model with standard ONNX operators, or replace this layer in the model's code; "
        "--to onnxruntime runs what ONNX Runtime knows",
    ),
    Rule(
        "fourier-transform",
        "DFT",
        _transform,
        "write it as such a product: convkit convert does so by itself",
        mend="dft",
    ),
    Rule(
        "folding",
        "Col2Im",
        _folding,
        "write it as Reshape and Transpose, or as a transposed convolution: convkit convert does so by itself",
        mend="col2im",
    ),
    Rule(
        "nowhere-zero",
        "NonZero",
        _everywhere,
        "count the places through: convkit convert does so by itself",
        mend="everywhere",
    ),
    Rule("expandable", ".*", _expandable, "write it out in those simpler operators", mend="expand"),
    Rule(
        "data-dependent",
        "Unique|Compress",
        _values_decide,
        "give the model an output of fixed size, such as a mask or the largest k, and choose in the client",
    ),
    Rule(
        "strings",
        "String.*|RegexFullMatch|TfIdfVectorizer|LabelEncoder",
        _of_strings,
        "keep texts outside the model: in the client, or in another model of an ensemble",
    ),
    Rule(
        "sequences",
        "Sequence.*|SplitToSequence|ConcatFromSequence|Optional.*",
        _of_sequences,
        "give tensors instead: torch.stack, or Split with a fixed number of outputs, in the model's code",
    ),
    Rule(
        "no-such-operator",
        ".*",
        _unknown_operator,
        f"write this layer in other operators in the model's code, or {_ELSEWHERE}",
    ),
    Rule(
        "plugin-only",
        ".*",
        _only_as_plugin,
        "use --to tensorrt, which has the plugin; or replace this layer in the model's code",
        wants_plugin=True,
    ),
)
"""Operators that it does not have, those with the best advice first."""
