"""What can be measured only where there is an NVIDIA GPU; docs/gpu.md holds what was found.

    python gpu.py [--seconds 3] [--rounds 5] [--output FILE.json]

In this order: whether TensorRT-RTX says that an engine built without a GPU is valid on this one; the latency of
ResNet50 in FP32, FP16 and INT8 against PyTorch on CUDA, and the engines' answers against PyTorch's; ONNX Runtime's CUDA
provider. A part for which something is missing says what, and the next one is tried. Needs the extras `torch` and
`tensorrt-rtx`; the last part needs the package onnxruntime-gpu in place of onnxruntime. Exit status 0 also where
nothing was measured.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import rtx_side

from convkit.targets.cuda_driver import Gpu, driver_present, gpu, why_absent
from convkit.targets.trt_api import Flavour, installed, open_api

HERE = Path(__file__).resolve().parent
PRECISIONS = {"none": "FP32", "fp16": "FP16", "int8": "INT8"}
BATCHES = (1, 8)
LIBRARIES = ("tensorrt-rtx-cu13", "torch", "onnxruntime", "onnxruntime-gpu", "onnx", "numpy")


class NotMeasured(Exception):  # noqa: N818 - no error
    """A part cannot be measured here; the text says why."""


class Bench:
    """The model, and the engines that convkit has made of it; each is made once, when a part first asks for it."""

    def __init__(self, folder: Path, *, seconds: float, rounds: int) -> None:
        self.folder = folder
        self.seconds = seconds
        self.rounds = rounds
        self._made: dict[str, Path] = {}

    @property
    def gpu(self) -> Gpu:
        """Return this machine's GPU."""
        found = gpu() if driver_present() else None
        if found is None:
            raise NotMeasured(f"no NVIDIA driver: {why_absent()}")
        return found

    @property
    def model(self) -> Path:
        """Return ResNet50 as an ONNX file."""
        path = self.folder / "resnet50.onnx"
        if not path.exists():
            subprocess.run([sys.executable, str(HERE / "rtx_side.py"), "make", str(path)], check=True)
        return path

    def published(self, precision: str, *, to: str) -> Path:
        """Return the folder of a version that convkit has made."""
        name = f"{to}-{precision.replace('+', '-')}"
        if name not in self._made:
            argv = [sys.executable, "-m", "convkit", "convert", str(self.model), "--to", to, "--name", name]
            argv += ["-o", str(self.folder / "models"), "--quantize", precision, "--measure", "none", "--quiet"]
            if precision == "int8":
                argv.append("--allow-random-calibration")
            if to == "tensorrt-rtx":
                argv += ["--set", f'tensorrt-rtx.compute_capabilities=["{self.gpu.compute_capability}"]']
            variables = {**os.environ, "CONVKIT_CACHE_DIR": str(self.folder / "cache"), "PYTHONPATH": str(HERE.parent)}
            done = subprocess.run(argv, check=False, capture_output=True, text=True, env=variables)
            if done.returncode:
                raise NotMeasured(f"convkit could not make it: {done.stderr.strip()}")
            self._made[name] = self.folder / "models" / name / "1"
        return self._made[name]

    def engine(self, precision: str) -> bytes:
        """Return an engine that TensorRT-RTX has built on the CPU for this GPU."""
        here = self.gpu
        if not installed(Flavour.TENSORRT_RTX):
            raise NotMeasured("TensorRT-RTX is not installed: pip install 'convkit[tensorrt-rtx]'")
        known: Any = open_api(Flavour.TENSORRT_RTX).module
        if f"SM{here.compute_capability.replace('.', '')}" not in known.ComputeCapability.__members__:
            raise NotMeasured(
                f"TensorRT-RTX builds for no GPU of compute capability {here.compute_capability} ({here.name})"
            )
        return (self.published(precision, to="tensorrt-rtx") / "model.engine").read_bytes()

    def torch(self) -> Any:
        """Return the module, where it can use the GPU."""
        assert self.gpu
        try:
            import torch
        except ImportError as error:
            raise NotMeasured("PyTorch is not installed: pip install 'convkit[torch]'") from error
        if not torch.cuda.is_available():
            raise NotMeasured(f"PyTorch {torch.__version__} was built without CUDA, or cannot use this GPU")
        return torch

    def alternate(self, contenders: dict[str, Callable[[], object]], wait: Callable[[], object]) -> dict[str, float]:
        """Return each contender's median latency in ms, call by call; rounds alternate, the first is warm-up."""
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(self.rounds + 1):
            for name, call in contenders.items() if number % 2 else reversed(list(contenders.items())):
                end = time.perf_counter() + self.seconds / self.rounds
                while time.perf_counter() < end:
                    started = time.perf_counter()
                    call()
                    wait()
                    if number:
                        times[name].append(1000 * (time.perf_counter() - started))
        return {name: median(values) for name, values in times.items()}


def validity(bench: Bench) -> list[str]:
    """Ask TensorRT-RTX of each engine, of whose header it looks at no more."""
    lines = []
    for precision, title in PRECISIONS.items():
        engine = bench.engine(precision)
        verdict, why = open_api(Flavour.TENSORRT_RTX).runtime().get_engine_validity(engine)  # type: ignore[attr-defined]
        lines.append(f"{title}: {getattr(verdict, 'name', verdict)}, diagnostics {why}")
    return lines


def latency(bench: Bench) -> list[str]:
    """Time engines and PyTorch on the same GPU tensors, and hold the numbers against PyTorch's."""
    engines = {title: bench.engine(precision) for precision, title in PRECISIONS.items()}
    torch = bench.torch()
    network = _network(torch)
    narrow = copy.deepcopy(network).half()
    contexts = {title: _Context(torch, engine) for title, engine in engines.items()}
    lines = []
    for batch in BATCHES:
        images = torch.randn(batch, 3, 224, 224, device="cuda")
        half = images.half()
        contenders: dict[str, Callable[[], object]] = {
            "PyTorch FP32": partial(network, images),
            "PyTorch FP16": partial(narrow, half),
            **{title: partial(each, images) for title, each in contexts.items()},
        }
        with torch.inference_mode():
            found = bench.alternate(contenders, torch.cuda.synchronize)
            wanted = network(images)
            noise = {title: _sqnr(torch, wanted, context(images)) for title, context in contexts.items()}
        lines += [f"batch {batch}: {name} {value:.3f} ms" for name, value in found.items()]
        lines += [f"batch {batch}: {name} against PyTorch FP32: {value:.1f} dB" for name, value in noise.items()]
    return lines


class _Context:
    """An engine, to be called with a tensor on the GPU; its one input is the image, its one output the logits."""

    def __init__(self, torch: Any, engine: bytes) -> None:
        self._torch = torch
        self._runtime = open_api(Flavour.TENSORRT_RTX).runtime()
        self._engine: Any = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise NotMeasured("TensorRT-RTX does not load the engine")
        self._context: Any = self._engine.create_execution_context()
        self._names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]

    def __call__(self, images: Any) -> Any:
        """Return the logits; they stand when the stream has been waited for."""
        source, target = self._names
        self._context.set_input_shape(source, tuple(images.shape))
        logits = self._torch.empty(tuple(self._context.get_tensor_shape(target)), device="cuda")
        self._context.set_tensor_address(source, images.data_ptr())
        self._context.set_tensor_address(target, logits.data_ptr())
        self._context.execute_async_v3(self._torch.cuda.current_stream().cuda_stream)
        return logits


def cuda_provider(bench: Bench) -> list[str]:
    """Time ONNX Runtime's CUDA provider, copies of inputs and outputs included."""
    assert bench.gpu
    import numpy as np
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise NotMeasured(f"onnxruntime {onnxruntime.__version__} has no CUDA provider: pip install onnxruntime-gpu")
    sessions = {}
    for precision in ("none", "fp16"):
        path = bench.published(precision, to="onnxruntime") / "model.onnx"
        session = onnxruntime.InferenceSession(path, providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
        if "CUDAExecutionProvider" not in session.get_providers():
            raise NotMeasured("ONNX Runtime fell back to the CPU: its CUDA provider could not be loaded")
        sessions[PRECISIONS[precision]] = session
    lines = []
    for batch in BATCHES:
        feed = {rtx_side.INPUT: np.random.default_rng(0).standard_normal((batch, 3, 224, 224)).astype(np.float32)}
        calls: dict[str, Callable[[], object]] = {
            name: partial(each.run, None, feed) for name, each in sessions.items()
        }
        found = bench.alternate(calls, lambda: None)
        lines += [f"batch {batch}: ONNX Runtime CUDA {name} {value:.3f} ms" for name, value in found.items()]
    return lines


PARTS = (
    ("TensorRT-RTX on an engine built without a GPU", validity),
    ("TensorRT-RTX against PyTorch on CUDA", latency),
    ("ONNX Runtime's CUDA provider", cuda_provider),
)


def _network(torch: Any) -> Any:
    import runpy

    defined = runpy.run_path(str(HERE / "networks.py"))
    network = defined["ResNet50"]()
    defined["randomize"](network, 0)
    return network.eval().to(torch.device("cuda"))


def _sqnr(torch: Any, wanted: Any, found: Any) -> float:
    torch.cuda.synchronize()
    noise = (wanted.double() - found.double()).square().sum()
    return float(10 * torch.log10(wanted.double().square().sum() / noise))


def _versions() -> str:
    named = []
    for name in LIBRARIES:
        try:
            named.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(named)


def main() -> None:
    """Parse the command line, measure what can be measured, print it, write the JSON."""
    parser = argparse.ArgumentParser(description="Measure what needs an NVIDIA GPU.")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each contender, shared out over the rounds (3)")
    parser.add_argument("--rounds", type=int, default=5, help="of each contender, in alternation (5)")
    parser.add_argument("--output", type=Path, help="JSON file for what was found")
    options = parser.parse_args()
    here = gpu() if driver_present() else None
    print(f"GPU: {here.name}, compute capability {here.compute_capability}, CUDA {here.cuda}" if here else "GPU: none")
    print(f"{_versions()}\n")
    found: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
        bench = Bench(Path(folder), seconds=options.seconds, rounds=options.rounds)
        for title, part in PARTS:
            try:
                found[title] = part(bench)
            except NotMeasured as error:
                found[title] = [f"not measured: {error}"]
            print("\n".join([f"{title}:", *(f"  {line}" for line in found[title])]))
    if options.output:
        options.output.write_text(json.dumps({"gpu": here and here.name, "found": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
