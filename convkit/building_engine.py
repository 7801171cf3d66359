"""One engine: refitted or built on this GPU, held against the recorded samples, judged by its gates."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from convkit.building_work import Task
from convkit.built_accuracy import Evaluation, described, judge_engine
from convkit.errors import CheckError, ConvkitError
from convkit.graph.engine_layers import place
from convkit.graph.model import Model, Tensors
from convkit.graph.work import Work
from convkit.measure.accuracy import Accuracy
from convkit.measure.compare import Verification, hold_against, refuse_difference
from convkit.measure.gates import Found, Verdict, at_most, judge
from convkit.measure.latency import PLANS, measure_latency
from convkit.pipeline.artifact import gather, read_record
from convkit.pipeline.events import Warned
from convkit.pipeline.runner import Contender, Runner
from convkit.pipeline.stopwatch import Timing
from convkit.report import statistics
from convkit.report.assemble import EMULATED, checked, staged
from convkit.report.document import Caution, Failure, Report, Role, Status, Subject, read_report
from convkit.report.document import Engine as EngineState
from convkit.report.engine import engine_inside
from convkit.report.gates import latency_interval, low_precision, refuse_missed
from convkit.report.latency import Latency
from convkit.report.verdict import worsened
from convkit.spec.options import MeasureMode
from convkit.targets.build_plan import BuildPlan
from convkit.targets.cuda_driver import Gpu
from convkit.targets.here import Here
from convkit.targets.trt_build import Engine
from convkit.targets.trt_make import REFITTED, Made, Refittable, make_plan
from convkit.targets.trt_run import ON_DEVICE, WITH_COPIES, time_on_device, time_tensorrt
from convkit.targets.trt_work import executed


class Finished(NamedTuple):
    """An engine that may be published, and the report that says so."""

    engine: Engine
    report: Report
    refitted: bool


class Timed(NamedTuple):
    """The rounds of an engine that was timed in both of trtexec's ways; none where it was not timed."""

    with_copies: list[Timing]
    on_device: list[Timing]


def finish_engine(
    run: Runner,
    task: Task,
    here: Here,
    evaluation: Evaluation | None,
    candidate: Refittable | None,
    measure: MeasureMode = MeasureMode.NONE,
) -> Finished:
    """Make the engine of a version for this GPU, and judge it.

    Args:
        run: runs the steps.
        task: the version.
        here: this machine.
        evaluation: what its accuracy is judged on.
        candidate: another version's engine that may be refitted with this one's weights.
        measure: how long the engine is timed; `none`: only where a gate asks how long it takes.

    Raises:
        StepError: TensorRT could not build it.
        CheckError: its outputs are not the source framework's, or it missed a gate.
    """
    plan, on = task.plan, here.gpu
    run.stages.clear()
    run.warnings.clear()
    made, verification = _make(run, task, here, candidate)
    engine = made.engine
    samples = tensors_of(task, plan.samples)
    times = _time(run, engine, samples, plan, on, measure)
    accuracy = judge_engine(run, engine, plan, evaluation, on) if evaluation is not None else None
    report = report_of(task)
    ran = executed(run.observe, engine.inspected, plan.work)
    final = report.subject(Role.FINAL)
    final = _with_figures(final, engine, times, plan, ran) if final else None
    label = final.label if final else "TensorRT"
    timed = _latency(times.with_copies, plan)
    found = Found(
        size_bytes=engine.files.bytes,
        latency_ms=latency_interval(timed) if timed else None,
        low_precision=low_precision(final, plan.precision.bits) if final else None,
        drop=plan.accuracy.source - accuracy.value if plan.accuracy and accuracy else None,
        outputs=verification.outputs,
    )
    max_drop = plan.accuracy.max_drop if plan.accuracy else None
    gates = judge(plan.gates, plan.check, found, unknown=Verdict.INCONCLUSIVE, max_drop=max_drop)
    check = checked(f"{label}, built on {on.name}", "the source framework", verification)
    report = msgspec.structs.replace(
        report,
        status=Status.OK,
        exit_code=0,
        engine=EngineState.BUILT,
        created=datetime.now(UTC).replace(microsecond=0),
        stages=(*report.stages, *staged(run)) if task.pending else staged(run),
        checks=(*(each for each in report.checks if each.subject != check.subject), check),
        gates=gates,
        accuracy=described(report.accuracy, plan.accuracy, accuracy, gates),
        warnings=tuple(dict.fromkeys((*report.warnings, *(_caution(each) for each in run.warnings)))),
        subjects=tuple(final if final and s.role is Role.FINAL else s for s in report.subjects),
        inside=engine_inside(engine.inspected, place(plan.work, engine.inspected) if engine.inspected else ()),
        measured_how=tuple(
            dict.fromkeys(
                (
                    *(how for how in report.measured_how if how != EMULATED),
                    *_measured_how(label, times, accuracy, on),
                    *((REFITTED,) if made.refitted else ()),
                )
            )
        ),
    )
    _require_gates(report, found, engine)
    return Finished(engine, msgspec.structs.replace(report, worse=worsened(report)), made.refitted)


def report_of(task: Task) -> Report:
    """Return the report that a version has.

    Raises:
        InputError: it cannot be read.
    """
    path = task.inputs / "report.json"
    return read_report(read_record(path), where=str(path))


def tensors_of(task: Task, names: dict[str, str]) -> Tensors:
    """Return recorded tensors that a build.json names."""
    return Tensors(files=gather(task.inputs, names))


def _make(run: Runner, task: Task, here: Here, candidate: Refittable | None) -> tuple[Made, Verification]:
    """Refit where that gives the right numbers, else build; return what the check saw along with it.

    Raises:
        StepError: TensorRT could not build it.
        CheckError: what was built does not give the source framework's outputs.
    """
    plan = task.plan
    model = Model(files=gather(task.inputs, plan.model), interface=plan.interface)
    references = list(tensors_of(task, plan.references))

    def verified(answers: Tensors) -> Verification:
        return hold_against(references, list(answers), plan.precision, plan.tolerance)

    samples = tensors_of(task, plan.samples)
    made = make_plan(
        run, model, plan, samples, candidate=candidate, holds=lambda found: verified(found).passed, on=here.gpu
    )
    verification = verified(made.answers)
    refuse_difference(
        verification,
        "the built engine",
        "the source framework",
        hint="convert in a higher precision, or allow more with --max-error or --min-sqnr",
    )
    return made, verification


def _caution(warning: Warned) -> Caution:
    return Caution(code=warning.code, message=warning.message)


def _with_figures(subject: Subject, engine: Engine, times: Timed, plan: BuildPlan, ran: Work | None) -> Subject:
    rounds = times.with_copies
    return msgspec.structs.replace(
        subject,
        file_bytes=engine.files.bytes,
        emulated=False,
        macs=ran.macs if ran else subject.macs,
        macs_seen_by=ran.seen_by if ran else subject.macs_seen_by,
        latency=_latency(rounds, plan),
        latency_alone=_latency(times.on_device, plan),
        throughput_per_s=statistics.throughput(rounds, batch=_batch(plan)) if rounds else None,
    )


def _latency(rounds: list[Timing], plan: BuildPlan) -> Latency | None:
    return statistics.latency(rounds, batch=_batch(plan)) if rounds else None


def _time(run: Runner, engine: Engine, samples: Tensors, plan: BuildPlan, on: Gpu, mode: MeasureMode) -> Timed:
    """Time the engine where that is asked for, or a gate asks how long it takes."""
    limit = plan.gates.max_latency
    if mode is MeasureMode.NONE and limit is not None:
        mode = MeasureMode.QUICK
    if mode is MeasureMode.NONE:
        return Timed([], [])
    seconds = PLANS[mode].seconds
    alone = {"": Contender(time_on_device, engine.files, inputs=samples, seconds=seconds, on=on)}
    on_device = measure_latency(run, alone, mode).timings[""]
    contenders = {"": Contender(time_tensorrt, engine.files, inputs=samples, seconds=seconds, on=on)}
    rounds = measure_latency(run, contenders, mode).timings[""]
    if limit is not None and run.stages[-1].cached:  # a moment's noise must not be remembered for ever
        found = latency_interval(statistics.latency(rounds, batch=1))
        if at_most(limit, found) is not Verdict.PASSED:
            rounds = measure_latency(run, contenders, mode, fresh=True).timings[""]
    return Timed(rounds, on_device)


def _measured_how(label: str, times: Timed, accuracy: Accuracy | None, on: Gpu) -> Iterator[str]:
    if times.with_copies:
        yield (
            f"{label} was timed by convkit build on {on.name}, by itself, in {len(times.with_copies)} rounds: "
            f"{WITH_COPIES}; and once more {ON_DEVICE}. The other models were timed where the model was converted."
        )
    if accuracy is not None:
        yield f"{label}'s accuracy was judged anew by convkit build on {on.name}, on {accuracy.samples} samples."


def _batch(plan: BuildPlan) -> int:
    first = plan.interface.inputs[0].dims[:1]
    return first[0] if first and isinstance(first[0], int) else 1


def _require_gates(report: Report, found: Found, engine: Engine) -> None:
    """Hold the engine against the gates that were asked for when it was prepared.

    Raises:
        CheckError: one was missed, or could not be judged for sure; its document names the engine that was built.
    """
    try:
        refuse_missed(report.gates, found)
    except CheckError as error:
        error.document = failed_report(report, error, candidate=str(engine.files.file()))
        raise


def failed_report(report: Report, error: ConvkitError, *, candidate: str | None) -> Report:
    """Return the report of a build that failed; `candidate` is the engine that was built, where one was."""
    return msgspec.structs.replace(
        report,
        status=Status.FAILED,
        exit_code=int(error.exit_status),
        candidate=candidate,
        report=None,
        error=Failure(code=error.code, stage=error.stage, message=error.message, hint=error.hint),
    )
