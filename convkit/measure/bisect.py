"""Finding the node where two graphs part, in about log2(n) runs.

The tensors that both graphs have are laid out in a topological order. Behind the k-th of them the *front* is those
among the first k that anything later reads, and the outputs: all that the rest of the graph is computed from. The front
at 0, the inputs, agrees; the one at n, the outputs, differs. Halving finds a k where the front agrees and the next one
does not: what tensor k is computed from agrees, and it does not. A front is a few tensors, however many there are.

Where all outputs agree, a difference may have died out on its way to them. Then the tensors are gone through from the
first on, in groups that double, as long as memory allows it: log2(n) runs at most, too.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from convkit.graph.model import Model, Tensors
from convkit.graph.pairing import Pair, Pairing
from convkit.graph.tap import Arrays, cut_out
from convkit.measure.compare import OutputDifference
from convkit.measure.tensors import Both
from convkit.pipeline import events
from convkit.pipeline.artifact import Artifact, gather, new_folder
from convkit.pipeline.step import step
from convkit.spec.options import CheckOptions, Precision


class Parting(msgspec.Struct, frozen=True, kw_only=True):
    """The node where the graphs part."""

    node: str
    """The node of the later graph that computes the tensor, before what only rounds it."""
    operator: str
    difference: OutputDifference
    """The tensor, of which the later graph has another value though it computes it from the same ones."""
    against: str
    """The earlier graph's name of it."""
    inputs: tuple[str, ...]
    """The tensors that it is computed from, and that agree."""
    nodes: tuple[str, ...]
    """All nodes of the later graph between those and it: more than one where the earlier graph has none of the tensors
    between them, as within a Q/DQ pair."""


class Bisection(msgspec.Struct, frozen=True, kw_only=True):
    """What came of the search."""

    found: Parting | None
    """None where all tensors agree."""
    outputs_agree: bool
    """The difference dies out before the outputs, or there is none."""
    tensors: int
    """How many pairs of tensors lie on the way to the outputs."""
    runs: int
    """How often both graphs were run."""
    precision: Precision
    """The lowest of both graphs."""
    files: Artifact | None
    """``model.onnx`` with these nodes alone, and ``model.npz`` with inputs and the earlier graph's outputs for it."""


@step(version=1, stage="check", title="Find where the difference starts", needs="onnx")
def bisect(before: Model, after: Model, *, samples: Tensors, options: CheckOptions) -> Bisection:
    """Find the first node whose output differs though its inputs agree; see above.

    Args:
        before: the reference.
        after: the model at fault.
        samples: sets of inputs under the names of `before`.
        options: the tolerance.
    """
    both = Both(before, after, samples, options)
    pairs = _leading_to_outputs(both.pairing)
    low, high = 0, _first_to_differ(both, pairs, len(pairs))
    outputs_agree = high is None
    if high is None:
        gone_through = enumerate(both.differences(pairs))
        low = next((index for index, (_, difference) in gone_through if not difference.passed), len(pairs))
        high = low + 1
    while high - low > 1:
        middle = (low + high) // 2
        differs = _first_to_differ(both, pairs, middle)
        low, high = (middle, high) if differs is None else (low, differs)
        events.progress(len(pairs) - (high - low), len(pairs), "tensors")
    found, files = _cut_out(both, pairs, low) if low < len(pairs) else (None, None)
    return Bisection(
        found=found,
        outputs_agree=outputs_agree,
        tensors=len(pairs),
        runs=both.runs,
        precision=both.precision,
        files=files,
    )


def _leading_to_outputs(pairing: Pairing) -> list[Pair]:
    wanted = set(pairing.outputs)
    kept = []
    for pair in reversed(pairing.pairs):
        if pair.name in wanted:
            wanted |= pair.needs
            kept.append(pair)
    return kept[::-1]


def _first_to_differ(both: Both, pairs: Sequence[Pair], end: int) -> int | None:
    """Compare the front behind the first `end` tensors; return the front's end behind the first that differs."""
    outputs = both.pairing.outputs
    read = frozenset().union(*(pair.needs for pair in pairs[end:]))
    front = {index: pair for index, pair in enumerate(pairs[:end]) if pair.name in read or pair.name in outputs}
    differing: set[int] = set()
    for reference, answer in both.run(list(front.values())):
        for index, pair in front.items():
            if not both.difference(pair, reference, answer).passed:
                differing.add(index)
    return min(differing) + 1 if differing else None


def _cut_out(both: Both, pairs: Sequence[Pair], index: int) -> tuple[Parting, Artifact]:
    """Write the part that makes a tensor from the nearest ones that are compared, with the case that shows it best."""
    pair, by_name = pairs[index], {pair.name: pair for pair in pairs}
    inputs = sorted(pair.needs - by_name.keys())
    feeding = [by_name[name] for name in sorted(pair.needs & by_name.keys())]
    worst: tuple[OutputDifference, Arrays, Arrays] | None = None
    for reference, answer in both.run([pair, *feeding], inputs):
        difference = both.difference(pair, reference, answer)
        if worst is None or badness(difference) > badness(worst[0]):
            worst = (difference, reference, answer)
    assert worst is not None
    difference, reference, answer = worst
    given = {name: answer[name] for name in (*(one.name for one in feeding), *inputs)}
    expected = {pair.name: reference[pair.against].astype(answer[pair.name].dtype)}
    folder = new_folder("parting")
    nodes = cut_out(both.after, given, expected, folder)
    maker = both.after.flow.source_of(pair.name)
    found = Parting(
        node=maker.name,
        operator=maker.op_type,
        difference=difference,
        against=pair.against,
        inputs=tuple(given),
        nodes=tuple(nodes),
    )
    return found, gather(folder)


def badness(difference: OutputDifference) -> tuple[bool, float, float]:
    """Order differences: those beyond the tolerance first, what is not finite before all else."""
    infinite = float("inf")
    size = infinite if difference.max_abs is None else difference.max_abs
    noise = -infinite if size == 0 else infinite if difference.sqnr_db is None else -difference.sqnr_db
    return not difference.passed, noise, size
