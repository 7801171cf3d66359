"""The yardstick: one process that calls the libraries directly and does what `convkit convert` does, no more.

    python bare.py FOLDER -o REPOSITORY [--measure none|quick]

FOLDER holds model.py with `load_model()` and config.txt. Steps: load, reference outputs, `torch.onnx.export`, onnxsim
and onnxslim (a result is kept where it has fewer nodes), write model.onnx, compare with torch in ONNX Runtime at two
sizes of every dynamic dimension, write config.pbtxt, time torch, ONNX Runtime, and ONNX Runtime once more in
alternation. Exit status 1 when the numbers differ. Prints one JSON object: seconds and the peak resident memory so far
of each phase, the nodes before and after, the largest difference, latencies.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import onnxruntime
    from torch import nn

SIZES = {"batch": (1, 3), "sequence": (128, 512)}
"""The two sizes of each dynamic dimension at which outputs are compared: those that convkit chooses for these models
(a sequence's come from opt_dims and max_dims). Latency is measured at the first."""

TYPES = {"float": ("float32", "TYPE_FP32"), "int": ("int32", "TYPE_INT32"), "long": ("int64", "TYPE_INT64")}
"""config.txt's names of the element types used here: numpy's, Triton's."""

Feed = dict[str, "np.ndarray[Any, Any]"]


class Phases:
    """Seconds, and the process's peak resident memory at the end, of each phase."""

    def __init__(self) -> None:
        self.done: dict[str, dict[str, float]] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds = round(time.perf_counter() - start, 3)
        status = Path("/proc/self/status").read_text()
        peak_kib = int(status.partition("VmHWM:")[2].split()[0])
        self.done[name] = {"seconds": seconds, "peak_mb": peak_kib * 1024 // 10**6}


def dynamic_dims(spec: dict[str, Any]) -> dict[int, str]:
    """Name a tensor's dynamic dimensions by axis: the first is the batch, any other the sequence."""
    return {axis: "sequence" if axis else "batch" for axis, dim in enumerate(spec["dims"]) if dim == -1}


def sample(config: dict[str, Any], which: int) -> Feed:
    """Draw random inputs with dynamic dimensions of the first (0) or second (1) of `SIZES`."""
    import numpy as np

    generator = np.random.default_rng(which)
    feed = {}
    for spec in config["input"]:
        dynamic = dynamic_dims(spec)
        shape = [SIZES[dynamic[axis]][which] if axis in dynamic else dim for axis, dim in enumerate(spec["dims"])]
        if spec["data_type"] == "float":
            values: np.ndarray[Any, Any] = generator.standard_normal(shape)
        else:
            low, high = spec.get("range", (0, 1))
            values = generator.integers(low, high, shape, endpoint=True)
        feed[spec["node_name"]] = values.astype(TYPES[spec["data_type"]][0])
    return feed


def run_torch(model: nn.Module, feed: Feed) -> list[np.ndarray[Any, Any]]:
    """Run the torch model; outputs in its own order."""
    import torch

    with torch.inference_mode():
        outputs = model(*(torch.from_numpy(array) for array in feed.values()))
    return [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]


def export(model: nn.Module, feed: Feed, config: dict[str, Any], file: Path) -> None:
    """Export with every dynamic dimension dynamic to `file` and, for the weights, `file`.data."""
    import torch

    dims = {name: torch.export.Dim(name) for name in SIZES}
    torch.onnx.export(
        model,
        tuple(torch.from_numpy(array) for array in feed.values()),
        file,
        dynamo=True,
        verbose=False,
        input_names=[spec["node_name"] for spec in config["input"]],
        output_names=[spec["node_name"] for spec in config["output"]],
        dynamic_shapes=tuple(
            {axis: dims[name] for axis, name in dynamic_dims(spec).items()} for spec in config["input"]
        ),
    )


def simplify(source: Path, target: Path) -> dict[str, int]:
    """Run both simplifiers, each on the smallest graph so far, write the smallest and return the numbers of nodes."""
    import onnx
    import onnxsim
    import onnxslim

    simplifiers: dict[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
        "onnxsim": lambda model: onnxsim.simplify(model)[0],
        "onnxslim": onnxslim.slim,
    }
    model = onnx.load(source)
    nodes = {"exported": len(model.graph.node)}
    smallest = nodes["exported"]
    for name, simplifier in simplifiers.items():
        candidate = simplifier(model)
        nodes[name] = len(candidate.graph.node)
        if nodes[name] < smallest:
            model, smallest = candidate, nodes[name]
        del candidate
    onnx.save(model, target)
    return nodes | {"written": smallest}


def difference(expected: list[np.ndarray[Any, Any]], found: list[np.ndarray[Any, Any]]) -> float:
    """Return the largest |a - b|; exit with status 1 where |a - b| > 1e-4 + 1e-3·|b| or a shape differs."""
    import numpy as np

    largest = 0.0
    for reference, output in zip(expected, found, strict=True):
        if reference.shape != output.shape or not np.allclose(output, reference, rtol=1e-3, atol=1e-4):
            sys.exit("the ONNX model's numbers differ from torch's")
        largest = max(largest, float(np.abs(output - reference).max()))
    return largest


def config_pbtxt(name: str, config: dict[str, Any]) -> str:
    """Return Triton's configuration, with the batch left out of the dims and dynamic batching on."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    message = model_config_pb2.ModelConfig(name=name, backend="onnxruntime", max_batch_size=config["batch_size"])
    for spec in config["input"]:
        message.input.add(name=spec["node_name"], data_type=TYPES[spec["data_type"]][1], dims=spec["dims"][1:])
    for spec in config["output"]:
        message.output.add(name=spec["node_name"], data_type=TYPES[spec["data_type"]][1], dims=spec["dims"][1:])
    message.dynamic_batching.SetInParent()
    return str(text_format.MessageToString(message))


def latencies(contenders: dict[str, Callable[[], object]], options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Time the contenders in alternation, after one round that does not count, until convkit would end, too.

    A round gives each `options.seconds`. After `options.rounds` it ends as soon as the last contender's ratio to the
    one before it and to the first is known to half a percent, or the first ratio is beyond ten; at the latest after
    `options.most` rounds or `options.budget` seconds. The first call of a round warms caches and threads up again, and
    is not counted. Returns the percentiles 50, 90 and 99 in milliseconds, and the number of calls counted.
    """
    import numpy as np

    from convkit.measure.ratio import MIN_ROUNDS, ratio  # the rule, so that both sides measure equally long
    from convkit.pipeline.stopwatch import Timing

    taken: dict[str, list[Timing]] = {name: [] for name in contenders}
    first, *_, last, again = contenders
    began = time.monotonic()
    for number in range(options.most + 1):
        rounds = number - 1
        if rounds >= MIN_ROUNDS and time.monotonic() - began > options.budget:
            break
        if rounds >= options.rounds:
            apart, itself = ratio(taken[first], taken[last]), ratio(taken[last], taken[again])
            clear = apart.low > 1.1 or apart.high < 1 / 1.1
            if itself.reach <= 0.005 and (clear or apart.reach <= 0.005):
                break
        for name, call in contenders.items():
            calls: list[int] = []
            end = time.perf_counter_ns() + int(1e9 * options.seconds)
            while not calls or time.perf_counter_ns() < end:
                start = time.perf_counter_ns()
                call()
                calls.append(time.perf_counter_ns() - start)
            if number:
                taken[name].append(Timing(latencies_ns=tuple(calls[len(calls) > 1 :])))
    counted = {name: [each / 1e6 for round_ in done for each in round_.latencies_ns] for name, done in taken.items()}
    return {
        name: {f"p{p}_ms": round(float(np.percentile(times, p)), 3) for p in (50, 90, 99)} | {"calls": len(times)}
        for name, times in counted.items()
    }


def session(path: Path) -> onnxruntime.InferenceSession:
    """Open the model for the CPU with ONNX Runtime's defaults."""
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def convert(folder: Path, repository: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Write `repository`/NAME/1/model.onnx and config.pbtxt for the model in `folder`, and say what was seen."""
    phases, seen = Phases(), dict[str, Any]()
    config = json.loads((folder / "config.txt").read_text())
    with phases("import torch"):
        import torch  # noqa: F401
    with phases("load"):
        sys.dont_write_bytecode = True
        sys.path.insert(0, str(folder))
        model = importlib.import_module("model").load_model().eval()
    with phases("reference outputs"):
        feeds = [sample(config, which) for which in (0, 1)]
        expected = [run_torch(model, feed) for feed in feeds]
    version = repository / folder.name / "1"
    version.mkdir(parents=True)
    exported = version / "exported.onnx"
    with phases("export"):
        export(model, feeds[1], config, exported)
    with phases("simplify and write"):
        seen["nodes"] = simplify(exported, version / "model.onnx")
    with phases("check"):
        if options.check == "both":
            opened = session(exported)
            for feed, reference in zip(feeds, expected, strict=True):
                difference(reference, opened.run(None, feed))
        for file in version.glob("exported.onnx*"):
            file.unlink()
        opened = session(version / "model.onnx")
        seen["max_abs"] = max(
            difference(reference, opened.run(None, feed)) for feed, reference in zip(feeds, expected, strict=True)
        )
    with phases("config.pbtxt"):
        (version.parent / "config.pbtxt").write_text(config_pbtxt(folder.name, config))
    if options.measure != "none":
        with phases("measure"):
            other = session(version / "model.onnx")
            contenders: dict[str, Callable[[], object]] = {
                "torch": lambda: run_torch(model, feeds[0]),
                "onnxruntime": lambda: opened.run(None, feeds[0]),
                "onnxruntime, again": lambda: other.run(None, feeds[0]),
            }
            seen["latency"] = latencies(contenders, options)
    return {"phases": phases.done, **seen}


def main() -> None:
    """Parse the command line, convert, print."""
    parser = argparse.ArgumentParser(description="Convert with the libraries alone, in one process.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the model repository to write")
    parser.add_argument("--measure", choices=("none", "quick"), default="quick")
    parser.add_argument("--seconds", type=float, default=0.08, help="for each contender in a round (0.08)")
    parser.add_argument("--rounds", type=int, default=10, help="at least so many (10)")
    parser.add_argument("--most", type=int, default=40, help="at most so many (40)")
    parser.add_argument("--budget", type=float, default=5.0, help="seconds after which no round begins (5)")
    parser.add_argument("--check", choices=("final", "both"), default="final", help="both: the exported model as well")
    options = parser.parse_args()
    print(json.dumps(convert(options.folder.resolve(), options.output, options), indent=1))


if __name__ == "__main__":
    main()
