"""Running the model on calibration data, once, for every method and every target."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from convkit.graph.feed import batches
from convkit.graph.model import Model, load_model
from convkit.pipeline import events
from convkit.pipeline.allowance import cores
from convkit.pipeline.artifact import Artifact
from convkit.pipeline.step import step
from convkit.quantize.observed import observed_tensors
from convkit.quantize.probe import Looks, Probe
from convkit.quantize.ranges import Ranges, save_ranges
from convkit.quantize.statistics import Statistics
from convkit.spec.tensor import Interface

if TYPE_CHECKING:
    import numpy as np

HELD_BYTES = 200_000_000
"""Activations held at a time, by all threads together."""
MOST_ROWS = 64

Inputs = Mapping[str, "np.ndarray"]


class Portion(NamedTuple):
    """Rows that are run together."""

    inputs: Inputs
    first_row: int
    rows: int


@step(version=2, stage="calibrate", title="Collect ranges on calibration data", needs="onnx")
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
    done = 0
    probe = Probe(model, observed)
    tally = Tally()
    if (row_bytes := probe.row_bytes) is not None:
        rows = itertools.chain([first], rows)
    else:  # a run says what the shapes do not
        looks = probe.look(first, first_row=0)
        tally.add(looks)
        done = len(next(iter(first.values())))
        row_bytes = looks.bytes // done
    row_bytes = max(1, row_bytes)
    abreast = max(1, min(cores(), HELD_BYTES // row_bytes))
    probe.use(cores() // abreast)
    size = _rows_together(model.interface, HELD_BYTES // (2 * abreast * row_bytes), math.ceil(samples / (2 * abreast)))
    waiting: deque[Future[Looks]] = deque()
    pool = ThreadPoolExecutor(abreast)
    try:
        for portion in _portions(rows, size, first_row=done):
            events.progress(done, samples, "samples")
            while len(waiting) > abreast:
                tally.add(waiting.popleft().result())
            waiting.append(pool.submit(probe.look, portion.inputs, first_row=portion.first_row))
            done += portion.rows
        while waiting:
            tally.add(waiting.popleft().result())
    finally:
        pool.shutdown(cancel_futures=True)
    return save_ranges(tally.ranges(), observed.views, samples=done)


class Tally:
    """What has been counted of every tensor, in the order of the data."""

    def __init__(self) -> None:
        self._total: dict[str, Statistics] = {}
        self._masks: set[str] = set()

    def add(self, looks: Looks) -> None:
        """Take in what was seen of the next rows."""
        self._masks |= looks.masks
        for name, statistics in looks.statistics.items():
            if name in self._total:
                self._total[name].merge(statistics)
            else:
                self._total[name] = statistics

    def ranges(self) -> dict[str, Statistics]:
        """Return the statistics of each tensor that never held an attention's mask: such a one has no range."""
        return {name: statistics for name, statistics in self._total.items() if name not in self._masks}


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


def _rows_together(interface: Interface, *most: int) -> int:
    """Return how many rows to run at a time: 1 unless every tensor begins with the same dynamic dimension."""
    firsts = {spec.dims[0] if spec.dims else 0 for spec in (*interface.inputs, *interface.outputs)}
    if len(firsts) > 1 or isinstance(firsts.pop(), int):
        return 1
    return max(1, min(MOST_ROWS, *most))
