"""The seam to TensorRT: one face for the modules `tensorrt` (10 and 11) and `tensorrt_rtx`.

What differs between them is found by looking for attributes; enumerations are used by name, since their numbers change.
Networks are always strongly typed: precision is in the graph or nowhere. Where there is no driver, the builder of a
module that needs one, and every runtime, stay unopened: they can end the process.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Protocol

from convkit.errors import MissingError
from convkit.targets import trt_types as types
from convkit.targets.cuda_driver import driver_present, why_absent


class Flavour(StrEnum):
    """A member of the TensorRT family, called what `--to` calls it."""

    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"

    @property
    def module(self) -> str:
        """Return the name of the Python module; of its bindings where they are there alone."""
        name = self.value.replace("-", "_")
        bindings = f"{name}_bindings"
        alone = importlib.util.find_spec(name) is None and importlib.util.find_spec(bindings) is not None
        return bindings if alone else name

    @property
    def product(self) -> str:
        """Return the product's name."""
        return "TensorRT" if self is Flavour.TENSORRT else "TensorRT-RTX"


class Module(Protocol):
    """`tensorrt` or `tensorrt_rtx`."""

    __version__: str
    ILogger: Any
    IProgressMonitor: Any
    IOutputAllocator: Any
    NetworkDefinitionCreationFlag: types.NetworkDefinitionCreationFlag
    MemoryPoolType: types.MemoryPoolType
    BuilderFlag: types.BuilderFlag
    LayerInformationFormat: types.LayerInformationFormat
    TensorIOMode: types.TensorIOMode
    TensorLocation: types.TensorLocation

    def Builder(self, logger: object, /) -> types.Builder: ...  # noqa: N802
    def OnnxParser(self, network: types.INetworkDefinition, logger: object, /) -> types.OnnxParser: ...  # noqa: N802
    def Runtime(self, logger: object, /) -> types.Runtime: ...  # noqa: N802
    def Refitter(self, engine: types.ICudaEngine, logger: object, /) -> types.Refitter: ...  # noqa: N802
    def OnnxParserRefitter(  # noqa: N802
        self, refitter: types.Refitter, logger: object, /
    ) -> types.OnnxParserRefitter: ...


class Network:
    """A strongly typed network with its parser and builder.

    The parser writes into the network, which belongs to the builder: they are let go in that order.
    """

    def __init__(self, builder: types.Builder, definition: types.INetworkDefinition, parser: types.OnnxParser) -> None:
        self.parser = parser
        self.definition = definition
        self.builder = builder

    @property
    def inputs(self) -> list[types.ITensor]:
        """Return the network's inputs, in order."""
        return [self.definition.get_input(index) for index in range(self.definition.num_inputs)]

    @property
    def outputs(self) -> list[types.ITensor]:
        """Return the network's outputs, in order."""
        return [self.definition.get_output(index) for index in range(self.definition.num_outputs)]


class Api:
    """One TensorRT module, opened once for a process. Get it from `open_api`."""

    def __init__(self, flavour: Flavour, module: Module) -> None:
        self.flavour = flavour
        self.module = module
        self.version = module.__version__
        self.messages: list[tuple[str, str]] = []
        """What the module logged since the last network or runtime was opened: the severity's name and the text."""
        self.remarks: list[str] = []
        """What it said meanwhile of lesser weight, as far as the report wants it: the memory that the engine takes."""
        self.listings: list[str] = []
        """The layers of the engine, where the builder lists them."""
        self._logger = _logger(module, self._hear)  # the process keeps the first logger that it sees

    @property
    def needs_gpu_to_build(self) -> bool:
        """Tell whether the builder looks for a GPU: it does, unless it can be told a compute capability instead."""
        return not isinstance(self.module, types.BuildsAheadOfTime)

    def network(self) -> Network:
        """Make an empty network.

        Raises:
            MissingError: this module's builder needs a GPU, and there is none.
        """
        if self.needs_gpu_to_build and not driver_present():
            raise no_gpu(f"{self.flavour.product} {self.version} cannot open its builder here")
        self._forget()
        builder = self.module.Builder(self._logger)
        definition = builder.create_network(1 << int(self.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        return Network(builder, definition, self.module.OnnxParser(definition, self._logger))

    def runtime(self) -> types.Runtime:
        """Open the runtime.

        Raises:
            MissingError: there is no GPU here.
        """
        if not driver_present():
            raise MissingError(
                f"{self.flavour.product} {self.version} cannot run an engine here: {why_absent()}",
                hint="run it on a machine with an NVIDIA GPU; start a container with --gpus all",
                code="gpu.missing",
            )
        self.messages.clear()  # what the builder said of the engine is still wanted
        return self.module.Runtime(self._logger)

    def _forget(self) -> None:
        for heard in (self.messages, self.remarks, self.listings):
            heard.clear()

    def _hear(self, severity: str, text: str) -> None:
        if severity not in ("VERBOSE", "INFO"):
            self.messages.append((severity, text))
        elif text.startswith(_LISTINGS):
            self.listings.append(text)
        elif _REMARK in text:
            self.remarks.append(text)

    def refitter(self, engine: types.ICudaEngine) -> tuple[types.Refitter, types.OnnxParserRefitter]:
        """Return what gives an engine other weights, and what reads these from an ONNX file; keep both."""
        refitter = self.module.Refitter(engine, self._logger)
        return refitter, self.module.OnnxParserRefitter(refitter, self._logger)

    def messages_of(self, *severities: str) -> list[str]:
        """Return what was logged with these severities, each text once, without what a missing driver adds."""
        texts = (plain(text) for severity, text in self.messages if severity in severities)
        return list(dict.fromkeys(text for text in texts if text))


_NO_DRIVER = "(cudaError 35: "  # logged along with every error where there is no driver


def plain(text: str) -> str:
    """Return TensorRT's text without the lines that only say that there is no driver."""
    return "\n".join(line for line in text.splitlines() if _NO_DRIVER not in line).strip()


def no_gpu(what: str) -> MissingError:
    """Return the error of a build that needs a GPU where there is none; `what` says which."""
    return MissingError(
        f"{what}: {why_absent()}",
        hint="prepare the engine here (--engine defer) and run 'convkit build' on the machine with the GPU; "
        "start a container there with --gpus all",
        code="tensorrt.no-gpu",
    )


def not_installed(flavour: Flavour, why: str) -> MissingError:
    """Return the error of a module that cannot be imported."""
    return MissingError(
        f"{flavour.product} is not usable here: {why}", hint=_INSTALL[flavour], code="tensorrt.not-installed"
    )


def open_api(flavour: str) -> Api:
    """Import a module of the family.

    Raises:
        MissingError: it is not installed, or its libraries are not.
    """
    return _open(Flavour(flavour))


def installed(flavour: Flavour) -> bool:
    """Tell whether the module is there, without importing it."""
    return importlib.util.find_spec(flavour.module) is not None


@functools.cache
def _open(flavour: Flavour) -> Api:
    try:
        module: Any = importlib.import_module(flavour.module)
    except (ImportError, OSError) as error:
        raise not_installed(flavour, str(error)) from error
    return Api(flavour, module)


_INSTALL = {
    Flavour.TENSORRT: "work in a container that has it, such as Triton's, or: pip install 'convkit[tensorrt]'",
    Flavour.TENSORRT_RTX: "pip install 'convkit[tensorrt-rtx]'",
}


_LISTINGS = ("Layers:\n", "Engine Layer Information:\n")
_REMARK = " Memory: "


def _logger(module: Module, hear: Callable[[str, str], None]) -> object:
    base = module.ILogger

    class Logger(base):  # type: ignore[misc,valid-type]
        def __init__(self) -> None:
            base.__init__(self)  # not super(): the API's classes want their own

        def log(self, severity: types.Enumerator, message: str) -> None:
            hear(severity.name, message)

    return Logger()
