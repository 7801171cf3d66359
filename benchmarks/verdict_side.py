"""The contenders of verdicts.py: a small network in ONNX Runtime, as it is or slower by a share that is known."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from convkit.graph.session import kept_session
from convkit.pipeline.step import observation
from convkit.pipeline.stopwatch import Timing, time_calls


def write_network(path: Path) -> None:
    """Write four convolutions of 32 channels on 32 x 32: about a millisecond on a core."""
    generator = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for number, channels in enumerate((3, 32, 32, 32)):
        weight = generator.normal(0, 0.1, (32, channels, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{number}"))
        nodes.append(helper.make_node("Conv", [last, f"w{number}"], [f"y{number}"], pads=[1, 1, 1, 1]))
        last = f"y{number}"
    shape = ["N", 3, 32, 32]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, ["N", 32, 32, 32])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


@observation(version=1, stage="measure", title="Time the network", needs="onnx")
def time_network(*, path: str, seconds: float, session: int, slower: float = 0.0) -> Timing:
    """Time a session, each call made longer by a share of what it took."""
    case = {"x": np.ones((1, 3, 32, 32), np.float32)}
    kept = kept_session(Path(path), key=f"{path} {session}", case=case)

    def call() -> None:
        began = time.perf_counter_ns()
        kept.run(None, case)
        until = time.perf_counter_ns() + slower * (time.perf_counter_ns() - began)
        while slower and time.perf_counter_ns() < until:
            pass

    return time_calls(call, seconds)
