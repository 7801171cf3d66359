"""Running an engine on recorded inputs, with TensorRT and the driver alone.

Unmeasured: needs a GPU. The flow is tested against stand-ins for the runtime and for the driver's library.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.errors import StepError
from convkit.graph.model import Tensors, numpy_dtype, save_tensors
from convkit.pipeline.artifact import Artifact
from convkit.pipeline.patience import one_run
from convkit.pipeline.step import observation
from convkit.pipeline.stopwatch import Timing, time_calls
from convkit.spec.tensor import Interface
from convkit.targets.answering import answers_to, in_portions
from convkit.targets.cuda_driver import Gpu
from convkit.targets.cuda_memory import DeviceMemory, device_memory
from convkit.targets.trt_api import Api, Flavour, open_api
from convkit.targets.trt_findings import DTYPES, tidy
from convkit.targets.trt_types import ICudaEngine, IExecutionContext

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


@observation(version=1, stage="check", title="Run the TensorRT plan", needs="tensorrt")
def run_tensorrt(engine: Artifact, samples: Tensors) -> Tensors:
    """Return a plan's outputs for every case of `samples`, under their wire names.

    Raises:
        MissingError: TensorRT is not installed, or there is no GPU here.
        StepError: the engine cannot be loaded here, or refuses an input's shape.
    """
    return _run(engine.file(), samples, Flavour.TENSORRT)


@observation(version=1, stage="check", title="Run the TensorRT-RTX engine", needs="tensorrt-rtx")
def run_rtx(engine: Artifact, samples: Tensors) -> Tensors:
    """Return a TensorRT-RTX engine's outputs; everything else as `run_tensorrt`."""
    return _run(engine.file(), samples, Flavour.TENSORRT_RTX)


@observation(version=1, stage="measure", title="Ask the TensorRT plan for its answers", needs="tensorrt")
def answer_tensorrt(
    engine: Artifact, *, interface: Interface, data: Artifact, outputs: tuple[str, ...], at_most: int | None, on: Gpu
) -> Tensors:
    """Return what a plan gives for evaluation data: some outputs, a set for each batch of `batch_rows` rows.

    Args:
        engine: the plan.
        interface: what the model takes.
        data: ``.npz`` files of rows. A batch that no profile takes as a whole is run in portions.
        outputs: the wire names of the outputs that are wanted.
        at_most: rows to use; None: all.
        on: this machine's GPU, so that no answers of another one are taken for its own.

    Raises:
        InputError: the data do not fit the model, or an output has no row for each sample.
        MissingError, StepError: as `run_tensorrt`.
    """
    del on
    with _loaded(engine.file(), Flavour.TENSORRT) as loaded:
        return save_tensors(
            answers_to(interface, data, outputs, at_most, lambda inputs: loaded.answer(inputs, outputs)), digits=6
        )


@observation(version=1, stage="measure", title="Time the TensorRT plan", needs="tensorrt")
def time_tensorrt(engine: Artifact, *, inputs: Tensors, seconds: float, on: Gpu) -> Timing:
    """Time one execution context on the first case of `inputs`, copies to the GPU and back included.

    Args:
        engine: the plan.
        inputs: recorded inputs; the first case is used.
        seconds: how long; one call before that does not count.
        on: this machine's GPU, so that no measurement of another one is taken for its own.

    Raises:
        MissingError, StepError: as `run_tensorrt`.
    """
    del on
    with _loaded(engine.file(), Flavour.TENSORRT) as loaded, loaded.bound(next(iter(inputs))) as call:
        call()
        return time_calls(call, seconds)


def _run(path: Path, samples: Tensors, flavour: Flavour) -> Tensors:
    with _loaded(path, flavour) as loaded:
        answers = []
        for case in samples:
            with loaded.bound(case) as call, one_run("the engine on one set of inputs"):
                answers.append(call())
        return save_tensors(answers)


@contextlib.contextmanager
def _loaded(path: Path, flavour: Flavour) -> Iterator[_Loaded]:
    api = open_api(flavour)
    runtime = api.runtime()  # outlives the engine
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    context = engine.create_execution_context() if engine is not None else None
    if engine is None or context is None:
        raise _failure(api, f"cannot load {path.name}", "build it here again: a plan belongs to one version and GPU")
    yield _Loaded(api, engine, context)


class _Loaded:
    """An engine that is ready to run."""

    def __init__(self, api: Api, engine: ICudaEngine, context: IExecutionContext) -> None:
        self.api = api
        self.engine = engine
        self.context = context

    def answer(self, case: dict[str, Array], outputs: tuple[str, ...]) -> dict[str, Array]:
        """Return some outputs for a batch of any size, in portions of as many rows as a profile takes."""
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        inputs = {name: case[name] for name in names if name in case}
        least, most = _rows_taken(self.engine, inputs)
        return in_portions(inputs, outputs, self._answer_one, least=least, most=most)

    def _answer_one(self, case: dict[str, Array]) -> dict[str, Array]:
        with self.bound(case) as call, one_run("the engine on one batch"):
            return call()

    @contextlib.contextmanager
    def bound(self, case: dict[str, Array]) -> Iterator[Callable[[], dict[str, Array]]]:
        """Give a function that copies the case's inputs to the GPU, runs the engine, and copies the outputs back.

        The engine runs in the first profile that takes the case's shapes.
        """
        import numpy as np

        api, engine, context = self.api, self.engine, self.context
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        mode = api.module.TensorIOMode.INPUT
        inputs = {name: np.ascontiguousarray(case[name]) for name in names if engine.get_tensor_mode(name) == mode}
        with device_memory() as memory:
            context.set_optimization_profile_async(_profile_for(api, engine, inputs), memory.stream)
            addresses = {name: memory.upload(array) for name, array in inputs.items()}
            for name, array in inputs.items():
                if not context.set_input_shape(name, array.shape):
                    raise _failure(api, f"refuses '{name}' of the shape {list(array.shape)}", "widen the profiles")
                context.set_tensor_address(name, addresses[name])
            outputs = _bind_outputs(api, engine, context, [name for name in names if name not in inputs], memory)

            def call() -> dict[str, Array]:
                for name, array in inputs.items():
                    memory.refill(addresses[name], array)
                if not context.execute_async_v3(memory.stream):
                    raise _failure(api, "failed to run the engine", "the log of the worker has more")
                for address, array in outputs.values():
                    memory.download(address, array)
                return {name: array for name, (_, array) in outputs.items()}

            yield call


def _bind_outputs(
    api: Api, engine: ICudaEngine, context: IExecutionContext, names: list[str], memory: DeviceMemory
) -> dict[str, tuple[int, Array]]:
    import numpy as np

    unknown = context.infer_shapes()
    if unknown:
        raise _failure(api, f"cannot tell the shapes of {', '.join(unknown)}", "give every input of the model")
    bound = {}
    for name in names:
        shape = tuple(context.get_tensor_shape(name))
        if -1 in shape:
            raise _failure(
                api,
                f"output '{name}' has a size that depends on the data, {list(shape)}",
                "convkit cannot run such engines yet; check the ONNX model instead",
            )
        array = np.empty(shape, numpy_dtype(DTYPES[engine.get_tensor_dtype(name).name]))
        address = memory.allocate(array.nbytes)
        context.set_tensor_address(name, address)
        bound[name] = (address, array)
    return bound


def _rows_taken(engine: ICudaEngine, inputs: dict[str, Array]) -> tuple[int, int]:
    """Return how many rows the profile takes, at least and at most, that takes most of these inputs' rows.

    Where no profile takes rows of their shape: all that there are, so that running them says what is wrong.
    """
    rows = len(next(iter(inputs.values())))
    taken = [(rows, rows)]
    for profile in range(engine.num_optimization_profiles):
        ranges = {name: engine.get_tensor_profile_shape(name, profile) for name in inputs}
        if all(_fits(inputs[name].shape[1:], low[1:], high[1:]) for name, (low, _, high) in ranges.items()):
            least = max(low[0] for low, _, _ in ranges.values())
            most = min(high[0] for _, _, high in ranges.values())
            if least <= rows <= most:
                return rows, rows
            taken.append((least, most))
    return max(taken[1:] or taken, key=lambda least_and_most: least_and_most[1])


def _profile_for(api: Api, engine: ICudaEngine, inputs: dict[str, Array]) -> int:
    for profile in range(engine.num_optimization_profiles):
        ranges = {name: engine.get_tensor_profile_shape(name, profile) for name in inputs}
        if all(_fits(inputs[name].shape, low, high) for name, (low, _, high) in ranges.items()):
            return profile
    shapes = ", ".join(f"'{name}' {list(array.shape)}" for name, array in inputs.items())
    raise _failure(api, f"has no profile for {shapes}", "widen the profiles in the recipe, and build again")


def _fits(shape: tuple[int, ...], low: Any, high: Any) -> bool:
    return all(least <= size <= most for least, size, most in zip(low, shape, high, strict=True))


def _failure(api: Api, what: str, hint: str) -> StepError:
    said = " ".join(tidy(text) for text in api.messages_of("ERROR", "INTERNAL_ERROR"))
    return StepError(
        f"{api.flavour.product} {api.version} {what}" + (f": {said}" if said else ""), hint=hint, code="tensorrt.run"
    )
