"""Two graphs on the same inputs, held against each other tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from convkit.graph.model import Model, Tensors
from convkit.graph.pairing import Pair, Pairing, pair_up
from convkit.graph.tap import Arrays, Tap
from convkit.measure.compare import OutputDifference, difference, worse
from convkit.pipeline import events
from convkit.pipeline.step import step
from convkit.spec.options import CheckOptions, Precision
from convkit.spec.tensor import DType

_GROUP_BYTES = 1 << 28
"""About how much one run hands over: the tensors of a group are held twice, once from each graph."""
_FIRST_GROUP = 8


class TensorDifference(OutputDifference, frozen=True, kw_only=True):
    """A tensor of the later graph against its counterpart, the worst over all cases."""

    against: str
    """The counterpart in the earlier graph."""
    node: str
    """The node of the later graph that computes it, before what only rounds it."""
    operator: str
    position: int
    """Its place in the topological order of those compared, from 0."""
    is_output: bool


class TensorComparison(msgspec.Struct, frozen=True, kw_only=True):
    """All pairs of tensors, in the topological order of the later graph."""

    precision: Precision
    """The lowest of both graphs: it decides the tolerance where none was asked for."""
    cases: int
    tensors: tuple[TensorDifference, ...]
    only_before: int
    """How many tensors of the earlier graph have no counterpart in the later one."""
    only_after: int


@step(version=1, stage="check", title="Compare tensor by tensor", needs="onnx")
def compare_tensors(before: Model, after: Model, *, samples: Tensors, options: CheckOptions) -> TensorComparison:
    """Run both graphs in ONNX Runtime without optimizations, and compare every tensor that both have.

    Tensors are read in groups, so that a few of them are held at a time.

    Args:
        before: the reference.
        after: what is held against it.
        samples: sets of inputs under the names of `before`.
        options: the tolerance.
    """
    both = Both(before, after, samples, options)
    found: list[TensorDifference] = []
    for pair, one in both.differences(both.pairing.pairs):
        node = both.after.flow.source_of(pair.name)
        found.append(
            TensorDifference(
                **msgspec.structs.asdict(one),
                against=pair.against,
                node=node.name,
                operator=node.op_type,
                position=len(found),
                is_output=pair.name in both.pairing.outputs,
            )
        )
    return TensorComparison(
        precision=both.precision,
        cases=len(samples),
        tensors=tuple(found),
        only_before=both.pairing.only_before,
        only_after=both.pairing.only_after,
    )


class Both:
    """Two graphs that can be read from, their tensors paired."""

    def __init__(self, before: Model, after: Model, samples: Tensors, options: CheckOptions) -> None:
        self.before, self.after = Tap(before), Tap(after)
        self.pairing: Pairing = pair_up(
            self.before.flow,
            self.after.flow,
            interfaces=(before.interface, after.interface),
            hidden=self.before.unreadable() | self.after.unreadable(),
        )
        self.precision = max((precision_of(tap) for tap in (self.before, self.after)), key=_ROUGHNESS.index)
        self._samples = samples
        self._options = options
        self.runs = 0
        """How often the graphs were run on all the samples."""

    def run(self, pairs: Sequence[Pair], inputs: Sequence[str] = ()) -> Iterator[tuple[Arrays, Arrays]]:
        """Read the tensors of these pairs, and inputs by the later graph's names, from each graph for each case."""
        self.runs += 1
        before = self.before.open([*(pair.against for pair in pairs), *(self.pairing.inputs[name] for name in inputs)])
        after = self.after.open([*(pair.name for pair in pairs), *inputs])
        for case in self._samples:
            yield before(case), after({name: case[old] for name, old in self.pairing.inputs.items()})

    def differences(self, pairs: Sequence[Pair]) -> Iterator[tuple[Pair, OutputDifference]]:
        """Go through pairs and their differences, the worst over all cases; they are read in ever larger groups."""
        done, size = 0, _FIRST_GROUP
        while done < len(pairs):
            group = pairs[done : done + size]
            found: dict[str, OutputDifference] = {}
            held = 1
            for reference, answer in self.run(group):
                held = max(held, sum(array.nbytes for array in answer.values()))
                for pair in group:
                    one = self.difference(pair, reference, answer)
                    found[pair.name] = worse(found[pair.name], one) if pair.name in found else one
            yield from ((pair, found[pair.name]) for pair in group)
            done += len(group)
            size = max(1, min(2 * size, size * _GROUP_BYTES // held))
            events.progress(done, len(pairs), "tensors")

    def difference(self, pair: Pair, reference: Arrays, answer: Arrays) -> OutputDifference:
        """Hold a pair's tensors against each other."""
        expected, found = reference[pair.against], answer[pair.name]
        return difference(pair.name, found, expected, self.precision, self._options)


_ROUGHNESS = (Precision.NONE, Precision.FP16, Precision.BF16, Precision.INT8, Precision.DYNAMIC)


def precision_of(tap: Tap) -> Precision:
    """Return the precision that a graph is written in, as its operators and weights show."""
    operators = {node.op_type for node in tap.flow.nodes}
    if operators & {"DynamicQuantizeLinear", "MatMulNBits", "DynamicQuantizeMatMul"}:
        return Precision.DYNAMIC
    if operators & {"QuantizeLinear", "DequantizeLinear"}:
        return Precision.INT8
    types = {tensor.data_type for tensor in tap.proto.graph.initializer if len(tensor.dims) > 1}
    halves = {DType.BFLOAT16: Precision.BF16, DType.FLOAT16: Precision.FP16}
    return next((precision for dtype, precision in halves.items() if dtype.onnx in types), Precision.NONE)
