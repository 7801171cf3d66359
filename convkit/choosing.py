"""`--quantize auto`: the precision that pays for this model on this target, chosen by trying and measuring.

Which precisions are tried follows from the target and from where the work is. On a CPU: INT8 where there are
calibration data, and dynamic INT8 where matrix products do most of the work, for convolutions are slower in it than in
FP32. On a GPU: INT8 with FP16 where there are calibration data, then FP8 where every GPU that the engine is for has it,
then FP16, then BF16. A candidate must keep within the tolerance (or the accuracy budget), and must be faster than FP32
where the target runs here; of several the fastest is chosen, and where none is left FP32. Where the target does not run
here the first that keeps within it is chosen.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from convkit.budget import within_budget
from convkit.errors import UsageError
from convkit.evaluation import Evaluation
from convkit.graph.model import Model
from convkit.graph.work import conv_share
from convkit.measure.compare import compare_outputs
from convkit.measure.latency import measure_latency
from convkit.narrowing import narrow
from convkit.order import Order
from convkit.pipeline.runner import Contender, Runner
from convkit.pipeline.stopwatch import Timing
from convkit.quantize.result import Narrowed
from convkit.report import statistics
from convkit.report.document import Trial
from convkit.request import target_options
from convkit.sources.exported import Exported
from convkit.spec.options import MeasureMode, Precision
from convkit.targets.onnxruntime import time_onnxruntime
from convkit.targets.target import Job, refusal_of
from convkit.targets.trt_fp8 import why_no_fp8

MOSTLY = 0.5
"""The share of multiply-accumulates from which on convolutions decide."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What was chosen, and why."""

    precision: Precision
    narrowed: Narrowed
    why: tuple[str, ...]
    """A sentence for each precision that was considered, the chosen one last."""
    trials: tuple[Trial, ...] = ()


class _Tried(msgspec.Struct, frozen=True, kw_only=True):
    precision: Precision
    narrowed: Narrowed
    trials: tuple[Trial, ...]
    speedup: float | None
    """Over FP32 on the same runtime; None where it was not measured."""


def choose(order: Order, run: Runner, model: Model, exported: Exported, evaluation: Evaluation | None) -> Choice:
    """Choose a precision for the simplified FP32 graph.

    Raises:
        StepError: a model could not be made or measured.
    """
    why: list[str] = []
    fit: list[_Tried] = []
    for precision, reason in _candidates(order, run, model, exported):
        if precision is None:
            why.append(reason)
            continue
        tried = _try(order, run, model, exported, evaluation, precision)
        if isinstance(tried, str):
            why.append(f"{precision.value} is left out: {tried}.")
        elif tried.speedup is not None and tried.speedup <= 1:
            why.append(f"{precision.value} is left out: it is not faster than FP32 here ({tried.speedup:.2f} times).")
        else:
            fit.append(tried)
            if tried.speedup is None:  # nothing to compare by: the first that fits
                break
    order.precision = Precision.NONE
    if not fit:
        why.append("FP32 it is: nothing lower pays.")
        return Choice(precision=Precision.NONE, narrowed=narrow(order, run, model, exported), why=tuple(why))
    best = max(fit, key=lambda each: each.speedup or 0.0)
    why += [f"{each.precision.value} is slower ({each.speedup:.2f} times FP32)." for each in fit if each is not best]
    speed = "its speed is not measured here" if best.speedup is None else f"{best.speedup:.2f} times as fast as FP32"
    why.append(f"{best.precision.value} is chosen: {speed}.")
    order.precision = best.precision
    return Choice(precision=best.precision, narrowed=best.narrowed, why=tuple(why), trials=best.trials)


def _candidates(
    order: Order, run: Runner, model: Model, exported: Exported
) -> Iterator[tuple[Precision, str] | tuple[None, str]]:
    """Go through what is worth trying, the most promising first; what is not comes with the reason."""
    data = order.calibration is not None or order.request.quantize.allow_random
    if order.target.gpu:
        integers = Precision.INT8_FP16
        if refusal_of(order.target, integers) is not None and refusal_of(order.target, Precision.INT8) is None:
            integers = Precision.INT8
        wanted = [integers, Precision.FP8] if data else []
        if not data:
            yield None, f"{integers.value} is left out: it needs --calibration-data."
        wanted += [Precision.FP16, Precision.BF16]
    else:
        convolutions = run(conv_share, model, samples=exported.samples)
        wanted = [Precision.INT8] if data else []
        if not data:
            yield None, "int8 is left out: it needs --calibration-data."
        if convolutions < MOSTLY:
            wanted.append(Precision.DYNAMIC)
        else:
            yield None, f"dynamic is left out: convolutions do {100 * convolutions:.0f} % of the work, and slow down."
    for precision in wanted:
        reason = _reason_against(order, precision)
        yield (precision, "") if reason is None else (None, f"{precision.value} is left out: {reason}.")


def _reason_against(order: Order, precision: Precision) -> str | None:
    """Return why a precision need not be tried on the target; None where it may pay."""
    if (refusal := refusal_of(order.target, precision)) is not None:
        return refusal.reason
    if precision is Precision.FP8:
        name, request = order.target.name, order.request
        return why_no_fp8(name, target_options(request, name), request.engine)
    return None


def _try(
    order: Order, run: Runner, model: Model, exported: Exported, evaluation: Evaluation | None, precision: Precision
) -> _Tried | str:
    """Make a model in a precision and measure it; say why it will not do."""
    request = order.request
    order.precision = precision
    budget = request.accuracy.max_drop_points
    trials: tuple[Trial, ...] = ()
    try:
        if evaluation is not None and budget is not None and precision.is_calibrated:
            narrowed, trials = within_budget(order, run, model, exported, evaluation)
        else:
            narrowed = narrow(order, run, model, exported)
    except UsageError as error:
        return error.message
    if evaluation is not None and budget is not None:
        drop = evaluation.source.value - evaluation.of(narrowed.judged).value
        if drop > budget:
            return f"it loses {drop:.4g} of {evaluation.metric.name}, and {budget:g} were allowed"
    else:
        verification = run(
            compare_outputs,
            narrowed.judged,
            samples=exported.samples,
            references=exported.references,
            precision=precision,
            options=request.check,
        )
        if not verification.passed:
            return f"its numbers are too far off (asked: {verification.tolerance})"
    return _Tried(
        precision=precision,
        narrowed=narrowed,
        trials=trials,
        speedup=_speedup(order, run, model, narrowed.model, exported, precision),
    )


def _speedup(
    order: Order, run: Runner, model: Model, final: Model, exported: Exported, precision: Precision
) -> float | None:
    """Measure both in alternation on the target; None where it does not run here, or nothing is to be measured.

    The lower end of the 95 % interval: what may be chance is not taken for a gain.
    """
    mode = order.request.measure.mode
    if mode is MeasureMode.NONE or (lower := _contender(order, run, final, exported, precision)) is None:
        return None
    full = _contender(order, run, model, exported, Precision.NONE)
    assert full is not None, "the same target"
    sides = {"FP32": full, precision.value: lower}
    timings = measure_latency(run, sides, mode).timings
    return statistics.compare(timings["FP32"], timings[precision.value], labels=("FP32", precision.value)).low


def _contender(
    order: Order, run: Runner, model: Model, exported: Exported, precision: Precision
) -> Contender[Timing] | None:
    """Return how a model is timed on the target; None where that does not run here."""
    request, seconds = order.request, 0.12
    job = Job(
        precision=precision,
        engine=request.engine,
        options=target_options(request, order.target.name),
        check=request.check,
        gates=request.gates,
        samples=exported.samples,
        references=exported.references,
    )
    compiled = order.target.compile(run, model, job)
    if compiled.timed is not None:
        return compiled.timed(exported.samples, seconds)
    if order.target.emulated:
        return None
    return Contender(time_onnxruntime, model, inputs=exported.samples, seconds=seconds)
