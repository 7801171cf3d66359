"""What is timed where an engine runs on a GPU: the framework beside it, and the engine with and without copies.

The GPU is the CPU here, or made up: nothing of this is measured on one.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from convkit.measure.latency import Measurement
from convkit.pipeline import events
from convkit.pipeline.events import Event, Warned
from convkit.pipeline.stopwatch import Timing
from convkit.report.speeds import Speeds
from convkit.sources import torch_cuda
from convkit.sources.torch_cuda import cuda_device, time_moved
from convkit.spec.options import MeasureMode

INT8 = "TensorRT INT8"


@pytest.fixture
def happened() -> Iterator[list[Event]]:
    seen: list[Event] = []
    events.observe(seen.append)
    yield seen
    events.observe(events.nobody)


def test_a_torch_without_cuda_is_timed_on_the_cpu_and_that_is_said(happened: list[Event]) -> None:
    assert cuda_device("NVIDIA L4") is None

    [warning] = happened
    assert isinstance(warning, Warned)
    assert warning.code == "measure.framework-on-cpu"
    assert "cannot use the NVIDIA L4" in warning.message


def test_without_a_gpu_beside_it_nothing_is_said(happened: list[Event]) -> None:
    assert cuda_device(None) is None
    assert happened == []


def test_a_module_is_timed_with_its_inputs_moved_there_and_its_outputs_back(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch_cuda, "WARM_UP_S", 0)
    seen: list[str] = []

    class Doubler(torch.nn.Module):
        def forward(self, x: torch.Tensor, *, twice: torch.Tensor) -> dict[str, torch.Tensor]:
            seen.append(f"{x.device} {twice.device}")
            return {"y": x * twice}

    timing = time_moved(Doubler(), (torch.ones(2),), {"twice": torch.tensor(2.0)}, 0, "cpu")

    assert len(timing.latencies_ns) == 1
    assert seen == ["cpu cpu"]


def rounds(milliseconds: float) -> list[Timing]:
    return [Timing(latencies_ns=(int(milliseconds * 1e6),) * 20) for _ in range(10)]


def test_both_ways_of_timing_an_engine_are_told_and_named() -> None:
    speeds = Speeds(
        Measurement(timings={"torch": rounds(9), INT8: rounds(3)}),
        final=INT8,
        mode=MeasureMode.QUICK,
        alone=Measurement(timings={INT8: rounds(2)}),
        timed_how=("copies included, as trtexec 10 measures", "without copies, as trtexec 11 measures"),
    )

    with_copies, alone = speeds.latency(INT8), speeds.latency_alone(INT8)

    assert with_copies is not None
    assert alone is not None
    assert (with_copies.p50_ms, alone.p50_ms) == (3, 2)
    assert speeds.latency_alone("torch") is None
    assert [comparison.before for comparison in speeds.comparisons] == ["torch"], "the second way is no other model"
    assert (
        "TensorRT INT8 was timed on the GPU: copies included, as trtexec 10 measures; and once more without copies, as "
        "trtexec 11 measures." in speeds.how()[0]
    )


def test_a_model_without_a_device_of_its_own_has_but_one_latency() -> None:
    speeds = Speeds(Measurement(timings={"ONNX": rounds(1)}), final="ONNX", mode=MeasureMode.QUICK)

    assert speeds.latency_alone("ONNX") is None
    assert "GPU" not in speeds.how()[0]
