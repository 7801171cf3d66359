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
        batched = int(config["max_batch_size"]) > 0
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]
        faults = [
            *unknown_names("input", self.inputs, self.session.get_inputs()),
            *missing_inputs(self.inputs, self.session.get_inputs()),
            *unknown_names("output", self.outputs, self.session.get_outputs()),
            *tensor_faults(config["input"], self.session.get_inputs(), batched, exact=False),
            *tensor_faults(config["output"], self.session.get_outputs(), batched, exact=True),
        ]
        if faults:
            raise pb_utils.TritonModelException(f"{args['model_name']}: " + "; ".join(faults))
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
    """Read what the C++ backend reads: thread counts from `parameters`, the level from `optimization.graph`."""
    options = onnxruntime.SessionOptions()
    parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
    options.intra_op_num_threads = int(parameters.get("intra_op_thread_count", 0))
    options.inter_op_num_threads = int(parameters.get("inter_op_thread_count", 0))
    level = config.get("optimization", {}).get("graph", {}).get("level", 0)
    options.graph_optimization_level = GRAPH_LEVELS[int(level)]
    return options


def unknown_names(kind, configured, actual):
    allowed = [tensor.name for tensor in actual]
    for name in configured:
        if name not in allowed:
            yield f"the configuration's {kind} '{name}' is not in the model, which has {allowed}"


def missing_inputs(configured, actual):
    for tensor in actual:
        if tensor.name not in configured:
            yield f"the model's input '{tensor.name}' is not in the configuration"


def tensor_faults(configured, actual, batched, exact):
    by_name = {tensor.name: tensor for tensor in actual}
    for tensor in configured:
        if tensor["name"] in by_name:
            yield from type_faults(tensor, by_name[tensor["name"]])
            yield from shape_faults(tensor, by_name[tensor["name"]], batched, exact)


def type_faults(tensor, model):
    found = TYPES.get(model.type)
    if found is None:
        yield f"'{model.name}' is a {model.type}, which the backend cannot carry"
    elif found != tensor["data_type"]:
        yield f"'{model.name}' is {tensor['data_type']} in the configuration and {found} in the model"


def shape_faults(tensor, model, batched, exact):
    """Compare shapes by the C++ backend's rules.

    An output has the model's very shape. An input's fixed dimensions are the model's; a dynamic one takes any. A
    model's scalar is sent as a tensor of ones.
    """
    dims = [int(dim) for dim in (tensor["reshape"]["shape"] if "reshape" in tensor else tensor["dims"])]
    found = [dim if isinstance(dim, int) else -1 for dim in model.shape]
    if batched and found[:1] != [-1]:
        yield f"'{model.name}' has the shape {found} in the model: its first dimension is no dynamic batch"
    elif not found:
        if set(dims) != {1}:
            yield f"'{model.name}' is a scalar in the model and has the shape {dims} in the configuration"
    elif not shapes_agree([-1, *dims] if batched else dims, found, exact):
        yield f"'{model.name}' has the shape {dims} in the configuration and {found} in the model"


def shapes_agree(configured, found, exact):
    pairs = zip(configured, found, strict=False)
    return len(configured) == len(found) and all(have == want or (have == -1 and not exact) for want, have in pairs)


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
