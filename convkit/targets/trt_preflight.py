"""The preflight for TensorRT: convkit's own rules, the parser's verdict where there is one, and the two made one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from convkit.graph.facts import read_facts
from convkit.graph.model import Model
from convkit.pipeline.runner import Runner
from convkit.pipeline.step import step
from convkit.targets.cuda_driver import driver_present
from convkit.targets.finding import Finding, Weight
from convkit.targets.trt_api import Flavour, installed
from convkit.targets.trt_parse import Parsed, parse_rtx, parse_tensorrt
from convkit.targets.trt_profiles import Profile
from convkit.targets.trt_rules import OPERATORS, apply
from convkit.targets.trt_rules_forms import FORMS
from convkit.targets.trt_rules_graph import graph_findings
from convkit.targets.trt_rules_quant import QUANTIZATION
from convkit.targets.trt_rules_shapes import shape_findings
from convkit.targets.trt_rules_types import TYPES, interface_types

RULES = (*OPERATORS, *QUANTIZATION, *TYPES, *FORMS)
"""Every rule about a node, in the order of which explains most."""


class Ruled(msgspec.Struct, frozen=True, kw_only=True):
    """What convkit's own rules found."""

    findings: tuple[Finding, ...]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a model before an engine is built."""

    findings: tuple[Finding, ...]
    """Errors first, in the order of the graph."""
    parsed: Parsed | None
    """None: no parser is here."""

    def of(self, severity: Weight) -> tuple[Finding, ...]:
        """Return the findings that weigh so much."""
        return tuple(finding for finding in self.findings if finding.severity is severity)


@step(version=1, stage="check", title="Hold the graph against TensorRT's rules", needs="onnx")
def apply_rules(model: Model, profiles: tuple[Profile, ...]) -> Ruled:
    """Find what TensorRT does not take, without TensorRT: a table of rules, and what was measured of its operators."""
    facts = read_facts(model.path)
    findings = (
        *graph_findings(facts, model.path.parent),
        *interface_types(facts),
        *apply(RULES, facts),
        *shape_findings(facts, profiles),
    )
    return Ruled(findings=findings)


def parser_here(target: Flavour) -> Flavour | None:
    """Return whose parser can judge a model here: the target's own, else TensorRT-RTX's; None: none can."""
    if target is Flavour.TENSORRT and installed(target) and driver_present():
        return target
    return Flavour.TENSORRT_RTX if installed(Flavour.TENSORRT_RTX) else None


def preflight(run: Runner, model: Model, profiles: tuple[Profile, ...], target: Flavour) -> Verdict:
    """Judge a model for a target, in seconds; nothing is built."""
    ruled = run(apply_rules, model, profiles)
    flavour = parser_here(target)
    if flavour is None:
        return Verdict(findings=ordered(ruled.findings), parsed=None)
    parsed = run(parse_tensorrt if flavour is Flavour.TENSORRT else parse_rtx, model)
    return Verdict(findings=judged(ruled.findings, parsed, target), parsed=parsed)


def judged(ruled: Sequence[Finding], parsed: Parsed, target: Flavour) -> tuple[Finding, ...]:
    """Make one list of what the rules and a parser found.

    What both found of a node is said once, in convkit's words. Where the parser took a node that a rule refuses, the
    parser is right, unless the rule is about what no parser sees; a parser that stopped early has not taken what it did
    not name. What only lacks a plugin is a warning for TensorRT when TensorRT-RTX has judged in its place.
    """
    doubtful = {finding.node for finding in parsed.doubtful_for(target)}
    by_parser = [msgspec.structs.replace(finding, found_by=(parsed.label,)) for finding in parsed.findings]
    named = {finding.node for finding in by_parser}
    found: list[Finding] = []
    for finding in ruled:
        if finding.node in named and finding.severity is Weight.ERROR:
            finding = msgspec.structs.replace(finding, found_by=(*finding.found_by, parsed.label))
        elif not by_parser and finding.severity is Weight.ERROR and not finding.beyond_parser:
            continue
        found.append(finding)
    told = {finding.node for finding in found if finding.severity is Weight.ERROR}
    found += [finding for finding in by_parser if finding.node not in told and not _is_told(finding, found)]
    return ordered(_weighed(finding, doubtful, target) for finding in found)


def _is_told(finding: Finding, found: Iterable[Finding]) -> bool:
    """Tell whether what a parser says of the whole model is what a rule says of one of its nodes or tensors."""
    return finding.operator == "model" and any(each.severity is Weight.ERROR for each in found)


def _weighed(finding: Finding, doubtful: set[str], target: Flavour) -> Finding:
    unsure = finding.node in doubtful or (finding.wants_plugin and target is Flavour.TENSORRT)
    if not unsure or finding.severity is not Weight.ERROR:
        return finding
    reason = f"TensorRT-RTX does not take it: {finding.reason}; TensorRT may have a plugin for it"
    return msgspec.structs.replace(finding, severity=Weight.WARNING, reason=reason)


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings without those said twice, errors first."""
    unique = {(each.node, each.code, each.reason, each.severity): each for each in findings}
    order = list(Weight)
    return tuple(sorted(unique.values(), key=lambda finding: order.index(finding.severity)))
