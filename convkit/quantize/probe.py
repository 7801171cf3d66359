"""A model whose activations can be looked at while it runs."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from convkit.errors import StepError
from convkit.graph.custom_ops import register_libraries
from convkit.graph.model import Model, load_model
from convkit.graph.session import one_onnxruntime_run
from convkit.graph.set_aside import weights_in_place
from convkit.quantize.observed import Observed
from convkit.quantize.statistics import NotFiniteError, Statistics

if TYPE_CHECKING:
    import numpy as np

_FLOATS = {"tensor(float)": 4, "tensor(float16)": 2, "tensor(double)": 8}
"""Bytes of an element."""
_PREPACKED_BELOW = 500_000_000
"""Bytes of a model above which ONNX Runtime makes no second copy of its weights in the order that its kernels like."""
MASK = -1e4
"""A number that attention adds to what must not be attended to is at most this; no range should hold it."""


class Looks(NamedTuple):
    """What one run has shown."""

    bytes: int
    """Of the tensors that were observed."""
    statistics: dict[str, Statistics]
    masks: set[str]
    """Tensors that were found to hold an attention's mask; their statistics are left out."""


class Probe:
    """An ONNX Runtime session that gives out the observed tensors. Several threads may look at once.

    Args:
        model: a floating point graph.
        observed: the tensors to look at.

    Raises:
        StepError: ONNX Runtime refuses the model.
    """

    def __init__(self, model: Model, observed: Observed) -> None:
        self._model = model
        self._observed = observed
        self._session = _open(model, observed, threads=1)
        given = {value.name: value for value in self._session.get_outputs() if value.type in _FLOATS}
        taken = {value.name: value for value in self._session.get_inputs() if value.type in _FLOATS}
        self._outputs = [name for name in observed.names if name in given]
        self._inputs = [name for name in observed.names if name in taken]
        rows = {value.shape[0] if value.shape else None for value in self._session.get_inputs()}
        self.row_bytes = _row_bytes([*(given[n] for n in self._outputs), *(taken[n] for n in self._inputs)], rows)
        """Of the observed tensors for one row of the data; None where their shapes do not say."""

    def use(self, threads: int) -> None:
        """Let each run have so many threads, where it has had one."""
        if threads > 1:
            self._session = None  # before its weights are there twice
            self._session = _open(self._model, self._observed, threads)

    def look(self, inputs: Mapping[str, np.ndarray], *, first_row: int) -> Looks:
        """Run the model once, and count what came of it: each tensor as it is let go.

        Args:
            inputs: one batch.
            first_row: which row of the data the batch begins with, for messages.

        Raises:
            StepError: ONNX Runtime fails; or a tensor holds NaN or infinity.
        """
        rows = len(next(iter(inputs.values())))
        size, statistics, masks = 0, {}, set()
        for name, array in self.tensors(inputs):
            size += array.nbytes
            if name in self._observed.may_mask and array.size and array.min() <= MASK:
                masks.add(name)
            else:
                statistics[name] = self._statistics(name, array, first_row, rows)
        return Looks(size, statistics, masks)

    def tensors(self, inputs: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """Run the model and yield each tensor, without a copy; its memory is ONNX Runtime's again once it is let go."""
        import numpy as np
        import onnxruntime

        for name in self._inputs:
            yield name, np.ascontiguousarray(inputs[name])
        strings = any(array.dtype.kind in "USO" for array in inputs.values())
        results: list[Any]
        with one_onnxruntime_run(inputs) as options:
            if strings:  # no OrtValue can be made of them
                results = self._session.run(self._outputs, dict(inputs), options)
            else:
                fed = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in inputs.items()}
                results = self._session.run_with_ort_values(self._outputs, fed, options)
        results.reverse()
        for name in self._outputs:
            yield name, np.ascontiguousarray(results.pop() if strings else np.from_dlpack(results.pop()._ortvalue))

    def _statistics(self, name: str, array: np.ndarray, first_row: int, rows: int) -> Statistics:
        axis, rectified = self._observed.channel_axes.get(name), name in self._observed.rectified
        try:
            return Statistics.of(array, axis, rows=rows, rectified=rectified)
        except NotFiniteError as error:
            raise _not_finite(name, array, first_row, rows) from error


def _row_bytes(values: list[Any], rows: set[Any]) -> int | None:
    """Return the bytes of a row of ONNX Runtime's `NodeArg`s; None where that of `rows` is not their one free dim."""
    total = 0
    for value in values:
        first, *others = value.shape or [None]
        if rows != {first} or not isinstance(first, str) or not all(isinstance(dim, int) for dim in others):
            return None
        total += math.prod(others) * _FLOATS[value.type]
    return total


def _not_finite(name: str, array: np.ndarray, first_row: int, rows: int) -> StepError:
    """Say which row made a tensor NaN or infinite."""
    import numpy as np

    where = f"rows {first_row} to {first_row + rows - 1}" if rows > 1 else f"row {first_row}"
    if array.ndim and array.shape[0] == rows:
        where = f"row {first_row + int(np.isfinite(array).reshape(rows, -1).all(axis=1).argmin())}"
    return StepError(
        f"the tensor '{name}' holds {'NaN' if np.isnan(array).any() else 'infinity'} for {where} of the calibration "
        "data, counted from 0",
        hint="no range can hold that: leave the sample out, or mend the model; 'convkit compare' shows where it starts",
        code="calibration.not-finite",
    )


def _open(model: Model, observed: Observed, threads: int) -> Any:
    """Open the model with the observed tensors as further outputs.

    Fusions that these outputs allow are made, as they will be in the quantized graph. Layouts of the CPU's own are not:
    making them holds the weights in memory twice more, and every output would have to be turned back. The weights stay
    in their file, whose pages ONNX Runtime maps.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    _share_allocator()
    options.add_session_config_entry("session.use_env_allocators", "1")
    register_libraries(options)
    # Threads that wait for work would take it from those that count.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    if model.files.bytes > _PREPACKED_BELOW:
        options.add_session_config_entry("session.disable_prepacking", "1")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", model.files.path)
    graph = weights_in_place(model.path) + _outputs(model, observed.names)
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except (RuntimeError, ValueError) as error:
        raise StepError(
            f"ONNX Runtime {onnxruntime.__version__} refuses the model: {' '.join(str(error).split())}",
            hint="the message names the node; an operator without a kernel here cannot be calibrated",
            code="onnxruntime.refused",
        ) from error


@functools.cache
def _share_allocator() -> None:
    """Let ONNX Runtime's memory grow, in this process, by no more than a run asks for.

    By default each growth is twice the last; which one is the last depends on how runs fall together.
    """
    import onnxruntime

    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    as_requested = onnxruntime.OrtArenaCfg({"arena_extend_strategy": 1})
    onnxruntime.create_and_register_allocator(memory, as_requested)


def _outputs(model: Model, names: tuple[str, ...]) -> bytes:
    """Return, as bytes, a model of nothing but the outputs that are to be added.

    A protobuf message that comes twice is merged, its repeated fields appended to one another
    (https://protobuf.dev/programming-guides/encoding/#last-one-wins): put behind a model's own bytes these outputs join
    its own.
    """
    import onnx

    graph = load_model(model, weights=False).graph
    known = {value.name for value in (*graph.output, *graph.input)}
    more = onnx.ModelProto()
    for name in names:
        if name not in known:
            more.graph.output.add().name = name
    return bytes(more.SerializeToString())
