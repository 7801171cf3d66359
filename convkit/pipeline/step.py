"""Steps: plain functions that the runner remembers."""

from __future__ import annotations

import functools
import importlib
import inspect
import typing
from collections.abc import Callable
from enum import Enum
from typing import Any, Generic, ParamSpec, TypeVar

import msgspec

P = ParamSpec("P")
R = TypeVar("R")

ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "onnx": ("numpy", "onnx", "onnxruntime"),
    "torch": ("numpy", "torch", "onnx", "onnxscript", "onnx-ir"),
    "tensorflow": ("numpy", "tensorflow-cpu", "tf2onnx", "onnx"),
    "openvino": ("numpy", "openvino"),
    "tensorrt": ("numpy", "tensorrt"),
    "tensorrt-rtx": ("numpy", "tensorrt-rtx-cu13"),
}
"""What a worker of each environment has installed: distributions whose versions enter the key of its steps."""


class Kind(Enum):
    """How far a result may be reused."""

    STEP = "step"
    """Pure: the same inputs give the same result anywhere."""
    OBSERVATION = "observation"
    """A measurement: the result holds for this machine only."""
    ACTION = "action"
    """An effect outside the cache: never remembered."""


class Step(Generic[P, R]):
    """A function with what the runner must know of it; called directly it is the plain function."""

    def __init__(
        self,
        function: Callable[P, R],
        *,
        kind: Kind,
        version: int,
        stage: str,
        title: str,
        needs: str,
        libraries: tuple[str, ...],
    ) -> None:
        self.function = function
        self.kind = kind
        self.version = version
        self.stage = stage
        self.title = title
        self.needs = needs
        self.libraries = libraries
        self.name = f"{function.__module__}:{function.__qualname__}"
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    @functools.cached_property
    def hints(self) -> dict[str, Any]:
        """Return the types of the parameters and of the result (under ``return``)."""
        return typing.get_type_hints(self.function)

    def bind(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return every argument by name, defaults included."""
        bound = inspect.signature(self.function).bind(*args, **kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)

    def decode_arguments(self, builtins: dict[str, Any]) -> dict[str, Any]:
        """Turn JSON's builtins back into typed arguments."""
        return {name: msgspec.convert(value, type=self.hints[name]) for name, value in builtins.items()}

    def decode_result(self, builtins: Any) -> R:
        """Turn JSON's builtins back into the typed result."""
        result: R = msgspec.convert(builtins, type=self.hints["return"])
        return result


def _decorator(kind: Kind) -> Callable[..., Callable[[Callable[P, R]], Step[P, R]]]:
    def declare(
        *, version: int, stage: str, title: str, needs: str, libraries: tuple[str, ...] = ()
    ) -> Callable[[Callable[P, R]], Step[P, R]]:
        def wrap(function: Callable[P, R]) -> Step[P, R]:
            return Step(
                function, kind=kind, version=version, stage=stage, title=title, needs=needs, libraries=libraries
            )

        return wrap

    return declare


class _Declare(typing.Protocol):
    def __call__(
        self, *, version: int, stage: str, title: str, needs: str, libraries: tuple[str, ...] = ()
    ) -> Callable[[Callable[P, R]], Step[P, R]]: ...


step: _Declare = _decorator(Kind.STEP)
"""Declare a pure function from artifacts and options to artifacts, run in a worker of the environment `needs`.

`stage` is one of the contract's stage names, `title` what the user reads, `libraries` further distributions whose
versions the result depends on. Raise `version` when the function's meaning changes.
"""

observation: _Declare = _decorator(Kind.OBSERVATION)
"""Declare a measurement; its key also holds the machine's facts."""


def find_step(name: str) -> Step[..., Any]:
    """Import the step called ``module:function``."""
    module, _, attribute = name.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if not isinstance(found, Step):
        raise TypeError(f"{name} is no step")
    return found
