"""What ONNX Runtime and OpenVINO say of a model before anything is made of it: they are asked to open it."""

from __future__ import annotations

import re

import msgspec

from convkit.errors import StepError
from convkit.graph.model import Model
from convkit.graph.session import open_session
from convkit.pipeline.step import step
from convkit.targets.finding import Finding


class Opinion(msgspec.Struct, frozen=True, kw_only=True):
    """What one runtime says."""

    findings: tuple[Finding, ...]
    judges: tuple[str, ...]


@step(version=1, stage="check", title="Open with ONNX Runtime", needs="onnx")
def judge_onnxruntime(model: Model) -> Opinion:
    """Open a session, and return the reason where ONNX Runtime refuses."""
    import onnxruntime

    label = f"ONNX Runtime {onnxruntime.__version__}"
    try:
        open_session(model.path)
    except StepError as error:
        return Opinion(findings=(_finding(model, error.message, error.hint or "", label),), judges=(label,))
    return Opinion(findings=(), judges=(label,))


@step(version=1, stage="check", title="Open with OpenVINO", needs="openvino")
def judge_openvino(model: Model) -> Opinion:
    """Read and compile the model for the CPU, and return the reason where OpenVINO refuses."""
    import openvino

    label = f"OpenVINO {openvino.__version__.partition('-')[0]}"
    try:
        openvino.Core().compile_model(str(model.path), "CPU")
    except RuntimeError as error:
        fix = "the message names the operator; use --to onnxruntime, or export with another --opset"
        return Opinion(findings=(_finding(model, " ".join(str(error).split()), fix, label),), judges=(label,))
    return Opinion(findings=(), judges=(label,))


_DEBRIS = (
    re.compile(r"^ONNX Runtime \S+ refuses \S+: "),
    re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : "),
    re.compile(r"Load model from \S+ failed: ?(?:Fatal error: )?"),
    re.compile(r"^.*Summary: (?:-- )?"),
    re.compile(r"Exception from \S+: ?"),
)


def _finding(model: Model, message: str, fix: str, label: str) -> Finding:
    for pattern in _DEBRIS:
        message = pattern.sub("", message)
    node, operator = _blamed(model, message)
    return Finding(code="runtime", node=node, operator=operator, reason=message, fix=fix, found_by=(label,))


def _blamed(model: Model, message: str) -> tuple[str, str]:
    """Find the node that a runtime's message names; the whole model where it names none."""
    from convkit.graph.facts import read_facts

    facts = read_facts(model.path)
    words = set(re.findall(r"[^\s'\"():,;\[\]]+", message))
    words |= {word.rpartition(".")[2] for word in words}
    for node in facts.nodes:
        if node.proto.name and node.proto.name in words:
            return node.name, node.operator
    named = [node for node in facts.nodes if node.operator in words]
    return (named[0].name, named[0].operator) if len({node.operator for node in named}) == 1 else ("the model", "graph")
