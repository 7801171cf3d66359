"""Which operators take the time in PyTorch, as torch.profiler tells it."""

from __future__ import annotations

import time
from collections.abc import Callable

from convkit.graph.model import Tensors
from convkit.graph.operator_times import OperatorTimes, Ran, operator_times
from convkit.graph.present import wanted_interface
from convkit.pipeline.patience import one_run
from convkit.pipeline.step import observation
from convkit.sources.torch_call import how_to_call
from convkit.sources.torch_module import TorchSource, load_module
from convkit.spec.metadata import Metadata
from convkit.spec.options import ExportOptions

_MOST_CALLS = 20
_WARM_UP = 2


@observation(version=1, stage="measure", title="See where PyTorch's time goes", needs="torch")
def profile_torch(
    source: TorchSource, *, metadata: Metadata, options: ExportOptions, inputs: Tensors, seconds: float
) -> OperatorTimes:
    """Run the module in inference mode on the first case of `inputs`, on the CPU."""
    module = load_module(source)
    call = how_to_call(module, wanted_interface(metadata, options.tensor_names, options.max_batch_size))
    arguments, keywords = call.given(next(iter(inputs)))
    return profiled_calls(lambda: module(*arguments, **keywords), seconds)


@observation(version=1, stage="measure", title="See where PyTorch's time goes", needs="torch")
def profile_pt2(
    source: TorchSource, *, metadata: Metadata | None, options: ExportOptions, inputs: Tensors, seconds: float
) -> OperatorTimes:
    """Run the exported program in inference mode on the first case of `inputs`."""
    from convkit.sources.torch_module import load_program
    from convkit.sources.torch_program import read_program

    program = read_program(load_program(source))
    return profiled_calls(program.prepared(program.face(metadata, options).fed(next(iter(inputs)))), seconds)


def profiled_calls(call: Callable[[], object], seconds: float) -> OperatorTimes:
    """Call for `seconds`, at least once, under torch.profiler: the operators' own time, those they call left out."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    with torch.inference_mode():
        for _ in range(_WARM_UP):
            call()
        done, deadline = 0, time.perf_counter() + seconds
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
            while done < _MOST_CALLS and (not done or time.perf_counter() < deadline):
                with one_run("a call that is profiled"):
                    call()
                done += 1
    events = seen.key_averages(group_by_input_shape=True)
    counts: dict[str, int] = {}
    for event in events:
        counts[_type(event.key)] = counts.get(_type(event.key), 0) + round(event.count / done)
    return operator_times(
        (
            Ran(
                name=" ".join(_shape(shape) for shape in event.input_shapes[:2] if shape),
                operator=_type(event.key),
                ms=event.self_cpu_time_total / 1000,
            )
            for event in events
        ),
        calls=done,
        seen_by=f"torch.profiler {torch.__version__}",
        counts=counts,
    )


def _type(key: str) -> str:
    return key.removeprefix("aten::")


def _shape(shape: object) -> str:
    return "x".join(str(size) for size in shape) if isinstance(shape, list) else str(shape)
