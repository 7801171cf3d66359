"""Running the model on calibration data, once, for every method and every target."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from convkit.graph.feed import batches
from convkit.graph.model import Model, load_model
from convkit.pipeline import events
from convkit.pipeline.allowance import cores
from convkit.pipeline.artifact import Artifact
from convkit.pipeline.step import step
from convkit.quantize.observed import observed_tensors
from convkit.quantize.probe import Probe
from convkit.quantize.ranges import Ranges, save_ranges
from convkit.quantize.statistics import Statistics
from convkit.spec.tensor import Interface

if TYPE_CHECKING:
    import numpy as np

IN_FLIGHT_BYTES = 160_000_000
"""Activations held at a time by all callers together; a single row that has more is run alone."""
MOST_ROWS = 64
MOST_CALLERS = 4
"""Threads that run the model at once. Counting holds Python's lock a part of its time, so that more gain little."""

Inputs = Mapping[str, "np.ndarray"]


class Portion(NamedTuple):
    """Rows that are run together."""

    inputs: Inputs
    first_row: int
    rows: int


@step(version=1, stage="calibrate", title="Collect ranges on calibration data", needs="onnx")
def collect_ranges(model: Model, *, data: Artifact | None, samples: int) -> Ranges:
    """Run the model on calibration data, and keep of every activation that a target may quantize what was seen.

    Neither the memory it takes depends on the number of samples, nor what it finds on how they are batched.

    Args:
        model: the simplified floating point graph.
        data: calibration inputs; None draws random ones.
        samples: at most this many samples are used.

    Raises:
        InputError: the data do not fit the model.
        StepError: ONNX Runtime fails on it, or an activation is NaN or infinite.
    """
    observed = observed_tensors(load_model(model, weights=False).graph)
    threads = cores()
    callers = min(threads, MOST_CALLERS)
    probe = Probe(model, observed, threads=threads // callers)
    rows = batches(model.interface, data, size=1, at_most=samples)
    first = next(rows)
    total = probe.look(first, first_row=0)
    done = len(next(iter(first.values())))
    fitting = IN_FLIGHT_BYTES // max(probe.row_bytes * done, 1)
    if fitting < callers:
        callers = 1
        probe = Probe(model, observed, threads=threads)
    size = min(MOST_ROWS, max(fitting // callers, 1)) if _has_dynamic_batch(model.interface) else 1
    for portion, seen in _look(probe, _portions(rows, size, first_row=done), callers):
        _merge(total, seen)
        done += portion.rows
        events.progress(done, max(done, samples), "samples")
    for name in probe.masks:
        total.pop(name, None)
    return save_ranges(total, observed.views, samples=done)


def _look(probe: Probe, portions: Iterable[Portion], callers: int) -> Iterator[tuple[Portion, dict[str, Statistics]]]:
    """Run portions on several threads, and yield what was seen in the order of the portions: the same sums each time.

    While one thread counts, which takes little of Python's lock, another runs the model, which takes none.
    """
    with ThreadPoolExecutor(callers) as pool:
        waiting: deque[tuple[Portion, Future[dict[str, Statistics]]]] = deque()
        for portion in portions:
            waiting.append((portion, pool.submit(probe.look, portion.inputs, first_row=portion.first_row)))
            if len(waiting) > callers:
                oldest, seen = waiting.popleft()
                yield oldest, seen.result()
        for oldest, seen in waiting:
            yield oldest, seen.result()


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


def _has_dynamic_batch(interface: Interface) -> bool:
    """Tell whether every tensor begins with the same dynamic dimension, so that rows can be run together."""
    firsts = {spec.dims[0] if spec.dims else 0 for spec in (*interface.inputs, *interface.outputs)}
    return len(firsts) == 1 and isinstance(firsts.pop(), str)


def _merge(total: dict[str, Statistics], seen: dict[str, Statistics]) -> None:
    for name, statistics in seen.items():
        if name in total:
            total[name].merge(statistics)
        else:
            total[name] = statistics
