"""Triton's `onnxruntime` backend, in Python: a real server runs it where the C++ one cannot be had.

The server, its scheduler, its batcher and its reading of config.pbtxt are the real ones; only the call into
ONNX Runtime is made here. `initialize` compares the configuration with the ONNX file as the C++ backend does
and refuses what that one would refuse.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils
from against_config import Found, faults

TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}
GRAPH_LEVELS = {
    -1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    0: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


class TritonPythonModel:
    """One instance of one version of an ONNX model."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config):
        """Add nothing: what convkit emits has to be complete."""
        return auto_complete_model_config

    def initialize(self, args):
        """Load `<repository>/<version>/<default_model_filename>` and compare it with the configuration."""
        config = json.loads(args["model_config"])
        filename = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"], args["model_version"], filename)
        if not path.is_file():
            raise pb_utils.TritonModelException(f"{args['model_name']}: there is no file {path}")
        self.session = onnxruntime.InferenceSession(
            str(path), session_options(config), providers=["CPUExecutionProvider"]
        )
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        wrong = faults(config, [found(tensor) for tensor in inputs], [found(tensor) for tensor in outputs])
        if wrong:
            raise pb_utils.TritonModelException(f"{args['model_name']}: " + "; ".join(wrong))
        self.scalar_inputs = {tensor.name for tensor in self.session.get_inputs() if tensor.shape == []}
        self.scalar_shapes = {tensor["name"]: [int(dim) for dim in tensor["dims"]] for tensor in config["output"]}

    def execute(self, requests):
        """Answer each request by itself; the batch dimension, where there is one, is already in front."""
        return [self.answer(request) for request in requests]

    def answer(self, request):
        feeds = {name: from_wire(pb_utils.get_input_tensor_by_name(request, name)) for name in self.inputs}
        feeds.update({name: feeds[name].reshape(()) for name in self.scalar_inputs})
        results = self.session.run(self.outputs, feeds)
        tensors = [self.to_tensor(name, np.asarray(value)) for name, value in zip(self.outputs, results, strict=True)]
        return pb_utils.InferenceResponse(tensors)

    def to_tensor(self, name, value):
        shaped = value.reshape(self.scalar_shapes[name]) if value.ndim == 0 else value
        return pb_utils.Tensor(name, to_wire(shaped))


def session_options(config):
    """Read what the C++ backend reads.

    Thread counts from `parameters`, the level from `optimization.graph`, libraries from `model_operations`, whose
    paths go to the loader as they are.
    """
    options = onnxruntime.SessionOptions()
    parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
    options.intra_op_num_threads = int(parameters.get("intra_op_thread_count", 0))
    options.inter_op_num_threads = int(parameters.get("inter_op_thread_count", 0))
    level = config.get("optimization", {}).get("graph", {}).get("level", 0)
    options.graph_optimization_level = GRAPH_LEVELS[int(level)]
    for library in config.get("model_operations", {}).get("op_library_filename", []):
        options.register_custom_ops_library(library)
    return options


def found(tensor):
    shape = [dim if isinstance(dim, int) else -1 for dim in tensor.shape]
    return Found(tensor.name, tensor.type, TYPES.get(tensor.type), shape)


def from_wire(tensor):
    value = tensor.as_numpy()
    if value.dtype != object:
        return value
    texts = [item.decode() for item in value.reshape(-1)]
    return np.array(texts, dtype=object).reshape(value.shape)


def to_wire(value):
    if value.dtype != object:
        return value
    texts = [item.encode() for item in value.reshape(-1)]
    return np.array(texts, dtype=object).reshape(value.shape)
