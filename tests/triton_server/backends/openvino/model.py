"""Triton's `openvino` backend, in Python: a real server runs it where the C++ one cannot be had.

The server, its scheduler, its batcher and its reading of config.pbtxt are the real ones; only the call into OpenVINO
is made here. `initialize` compares the configuration with the model as the C++ backend does, and refuses parameters
that that one does not know.
"""

import json
from pathlib import Path

import openvino
import triton_python_backend_utils as pb_utils
from against_config import Found, faults

TYPES = {
    "boolean": "TYPE_BOOL",
    "u8": "TYPE_UINT8",
    "u16": "TYPE_UINT16",
    "u32": "TYPE_UINT32",
    "u64": "TYPE_UINT64",
    "i8": "TYPE_INT8",
    "i16": "TYPE_INT16",
    "i32": "TYPE_INT32",
    "i64": "TYPE_INT64",
    "f16": "TYPE_FP16",
    "f32": "TYPE_FP32",
    "f64": "TYPE_FP64",
}
SETTINGS = {"PERFORMANCE_HINT", "INFERENCE_NUM_THREADS", "COMPILATION_NUM_THREADS", "NUM_STREAMS"}
OTHERS = {"CPU_EXTENSION_PATH", "SKIP_OV_DYNAMIC_BATCHSIZE", "ENABLE_BATCH_PADDING", "RESHAPE_IO_LAYERS", "HINT_BF16"}


class TritonPythonModel:
    """One instance of one version of an OpenVINO model."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config):
        """Add nothing: what convkit emits has to be complete."""
        return auto_complete_model_config

    def initialize(self, args):
        """Load `<repository>/<version>/<default_model_filename>` and compare it with the configuration."""
        config = json.loads(args["model_config"])
        filename = config.get("default_model_filename") or "model.xml"
        path = Path(args["model_repository"], args["model_version"], filename)
        if not path.is_file():
            raise pb_utils.TritonModelException(f"{args['model_name']}: there is no file {path}")
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        strange = sorted(set(parameters) - SETTINGS - OTHERS)
        network = openvino.Core().read_model(str(path))
        wrong = [
            *(f"the backend has no parameter {name}" for name in strange),
            *faults(config, [found(port) for port in network.inputs], [found(port) for port in network.outputs]),
        ]
        if wrong:
            raise pb_utils.TritonModelException(f"{args['model_name']}: " + "; ".join(wrong))
        settings = {key: value for key, value in parameters.items() if key in SETTINGS}
        settings["INFERENCE_PRECISION_HINT"] = "bf16" if parameters.get("HINT_BF16") == "YES" else "f32"
        self.compiled = openvino.Core().compile_model(network, "CPU", settings)
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]

    def execute(self, requests):
        """Answer each request by itself; the batch dimension, where there is one, is already in front."""
        return [self.answer(request) for request in requests]

    def answer(self, request):
        feeds = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
        results = self.compiled(feeds)
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, results[name]) for name in self.outputs])


def found(port):
    shape = [dim.get_length() if dim.is_static else -1 for dim in port.get_partial_shape()]
    type_name = port.get_element_type().get_type_name()
    return Found(port.get_any_name(), type_name, TYPES.get(type_name), shape)
