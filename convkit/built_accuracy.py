"""The accuracy of an engine that was prepared elsewhere and built here, by the metric and the rows that came with it.

Needs the light core and TensorRT alone, and what a metric of the user's own imports.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from convkit.errors import InputError, UsageError
from convkit.graph.model import Tensors
from convkit.measure.accuracy import Accuracy, evaluate_answers
from convkit.measure.gates import Gate
from convkit.measure.metrics import Metric
from convkit.pipeline.artifact import Artifact, digest_file, gather
from convkit.pipeline.runner import Runner
from convkit.report import document
from convkit.sources.user_code import UserFunction, find_function
from convkit.targets.build_plan import FILE_NAME, AccuracyGate, BuildPlan
from convkit.targets.cuda_driver import Gpu
from convkit.targets.trt_build import Engine
from convkit.targets.trt_run import answer_tensorrt


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is needed to judge an engine's accuracy is there; nothing has run."""

    data: Artifact
    metric: Metric
    answers: Tensors | None
    gate: AccuracyGate


def find_evaluations(
    plans: list[tuple[Path, BuildPlan]], eval_data: Path | None, metric: str | None
) -> list[Evaluation | None]:
    """Find what the engines' accuracy is judged on, before any of them is built; None where no drop was bounded.

    Args:
        plans: pending folders and their plans.
        eval_data: the evaluation data of plans that do not carry them.
        metric: the user's own metric of plans that have one.

    Raises:
        UsageError: data or a metric are wanted and not named, or named and not wanted.
        InputError: they are not those that the engine was prepared with.
    """
    gates = [plan.accuracy for _, plan in plans if plan.accuracy is not None]
    for given, option, wanted in (
        (eval_data, "--eval-data", any(not gate.carried for gate in gates)),
        (metric, "--metric", any(gate.code is not None for gate in gates)),
    ):
        if given is not None and gates != [] and not wanted:
            raise UsageError(
                f"{option} {given}: every pending engine has its own beside it",
                hint=f"leave {option} out",
                code="build.not-wanted",
            )
    return [_find(folder, plan.accuracy, eval_data, metric) for folder, plan in plans]


def _find(folder: Path, gate: AccuracyGate | None, eval_data: Path | None, metric: str | None) -> Evaluation | None:
    if gate is None:
        return None
    return Evaluation(
        data=gather(folder, gate.data) if gate.carried else _named_data(folder, gate, eval_data),
        metric=Metric(
            name=gate.metric,
            outputs=gate.outputs,
            labels=gate.labels,
            function=None if gate.code is None else _named_function(folder, gate, metric),
        ),
        answers=Tensors(files=gather(folder, gate.answers)) if gate.answers else None,
        gate=gate,
    )


def _named_data(folder: Path, gate: AccuracyGate, named: Path | None) -> Artifact:
    """Return the evaluation data that were too large to be carried.

    Raises:
        UsageError: nobody says where they are.
        InputError: they are not there, or others.
    """
    if named is None:
        raise UsageError(
            f"{folder} is to lose at most {gate.max_drop:g} of {gate.metric}, and its evaluation data were too large "
            "to lie beside it",
            hint="--eval-data PATH: the .npz file, or the folder of them, that convkit convert told of",
            code="build.no-data",
        )
    if not named.exists():
        raise InputError(f"--eval-data {named} does not exist", hint="check the path", code="data.missing")
    place, names = (named.parent, [named.name]) if named.is_file() else (named, [p.name for p in named.glob("*.npz")])
    names.sort()
    if [digest_file(place / name) for name in names] != list(gate.data.values()):
        raise InputError(
            f"--eval-data {named} are not the data on which {folder} was judged when it was prepared: "
            f"{FILE_NAME} has other digests",
            hint="give the very files; where several models wait for data, build one after another: "
            "convkit build REPOSITORY/NAME",
            code="build.other-data",
        )
    return gather(place.absolute(), names)


def _named_function(folder: Path, gate: AccuracyGate, named: str | None) -> UserFunction:
    """Return the user's own metric: code is never carried, and trusted by being named.

    Raises:
        UsageError: nobody names it.
        InputError: it is not there, or another.
    """
    if named is None:
        raise UsageError(
            f"{folder} is to lose at most {gate.max_drop:g} of {gate.metric}, which is code of yours and does not lie "
            "beside it",
            hint=f"--metric {gate.metric} (with the file's path here)",
            code="build.no-metric",
        )
    function = find_function(named, "--metric")
    if (function.name, function.files.digest) != (gate.metric, gate.code):
        raise InputError(
            f"--metric {named} is not the code of {gate.metric} by which {folder} was judged when it was prepared: "
            f"{FILE_NAME} has another digest",
            hint="give the very files, or run 'convkit convert' again; where several models wait for a metric, build "
            "one after another: convkit build REPOSITORY/NAME",
            code="build.other-metric",
        )
    return function


def judge_engine(run: Runner, engine: Engine, plan: BuildPlan, evaluation: Evaluation, on: Gpu) -> Accuracy:
    """Run a built engine over the evaluation data, and return how good it is.

    Raises:
        InputError: the data do not fit the model.
        StepError: the engine, or the user's metric, fails.
    """
    gate, metric = evaluation.gate, evaluation.metric
    answers = run(
        answer_tensorrt,
        engine.files,
        interface=plan.interface,
        data=evaluation.data,
        outputs=metric.outputs,
        at_most=gate.at_most,
        on=on,
    )
    return run(
        evaluate_answers,
        answers,
        interface=plan.interface,
        data=evaluation.data,
        metric=metric,
        references=evaluation.answers,
        at_most=gate.at_most,
    )


def described(
    before: document.Accuracy | None, gate: AccuracyGate | None, found: Accuracy | None, gates: tuple[Gate, ...]
) -> document.Accuracy | None:
    """Return the report's words on the engine's own accuracy, in place of its graph's."""
    if before is None or gate is None or found is None:
        return before
    return msgspec.structs.replace(
        before,
        samples=found.samples,
        final=found.value,
        drop=gate.source - found.value,
        verdict=next((each.verdict for each in gates if each.name == "max-drop"), None),
        emulated=False,
        tasks=(),  # those were the graph's
    )
