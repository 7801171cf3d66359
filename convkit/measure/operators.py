"""Which operators take the time in ONNX Runtime, and what its optimizer makes of a graph."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from convkit.graph.census import census_of
from convkit.graph.model import Model, Tensors
from convkit.graph.operator_times import OperatorTimes, Ran, middle_half, operator_times
from convkit.graph.session import run_session, session_options, start_session
from convkit.pipeline.artifact import new_folder
from convkit.pipeline.step import observation

MOST_RUNS = 20_000
"""Runs of operators that are written down: about 900 bytes each."""
_WARM_UP = 3
_MOST_CALLS = 100
_AROUND = frozenset(("If", "Loop", "Scan"))
"""What they take is what the operators inside take, which are written down themselves."""


class _Details(msgspec.Struct, frozen=True):
    op_name: str = ""


class _Event(msgspec.Struct, frozen=True):
    """What is read of an event in ONNX Runtime's profile, whose times are in microseconds."""

    cat: str = ""
    name: str = ""
    dur: int = 0
    args: _Details = _Details()


@observation(version=1, stage="measure", title="See where the time goes", needs="onnx")
def profile_onnxruntime(model: Model, *, inputs: Tensors, seconds: float) -> OperatorTimes:
    """Run the first case of `inputs` for `seconds` under ONNX Runtime's profiler, in a session of its own.

    What the optimizer fused is seen at its level "extended": the next one only lays tensors out otherwise, which hides
    what was fused from the operators' names.

    Raises:
        StepError: ONNX Runtime refuses the model or the inputs.
    """
    import onnxruntime

    written = census_of(model).operators
    session, profile = _profiled(model)
    names = tuple(spec.name for spec in model.interface.outputs)
    case = next(iter(inputs))
    most = max(1, min(_MOST_CALLS, MOST_RUNS // max(1, sum(written.values()))))
    for _ in range(_WARM_UP):
        run_session(session, names, case)
    done, deadline = 0, time.perf_counter() + seconds
    while done < most and (not done or time.perf_counter() < deadline):
        run_session(session, names, case)
        done += 1
    calls = middle_half(list(_calls(session, profile))[_WARM_UP:])
    return operator_times(
        (ran for call in calls for ran in call),
        calls=len(calls),
        seen_by=f"ONNX Runtime {onnxruntime.__version__}",
        written=written,
        ran=_fused(model, names, case),
    )


def _profiled(model: Model, level: Any = None) -> tuple[Any, Path]:
    options = session_options()
    if level is not None:
        options.graph_optimization_level = level
    folder = new_folder("profile")
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "run")
    return start_session(model.path, options), folder


def _fused(model: Model, names: tuple[str, ...], case: dict[str, Any]) -> dict[str, int]:
    """Count what runs of a graph that is optimized, and whose tensors keep their layout."""
    import onnxruntime

    session, profile = _profiled(model, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED)
    run_session(session, names, case)
    operators = {ran.name: ran.operator for call in _calls(session, profile) for ran in call}
    return dict(Counter(operators.values()).most_common())


def _calls(session: Any, folder: Path) -> Iterator[list[Ran]]:
    """End a session's profile and go through it, call by call."""
    file = Path(session.end_profiling())
    assert file.parent == folder
    call: list[Ran] = []
    for event in msgspec.json.decode(file.read_bytes(), type=list[_Event]):
        if event.cat == "Node" and event.name.endswith("_kernel_time") and event.args.op_name not in _AROUND:
            name = event.name.removesuffix("_kernel_time")
            call.append(Ran(name=name, operator=event.args.op_name, ms=event.dur / 1000))
        elif event.name == "model_run":
            yield call
            call = []
    file.unlink()
