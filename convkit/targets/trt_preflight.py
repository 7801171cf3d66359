"""The preflight for TensorRT: convkit's own rules, the parser's verdict where there is one, and the two made one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from convkit.errors import StepError
from convkit.graph.facts import read_facts
from convkit.graph.model import Model
from convkit.pipeline.events import Warned
from convkit.pipeline.runner import Runner
from convkit.pipeline.step import step
from convkit.targets.cuda_driver import driver_present
from convkit.targets.finding import Finding, Weight
from convkit.targets.trt_api import Flavour, installed
from convkit.targets.trt_findings import refuse
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
        return Verdict(findings=ordered(_weighed(each, set(), target) for each in ruled.findings), parsed=None)
    try:
        parsed = run(parse_tensorrt if flavour is Flavour.TENSORRT else parse_rtx, model)
    except StepError as error:
        if error.code != "worker.died":
            raise
        return Verdict(findings=(_ended(flavour, error), *ordered(ruled.findings)), parsed=None)
    return Verdict(findings=judged(ruled.findings, parsed, target), parsed=parsed)


def _ended(flavour: Flavour, error: StepError) -> Finding:
    return Finding(
        code="parser-ended",
        node="the model",
        operator="graph",
        reason=f"{flavour.product}'s parser has ended its process on it: {error.message}",
        fix="mend what else is found; where nothing is, halve the graph with onnx.utils.extract_model until it shows",
        found_by=(flavour.product,),
        beyond_parser=True,
    )


def gate(run: Runner, model: Model, profiles: tuple[Profile, ...]) -> str:
    """Judge a model whose TensorRT engine is built elsewhere, warn of what is doubtful, and say who judged.

    Raises:
        StepError: TensorRT does not take it (code ``tensorrt.unsupported``).
    """
    verdict = preflight(run, model, profiles, Flavour.TENSORRT)
    refuse(verdict.of(Weight.ERROR), Flavour.TENSORRT, stage="compile")
    doubtful = [finding for finding in verdict.of(Weight.WARNING) if finding.wants_plugin]
    warn_of(run, verdict)
    if verdict.parsed is None:
        run.observe(
            Warned(
                code="tensorrt.not-parsed",
                message="no TensorRT parser has seen the model: pip install 'convkit[tensorrt-rtx]' for one that "
                "needs no GPU",
            )
        )
        return "No TensorRT parser has seen the model; convkit's own rules find nothing against it."
    stood_in = f"{verdict.parsed.label} parsed the model in TensorRT's place"
    if doubtful:
        return f"{stood_in}: {len(doubtful)} nodes want a plugin that it does not have."
    return f"{stood_in}: it takes every node ({verdict.parsed.layers} layers)."


def warn_of_rules(run: Runner, model: Model, profiles: tuple[Profile, ...]) -> None:
    """Warn of what only the rules see in a model that is built here, where the builder says the rest."""
    ruled = run(apply_rules, model, profiles)
    seen = tuple(finding for finding in ruled.findings if finding.beyond_parser)
    warn_of(run, Verdict(findings=seen, parsed=None), Weight.ERROR, Weight.WARNING)


def warn_of(run: Runner, verdict: Verdict, *weights: Weight) -> None:
    """Tell findings as warnings, those of these weights: by default the warnings."""
    for finding in verdict.findings:
        if finding.severity not in (weights or (Weight.WARNING,)):
            continue
        if finding.wants_plugin:
            run.observe(Warned(code="tensorrt.doubtful", message=f"a plugin may be missing: {finding}; {finding.fix}"))
        else:
            run.observe(Warned(code="tensorrt.preflight", message=f"before the build: {finding}; {finding.fix}"))


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
