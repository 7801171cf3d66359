"""The module `tensorrt` of a machine with a GPU, stood in for; it is copied to `tensorrt.py` on the import path.

Parsing and building are TensorRT-RTX's, for real. Running cannot be had without a GPU: an engine is what TensorRT-RTX
built, with the ONNX file behind it, and ONNX Runtime answers, in a process of its own. Like the real one's, an engine
loads on the GPU and the version that built it, and nowhere else.

Environment: STAND_IN_GPU, STAND_IN_CC, STAND_IN_VERSION say what machine this is; STAND_IN_WRONG=run lets every engine
answer wrong, STAND_IN_WRONG=refit every refitted one; with STAND_IN_HOLD=FILE a run waits while that file is there.
"""

from __future__ import annotations

import builtins
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorrt_rtx as rtx

globals().update({name: value for name, value in vars(rtx).items() if name[0] != "_" and not hasattr(builtins, name)})
del globals()["ComputeCapability"]  # a builder that has it needs no GPU
__version__ = os.environ["STAND_IN_VERSION"]

_MAGIC = b"stand-in"
_SIZES = {"FLOAT": 4, "HALF": 2, "INT64": 8, "INT32": 4, "UINT8": 1, "INT8": 1, "BOOL": 1}
_DTYPES = {"FLOAT": "f4", "HALF": "f2", "INT64": "i8", "INT32": "i4", "UINT8": "u1", "INT8": "i1", "BOOL": "?"}
_RUN = """
import sys
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
for line in sys.stdin:
    folder = line.strip()
    with np.load(folder + "/in.npz") as case:
        found = session.run(None, dict(case))
    np.savez(folder + "/out.npz", **{o.name: v for o, v in zip(session.get_outputs(), found)})
    print("done", flush=True)
"""
_parsed: dict[int, Path] = {}


def machine() -> list[str]:
    return [os.environ["STAND_IN_GPU"], os.environ["STAND_IN_CC"], __version__]


class OnnxParser:
    def __init__(self, network: Any, logger: Any) -> None:
        self._real = rtx.OnnxParser(network, logger)
        self._network = network

    def parse_from_file(self, path: str) -> bool:
        _parsed[id(self._network)] = Path(path)
        return bool(self._real.parse_from_file(path))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def delegating(real: type) -> type:
    """Make a class whose instances hand to `self.real` what they do not do themselves: it has the same attributes."""

    def passed_on(name: str) -> property:
        return property(lambda self: getattr(self.real, name), lambda self, value: setattr(self.real, name, value))

    return type(real.__name__, (), {name: passed_on(name) for name in dir(real) if name[0] != "_"})


class BuilderConfig(delegating(rtx.IBuilderConfig)):  # type: ignore[misc]
    """A real one that notes its profiles; a timing cache wants a driver."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.profiles: list[Any] = []
        self.refittable = False

    def set_flag(self, flag: Any) -> None:
        """Without a driver TensorRT-RTX 1.7.1 fails to build with REFIT, and not with REFIT_INDIVIDUAL."""
        self.refittable = self.refittable or flag == rtx.BuilderFlag.REFIT
        self.real.set_flag(rtx.BuilderFlag.REFIT_INDIVIDUAL if flag == rtx.BuilderFlag.REFIT else flag)

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile)
        return int(self.real.add_optimization_profile(profile))

    def create_timing_cache(self, data: bytes) -> Any:
        return SimpleNamespace(serialize=lambda: b"timings", combine=lambda *_: True)

    def set_timing_cache(self, *_: Any) -> bool:
        return True

    def get_timing_cache(self) -> Any:
        return self.create_timing_cache(b"")


class Builder(delegating(rtx.Builder)):  # type: ignore[misc]
    def __init__(self, logger: Any) -> None:
        self.real = rtx.Builder(logger)

    def create_builder_config(self) -> BuilderConfig:
        return BuilderConfig(self.real.create_builder_config())

    def build_serialized_network(self, network: Any, config: BuilderConfig) -> bytes | None:
        config.real.num_compute_capabilities = 1
        config.real.set_compute_capability(rtx.ComputeCapability.SM89, 0)
        built = self.real.build_serialized_network(network, config.real)
        if built is None:
            return None
        inputs = [network.get_input(index) for index in range(network.num_inputs)]
        outputs = [network.get_output(index) for index in range(network.num_outputs)]
        header = {
            "machine": machine(),
            "inputs": [[t.name, t.dtype.name, list(t.shape)] for t in inputs],
            "outputs": [[t.name, t.dtype.name, list(t.shape)] for t in outputs],
            "profiles": [
                {t.name: [list(dims) for dims in profile.get_shape(t.name)] for t in inputs if -1 in t.shape}
                for profile in config.profiles
            ],
            "wrong": False,
            "refittable": config.refittable,
        }
        return packed(header, _parsed[id(network)].read_bytes(), bytes(built))


def packed(header: dict[str, Any], graph: bytes, engine: bytes) -> bytes:
    head = json.dumps({**header, "graph": len(graph)}).encode()
    return _MAGIC + len(head).to_bytes(8, "little") + head + graph + engine


class Engine:
    def __init__(self, header: dict[str, Any], graph: bytes, engine: bytes) -> None:
        self.header, self.graph, self.engine = header, graph, engine
        self.tensors = [*header["inputs"], *header["outputs"]]
        self.num_io_tensors = len(self.tensors)
        self.num_optimization_profiles = max(1, len(header["profiles"]))

    def get_tensor_name(self, index: int) -> str:
        return str(self.tensors[index][0])

    def get_tensor_mode(self, name: str) -> Any:
        is_input = name in [each[0] for each in self.header["inputs"]]
        return rtx.TensorIOMode.INPUT if is_input else rtx.TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name=next(dtype for each, dtype, _ in self.tensors if each == name))

    def get_tensor_location(self, _: str) -> Any:
        return rtx.TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name: str, profile: int) -> Any:
        profiles = self.header["profiles"]
        fixed = next(shape for each, _, shape in self.tensors if each == name)
        return (profiles[profile] if profiles else {}).get(name, (fixed, fixed, fixed))

    def create_execution_context(self) -> Context:
        return Context(self)

    def create_engine_inspector(self) -> SimpleNamespace:
        """An engine as it was built tells nothing, so that the log is read; one that was refitted names its outputs."""
        names = [name for name, _, _ in self.header["outputs"]] if self.header.get("refitted") else []
        return SimpleNamespace(get_engine_information=lambda _: json.dumps({"Layers": names}))

    def serialize(self) -> bytes:
        return packed(self.header, self.graph, self.engine)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.folder = Path(tempfile.mkdtemp())
        (self.folder / "model.onnx").write_bytes(engine.graph)
        variables = {name: value for name, value in os.environ.items() if name != "STAND_IN_LIGHT"}
        command = [sys.executable, "-c", _RUN, str(self.folder / "model.onnx")]
        self.runner = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables)

    def set_optimization_profile_async(self, *_: int) -> bool:
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name, _, _ in self.engine.header["inputs"] if name not in self.shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shape = self.shapes.get(name) or next(each[2] for each in self.engine.tensors if each[0] == name)
        rows = next(iter(self.shapes.values()))[0]
        return tuple(rows if dim == -1 else dim for dim in shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, _: int) -> bool:
        hold = os.environ.get("STAND_IN_HOLD")
        while hold and Path(hold).exists():
            time.sleep(0.02)
        header = self.engine.header
        np.savez(self.folder / "in.npz", **{name: self._memory(name, dtype) for name, dtype, _ in header["inputs"]})
        assert self.runner.stdin
        assert self.runner.stdout
        print(self.folder, file=self.runner.stdin, flush=True)
        assert self.runner.stdout.readline() == "done\n"
        wrong = header["wrong"] or os.environ.get("STAND_IN_WRONG") == "run"
        with np.load(self.folder / "out.npz") as found:
            for name, dtype, _ in header["outputs"]:
                self._memory(name, dtype)[...] = found[name] * (3 if wrong else 1)
        return True

    def _memory(self, name: str, dtype: str) -> Any:
        shape = self.get_tensor_shape(name)
        size = int(np.prod(shape)) * _SIZES[dtype]
        raw = (ctypes.c_char * size).from_address(self.addresses[name])
        return np.frombuffer(raw, _DTYPES[dtype]).reshape(shape)


class Runtime:
    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        size = int.from_bytes(plan[len(_MAGIC) :][:8], "little")
        start = len(_MAGIC) + 8
        header = json.loads(plan[start : start + size])
        if header["machine"] != machine():
            message = f"the engine was built on {header['machine']}, and this is {machine()}"
            self._logger.log(rtx.ILogger.Severity.ERROR, message)
            return None
        end = start + size + header["graph"]
        return Engine(header, plan[start + size : end], plan[end:])


class Refitter:
    def __init__(self, engine: Engine, _: Any) -> None:
        self.engine = engine
        self.graph = b""

    def get_missing_weights(self) -> list[str]:
        return []

    def refit_cuda_engine(self) -> bool:
        wrong = os.environ.get("STAND_IN_WRONG") == "refit"
        self.engine.graph, self.engine.header = self.graph, {**self.engine.header, "wrong": wrong, "refitted": True}
        return bool(self.engine.header["refittable"]) and os.environ.get("STAND_IN_WRONG") != "refused"


class OnnxParserRefitter:
    def __init__(self, refitter: Refitter, _: Any) -> None:
        self.refitter = refitter

    def refit_from_file(self, path: str) -> bool:
        self.refitter.graph = Path(path).read_bytes()
        return True
