"""What a conversion for TensorRT writes otherwise by itself: operators that it lacks, with the same numbers."""

from __future__ import annotations

import msgspec

from convkit.graph.census import Census, census_of
from convkit.graph.facts import read_facts
from convkit.graph.mend import REPAIRS, Wanted, mend
from convkit.graph.model import EXTERNAL_ABOVE
from convkit.graph.simplify import Simplified
from convkit.pipeline.runner import Runner
from convkit.pipeline.step import step
from convkit.targets.trt_rules import OPERATORS, apply
from convkit.targets.trt_rules_forms import FORMS

REWRITTEN = {"DFT": "dft", "Col2Im": "col2im", "NonZero": "everywhere", "AveragePool": "whole-image"}
"""The operators, and the repair that `check --fix` makes of each."""


def rewritten(run: Runner, simplified: Simplified) -> Simplified:
    """Return the simplified graph as TensorRT takes it; itself where it holds none of these operators."""
    return run(rewrite, simplified) if holds_some(simplified.after) else simplified


def rewritten_ahead(run: Runner, simplified: Simplified) -> Simplified | None:
    """Return the same before the pipeline comes to it; None: it fails, which is told there."""
    return run.ahead(rewrite, simplified) if holds_some(simplified.after) else simplified


def holds_some(census: Census) -> bool:
    """Tell whether a graph holds an operator that may be written otherwise."""
    return any(operator in REWRITTEN for operator in census.operators)


@step(version=1, stage="simplify", title="Write the graph for TensorRT", needs="onnx", libraries=("onnx",))
def rewrite(simplified: Simplified) -> Simplified:
    """Write out operators that TensorRT lacks. Whether the numbers held is the business of the check that follows.

    What cannot be written otherwise stays, and is refused by name; so does a model whose weights lie beside it.
    """
    model = simplified.model
    if model.files.bytes > EXTERNAL_ABOVE:
        return simplified
    nodes: dict[str, list[str]] = {}
    for finding in apply((*OPERATORS, *FORMS), read_facts(model.path)):
        if finding.mend and finding.mend == REWRITTEN.get(finding.operator):
            nodes.setdefault(finding.mend, []).append(finding.node)
    if not nodes:
        return simplified
    mended = mend(model, wanted=tuple(Wanted(mend=name, nodes=tuple(each)) for name, each in nodes.items()))
    names = {mend: operator for operator, mend in REWRITTEN.items()}
    done = tuple(f"for TensorRT: {len(each.nodes)} {names[each.mend]} {REPAIRS[each.mend][1]}" for each in mended.done)
    return msgspec.structs.replace(
        simplified, model=mended.model, after=census_of(mended.model), applied=(*simplified.applied, *done)
    )
