"""The roofline of this machine: how much it computes and how much memory it moves in a second, measured shortly.

Williams, Waterman, Patterson, "Roofline: An Insightful Visual Performance Model for Multicore Architectures" (2009).
Copied bytes are counted as STREAM counts them: read once, written once (McCalpin, https://www.cs.virginia.edu/stream/).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from convkit.measure.conditions import read_moment
from convkit.pipeline import events
from convkit.pipeline.allowance import cores
from convkit.pipeline.step import observation

_SIDE = 1024
_COPIED = 64 << 20
"""Bytes that each thread copies in one round: beyond the caches."""
_SECONDS = 0.4
_LEAST_ROUNDS = 5


class Peaks(msgspec.Struct, frozen=True, kw_only=True):
    """What this machine reached in a short measurement, with all cores that it may use."""

    flops: float
    """Operations a second in FP32, a multiply-accumulate being two: ONNX Runtime's product of 1024 x 1024 matrices."""
    bytes_per_s: float
    """Bytes read and written a second: numpy copying arrays that no cache holds."""
    threads: int

    @property
    def ridge(self) -> float:
        """Return the arithmetic intensity, FLOP for each byte, above which arithmetic is what bounds."""
        return self.flops / self.bytes_per_s


@observation(version=1, stage="measure", title="Measure this machine's roofline", needs="onnx")
def machine_peaks() -> Peaks:
    """Measure both for about half a second, and take the best round of each; warn where others were at work."""
    load = read_moment(Path("/")).load
    if load is not None and load > cores():
        events.warn(
            "measure.busy",
            f"this machine's roofline was measured while {load:.0f} processes ran on {cores()} cores: it reaches more",
        )
    return Peaks(flops=_flops(), bytes_per_s=_bandwidth(cores()), threads=cores())


def _flops() -> float:
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    from convkit.graph.session import session_options

    weights = np.random.default_rng(0).standard_normal((_SIDE, _SIDE)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [_SIDE, _SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [_SIDE, _SIDE])],
        [numpy_helper.from_array(weights, "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), session_options(), providers=["CPUExecutionProvider"]
    )
    return 2 * _SIDE**3 / _best(lambda: session.run(None, {"x": weights}))


def _bandwidth(threads: int) -> float:
    import numpy as np

    pairs = [(np.ones(_COPIED, np.uint8), np.zeros(_COPIED, np.uint8)) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:  # numpy lets go of the interpreter's lock while it copies
        return 2 * _COPIED * threads / _best(lambda: list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), pairs)))


def _best(call: Callable[[], object]) -> float:
    """Return the seconds of the fastest call, of as many as fit."""
    call()
    best, rounds, end = float("inf"), 0, time.perf_counter() + _SECONDS
    while rounds < _LEAST_ROUNDS or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
        rounds += 1
    return best
