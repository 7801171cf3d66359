"""Triton's backends `onnxruntime` and `openvino` in Python, for a server that brings its Python backend alone.

The server of the package nvidia-pytriton runs them in processes of its own, where this file stands alone. Scheduler,
batching and configuration are Triton's; the call into the runtime is made here. For trying a model: the backends of
Triton's containers are in C++, and faster.
"""

from __future__ import annotations

import importlib
import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


class _Model(ABC):
    """One instance of one version of a model."""

    file = ""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Add nothing: what convkit writes is complete."""
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Load `<repository>/<version>/<default_model_filename>`."""
        self._triton: Any = importlib.import_module("triton_python_backend_utils")
        self._config = json.loads(args["model_config"])
        self._outputs = {tensor["name"]: tensor for tensor in self._config["output"]}
        name = self._config.get("default_model_filename") or self.file
        self.load(Path(args["model_repository"], args["model_version"], name))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself; the batch, where there is one, is in front already."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        given = {}
        for tensor in self._config["input"]:
            array = self._triton.get_input_tensor_by_name(request, tensor["name"]).as_numpy()
            given[tensor["name"]] = _texts(array) if array.dtype == object else array
        found = self.run(given)
        tensors = [self._triton.Tensor(name, self._on_the_wire(name, array)) for name, array in found.items()]
        return self._triton.InferenceResponse(tensors)

    def _on_the_wire(self, name: str, array: np.ndarray) -> np.ndarray:
        """Return an output as Triton has it: strings as bytes, a single number as [1]."""
        import numpy as np

        batched = int(self._config["max_batch_size"]) > 0
        if array.ndim == batched:
            array = array.reshape((*array.shape, *(int(dim) for dim in self._outputs[name]["dims"])))
        if array.dtype.kind in "OU":
            return np.array([str(text).encode() for text in array.reshape(-1)], object).reshape(array.shape)
        return array

    @abstractmethod
    def load(self, path: Path) -> None:
        """Load the model's file."""

    @abstractmethod
    def run(self, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs for one batch."""


def _texts(array: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.array([item.decode() for item in array.reshape(-1)], object).reshape(array.shape)


class OnnxRuntimeModel(_Model):
    """An ONNX file in ONNX Runtime, on the CPU."""

    file = "model.onnx"

    def load(self, path: Path) -> None:
        """Open the file in a session with the configuration's numbers of threads."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        parameters = {key: value["string_value"] for key, value in self._config.get("parameters", {}).items()}
        options.intra_op_num_threads = int(parameters.get("intra_op_thread_count", 0))
        options.inter_op_num_threads = int(parameters.get("inter_op_thread_count", 0))
        for library in self._config.get("model_operations", {}).get("op_library_filename", []):
            options.register_custom_ops_library(library)
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._ranks = {tensor.name: len(tensor.shape) for tensor in self._session.get_inputs()}

    def run(self, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return every output of the configuration."""
        import numpy as np

        shaped = {name: array.reshape(array.shape[: self._ranks[name]]) for name, array in given.items()}
        results = self._session.run(list(self._outputs), shaped)
        return dict(zip(self._outputs, map(np.asarray, results), strict=True))


class OpenVINOModel(_Model):
    """OpenVINO's intermediate representation, on the CPU."""

    file = "model.xml"

    def load(self, path: Path) -> None:
        """Compile the file with the configuration's hint."""
        import openvino

        parameters = {key: value["string_value"] for key, value in self._config.get("parameters", {}).items()}
        hints = {
            "INFERENCE_PRECISION_HINT": "bf16" if parameters.get("HINT_BF16") == "YES" else "f32",
            "PERFORMANCE_HINT": parameters.get("PERFORMANCE_HINT", "LATENCY"),
        }
        self._compiled: Any = openvino.Core().compile_model(str(path), "CPU", hints)

    def run(self, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return every output of the configuration."""
        ranks = {name: len(self._compiled.input(name).partial_shape) for name in given}
        results = self._compiled({name: array.reshape(array.shape[: ranks[name]]) for name, array in given.items()})
        return {name: results[name] for name in self._outputs}
