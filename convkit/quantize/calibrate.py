"""Running the model on calibration data, once, for every method and every target."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from convkit.graph.feed import batches
from convkit.graph.model import Model, load_model
from convkit.pipeline import events
from convkit.pipeline.allowance import cores
from convkit.pipeline.artifact import Artifact
from convkit.pipeline.step import step
from convkit.quantize.observed import observed_tensors
from convkit.quantize.probe import Look, Probe
from convkit.quantize.ranges import Ranges, save_ranges
from convkit.quantize.statistics import Statistics
from convkit.spec.tensor import Interface

if TYPE_CHECKING:
    import numpy as np

HELD_BYTES = 100_000_000
"""Activations held at a time: those of a run, and those of the last that are still being counted."""
MOST_ROWS = 64

Inputs = Mapping[str, "np.ndarray"]


class Portion(NamedTuple):
    """Rows that are run together."""

    inputs: Inputs
    first_row: int
    rows: int


@step(version=1, stage="calibrate", title="Collect ranges on calibration data", needs="onnx")
def collect_ranges(model: Model, *, data: Artifact | None, samples: int) -> Ranges:
    """Run the model on calibration data, and keep of every activation that a target may quantize what was seen.

    The memory it takes does not grow with the number of samples, and what it finds does not depend on their batches.

    Args:
        model: the simplified floating point graph.
        data: calibration inputs; None draws random ones.
        samples: at most this many samples are used.

    Raises:
        InputError: the data do not fit the model.
        StepError: ONNX Runtime fails on it, or an activation is NaN or infinite.
    """
    observed = observed_tensors(load_model(model, weights=False).graph)
    rows = batches(model.interface, data, size=1, at_most=samples)
    first = next(rows)
    done = len(next(iter(first.values())))
    with Probe(model, observed, threads=cores()) as probe:
        tally = Tally()
        tally.add(probe.look(first, first_row=0))
        row_bytes = tally.held // done
        size = _rows_together(model.interface, row_bytes)
        for portion in _portions(rows, size, first_row=done):
            events.progress(done, samples, "samples")
            tally.settle(HELD_BYTES - row_bytes * portion.rows)
            tally.add(probe.look(portion.inputs, first_row=portion.first_row))
            done += portion.rows
        tally.settle(0)
    seen = {name: statistics for name, statistics in tally.total.items() if name not in probe.masks}
    return save_ranges(seen, observed.views, samples=done)


class Tally:
    """What has been counted, and what is being counted while the model runs on."""

    def __init__(self) -> None:
        self.total: dict[str, Statistics] = {}
        self.held = 0
        """Bytes of the tensors that are not counted yet."""
        self._waiting: deque[Look] = deque()

    def add(self, looks: Iterable[Look]) -> None:
        """Expect the results of these."""
        for look in looks:
            self.held += look.bytes
            self._waiting.append(look)

    def settle(self, most: int) -> None:
        """Take in results, in the order in which they were expected, until at most so many bytes are held.

        Raises:
            StepError: a tensor held NaN or infinity.
        """
        while self._waiting and self.held > max(most, 0):
            look = self._waiting.popleft()
            statistics = look.statistics.result()
            self.held -= look.bytes
            if look.name in self.total:
                self.total[look.name].merge(statistics)
            else:
                self.total[look.name] = statistics


def _portions(rows: Iterator[Inputs], size: int, *, first_row: int) -> Iterator[Portion]:
    """Put up to `size` items that have the same shapes together."""
    import numpy as np

    def joined() -> Portion:
        inputs = {name: np.concatenate([item[name] for item in held]) for name in held[0]} if held[1:] else held[0]
        return Portion(inputs, first_row, len(next(iter(inputs.values()))))

    held: list[Inputs] = []
    for item in rows:
        if held and (len(held) == size or any(item[name].shape != held[0][name].shape for name in item)):
            portion = joined()
            yield portion
            first_row += portion.rows
            held = []
        held.append(item)
    if held:
        yield joined()


def _rows_together(interface: Interface, row_bytes: int) -> int:
    """Return how many rows to run at a time: 1 unless every tensor begins with the same dynamic dimension."""
    firsts = {spec.dims[0] if spec.dims else 0 for spec in (*interface.inputs, *interface.outputs)}
    if len(firsts) > 1 or isinstance(firsts.pop(), int):
        return 1
    return max(1, min(MOST_ROWS, HELD_BYTES // 2 // max(row_bytes, 1)))
