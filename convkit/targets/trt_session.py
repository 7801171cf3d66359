"""A loaded engine on this machine's GPU: its inputs bound, run in a profile that takes them, its outputs fetched.

Unmeasured: needs a GPU. The flow is tested against stand-ins for the runtime and for the driver's library.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.errors import StepError
from convkit.graph.model import numpy_dtype
from convkit.targets.answering import in_portions
from convkit.targets.cuda_memory import DeviceMemory, device_memory
from convkit.targets.trt_api import Api, Flavour, open_api
from convkit.targets.trt_findings import DTYPES, tidy
from convkit.targets.trt_types import ICudaEngine, IExecutionContext

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


@contextlib.contextmanager
def loaded(path: Path, flavour: Flavour) -> Iterator[Session]:
    """Load an engine.

    Raises:
        MissingError: TensorRT is not installed, or there is no GPU here.
        StepError: the engine cannot be loaded here.
    """
    api = open_api(flavour)
    runtime = api.runtime()  # outlives the engine
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    context = engine.create_execution_context() if engine is not None else None
    if engine is None or context is None:
        raise _failure(api, f"cannot load {path.name}", "build it here again: a plan belongs to one version and GPU")
    yield Session(api, engine, context)


class Session:
    """An engine that is ready to run."""

    def __init__(self, api: Api, engine: ICudaEngine, context: IExecutionContext) -> None:
        self.api = api
        self.engine = engine
        self.context = context

    def answer(self, case: dict[str, Array], outputs: tuple[str, ...]) -> dict[str, Array]:
        """Return some outputs for a batch of any size, in portions of as many rows as a profile takes."""
        inputs = {name: case[name] for name in self._names() if name in case}
        least, most = _rows_taken(self.engine, inputs)
        return in_portions(inputs, outputs, self.run, least=least, most=most)

    def run(self, case: dict[str, Array]) -> dict[str, Array]:
        """Return every output for a case that one profile takes.

        Raises:
            StepError: no profile takes its shapes, or the engine fails.
        """
        with self.bound(case) as binding:
            return {name: array.copy() for name, array in binding().items()}

    @contextlib.contextmanager
    def bound(self, case: dict[str, Array]) -> Iterator[Binding]:
        """Bind a case to the first profile that takes its shapes."""
        import numpy as np

        mode = self.api.module.TensorIOMode.INPUT
        names = [name for name in self._names() if self.engine.get_tensor_mode(name) == mode]
        inputs = {name: np.ascontiguousarray(case[name]) for name in names}
        with device_memory() as memory:
            yield Binding(self, memory, inputs)

    def outputs(self) -> list[str]:
        """Return the names of the outputs, in order."""
        mode = self.api.module.TensorIOMode.INPUT
        return [name for name in self._names() if self.engine.get_tensor_mode(name) != mode]

    def dtype(self, name: str) -> Any:
        """Return numpy's type for a tensor."""
        return numpy_dtype(DTYPES[self.engine.get_tensor_dtype(name).name])

    def failure(self, what: str, hint: str) -> StepError:
        """Return an error that says what the engine did not do, with TensorRT's own words."""
        return _failure(self.api, what, hint)

    def _names(self) -> list[str]:
        return [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]


class Binding:
    """One case's inputs and room for its outputs on the GPU. Called, it copies in, runs, and copies out.

    What it returns is overwritten by the next call.
    """

    def __init__(self, session: Session, memory: DeviceMemory, inputs: dict[str, Array]) -> None:
        self._session = session
        self._memory = memory
        self._inputs: dict[str, tuple[int, Array]] = {}
        self._fixed: dict[str, tuple[int, Array]] = {}
        self._grown: dict[str, Any] = {}
        context = session.context
        profile = _profile_for(session.api, session.engine, inputs)
        context.set_optimization_profile_async(profile, memory.stream)
        for name, array in inputs.items():
            self._bind_input(name, array)
        unknown = context.infer_shapes()
        if unknown:
            raise session.failure(f"cannot tell the shapes of {', '.join(unknown)}", "give every input of the model")
        for name in session.outputs():
            self._bind_output(name)

    @property
    def sizes_are_known(self) -> bool:
        """Tell whether every output's shape follows from the inputs' shapes."""
        return not self._grown

    def __call__(self) -> dict[str, Array]:
        """Copy the inputs to the GPU, run the engine, and return its outputs."""
        self.send()
        self.enqueue()
        return self.fetch()

    def send(self) -> None:
        """Have the inputs copied to the GPU."""
        for address, array in self._inputs.values():
            self._memory.send(address, array)

    def enqueue(self) -> None:
        """Have the engine run.

        Raises:
            StepError: it does not.
        """
        if not self._session.context.execute_async_v3(self._memory.stream):
            raise self._session.failure("failed to run the engine", "the log of the worker has more")

    def wait(self) -> None:
        """Wait for the GPU."""
        self._memory.wait()

    def fetch(self) -> dict[str, Array]:
        """Copy the outputs back, and return them."""
        for address, array in self._fixed.values():
            self._memory.fetch(address, array)
        self._memory.wait()
        arrays = {name: array for name, (_, array) in self._fixed.items()}
        for name, output in self._grown.items():
            arrays[name] = self._memory.pinned(output.shape, self._session.dtype(name))
            self._memory.fetch(output.address, arrays[name])
        if self._grown:
            self._memory.wait()
        return {name: arrays[name] for name in self._session.outputs()}

    @contextlib.contextmanager
    def on_device(self) -> Iterator[tuple[Callable[[], None], bool]]:
        """Give a call without copies, as a CUDA graph where it can be one, and whether it is.

        An engine that learns sizes as it runs allocates on the way, which no graph can hold.
        """
        with self._memory.graph(self.enqueue) if self.sizes_are_known else contextlib.nullcontext() as launch:
            start = launch or self.enqueue

            def call() -> None:
                start()
                self._memory.wait()

            yield call, launch is not None

    def _bind_input(self, name: str, array: Array) -> None:
        context = self._session.context
        held = self._memory.pinned(array.shape, array.dtype)
        held[...] = array
        if not context.set_input_shape(name, array.shape):
            raise self._session.failure(f"refuses '{name}' of the shape {list(array.shape)}", "widen the profiles")
        api = self._session.api
        if self._session.engine.get_tensor_location(name) == api.module.TensorLocation.HOST:
            context.set_tensor_address(name, held.ctypes.data)  # a shape tensor: TensorRT reads it here
            return
        address = self._memory.allocate(array.nbytes)
        self._inputs[name] = (address, held)
        context.set_tensor_address(name, address)

    def _bind_output(self, name: str) -> None:
        context = self._session.context
        shape = tuple(context.get_tensor_shape(name))
        if -1 in shape:
            self._grown[name] = output_allocator(self._session.api, self._memory)
            context.set_output_allocator(name, self._grown[name])
            return
        array = self._memory.pinned(shape, self._session.dtype(name))
        address = self._memory.allocate(array.nbytes)
        context.set_tensor_address(name, address)
        self._fixed[name] = (address, array)


def output_allocator(api: Api, memory: DeviceMemory) -> Any:
    """Make an `IOutputAllocator` for an output whose size shows as the engine runs; it has `address` and `shape`."""
    base = api.module.IOutputAllocator

    class Output(base):  # type: ignore[misc,valid-type]
        def __init__(self) -> None:
            base.__init__(self)  # not super(): the API's classes want their own
            self.address = 0
            self.room = 0
            self.shape: tuple[int, ...] = ()

        def reallocate_output(self, name: str, current: int, size: int, alignment: int) -> int:
            del name, current, alignment  # what the driver allocates is aligned to 256 bytes at least
            if size > self.room or not self.address:
                if self.address:
                    memory.wait()  # nothing may still write to what is given back
                    memory.free(self.address)
                self.address, self.room = memory.allocate(size), size
            return self.address

        def reallocate_output_async(self, name: str, current: int, size: int, alignment: int, stream: int) -> int:
            del stream
            return self.reallocate_output(name, current, size, alignment)

        def notify_shape(self, name: str, shape: Any) -> None:
            del name
            self.shape = tuple(shape)

    return Output()


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
        if all(_takes(api, engine, profile, name, array) for name, array in inputs.items()):
            return profile
    shapes = ", ".join(f"'{name}' {list(array.shape)}" for name, array in inputs.items())
    raise _failure(api, f"has no profile for {shapes}", "widen the profiles in the recipe, and build again")


def _takes(api: Api, engine: ICudaEngine, profile: int, name: str, array: Array) -> bool:
    """Tell whether a profile takes an input: its shape, or its values where these are a shape."""
    if engine.get_tensor_location(name) == api.module.TensorLocation.HOST:
        values = engine.get_tensor_profile_values(profile, name)
        return not values or _fits(tuple(array.reshape(-1)), values[0], values[-1])
    low, _, high = engine.get_tensor_profile_shape(name, profile)
    return _fits(array.shape, low, high)


def _fits(shape: tuple[int, ...], low: Any, high: Any) -> bool:
    return all(least <= size <= most for least, size, most in zip(low, shape, high, strict=True))


def _failure(api: Api, what: str, hint: str) -> StepError:
    said = " ".join(tidy(text) for text in api.messages_of("ERROR", "INTERNAL_ERROR"))
    return StepError(
        f"{api.flavour.product} {api.version} {what}" + (f": {said}" if said else ""), hint=hint, code="tensorrt.run"
    )
