"""Building the engines that a conversion without a GPU has left pending, and publishing them.

Needs the light core and TensorRT alone, as a Triton container has them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from convkit import __version__
from convkit.built_accuracy import Evaluation, described, find_evaluations, judge_engine
from convkit.errors import CheckError, InputError, MissingError
from convkit.graph.model import Model, Tensors
from convkit.measure.accuracy import Accuracy
from convkit.measure.compare import hold_against, refuse_difference
from convkit.measure.gates import Found, Verdict, at_most, judge
from convkit.measure.latency import PLANS, measure_latency
from convkit.pipeline.artifact import gather
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import Observer, nobody
from convkit.pipeline.home import default_root
from convkit.pipeline.identity import library_versions
from convkit.pipeline.runner import Contender, Runner
from convkit.pipeline.step import ENVIRONMENTS
from convkit.pipeline.stopwatch import Timing
from convkit.pipeline.watch import limits_from
from convkit.report import statistics
from convkit.report.assemble import EMULATED, checked, staged
from convkit.report.document import Engine as EngineState
from convkit.report.document import Failure, Report, Role, Status, read_report
from convkit.report.files import report_files
from convkit.report.gates import latency_interval, low_precision, refuse_missed
from convkit.report.verdict import worsened
from convkit.serving.holding import locked
from convkit.serving.manifest import results, write_manifest
from convkit.serving.publish import (
    CONFIG,
    MANIFEST,
    MODEL_FOLDER,
    PENDING,
    RECORDS,
    Publication,
    discard_pending,
    find_unchanged,
    publish,
)
from convkit.serving.signature import SIGNATURE, Signer
from convkit.spec.options import LimitOptions, MeasureMode
from convkit.targets.build_plan import EVALUATION, FILE_NAME, BuildPlan, read_build_plan, verify_files
from convkit.targets.cuda_driver import Gpu, gpu
from convkit.targets.trt_api import Flavour, installed, no_gpu, not_installed
from convkit.targets.trt_build import ENGINE_FILES, Engine, build_tensorrt
from convkit.targets.trt_run import run_tensorrt, time_tensorrt


def build(
    path: Path,
    *,
    observer: Observer = nobody,
    cache: Cache | None = None,
    sign: Path | None = None,
    limits: LimitOptions = LimitOptions(),  # noqa: B008 - frozen
    eval_data: Path | None = None,
    metric: str | None = None,
) -> tuple[Report, ...]:
    """Build every engine that is pending in a repository, or in one model of it.

    Each is built on this machine's GPU, held against the recorded samples, and published under its version; the
    pending folder goes away with that. Models follow one another; one that fails ends the run, and those before it
    stay published.

    Args:
        path: REPOSITORY or REPOSITORY/NAME.
        observer: is told what happens.
        cache: where results are remembered; by default this user's.
        sign: a private key (PEM, Ed25519) with which the engines' manifests are signed.
        limits: what the workers may take.
        eval_data: the evaluation data of an engine whose accuracy is to be judged, where they were too large to lie
            beside it: the same files as when it was prepared.
        metric: ``FILE.py:function`` or ``module:function``, the metric of the user's own that it is judged by.

    Returns the report of each engine; nothing where nothing is pending.

    Raises:
        UsageError: a limit is malformed; data or a metric are wanted and not named.
        InputError: there is no such repository, or a pending folder is damaged.
        MissingError: TensorRT or a GPU is missing here; nothing is changed.
        StepError: TensorRT could not build an engine.
        CheckError: an engine's outputs are not the source framework's, or it missed a gate; it is not published.
    """
    signer = Signer(sign) if sign is not None else None
    allowed = limits_from(limits)
    pending = list(_pending(path))
    if not pending:
        return ()
    plans = [(folder, read_build_plan(folder / FILE_NAME)) for folder in pending]
    for folder, plan in plans:
        verify_files(plan, folder)
        _require(plan)
    evaluations = find_evaluations(plans, eval_data, metric)
    reports = []
    with Runner(cache or Cache(default_root()), observer, limits=allowed) as run:
        for (folder, plan), evaluation in zip(plans, evaluations, strict=True):
            reports.append(_build_one(run, folder, plan, evaluation, signer))
    return tuple(reports)


def _pending(path: Path) -> Iterator[Path]:
    """Yield the folders ``NAME/pending/<version>``, oldest version first."""
    if not path.is_dir():
        raise InputError(
            f"{path} is no folder", hint="name a model repository, or one model in it", code="repository.missing"
        )
    is_model = (path / PENDING).is_dir() or (path / CONFIG).is_file()
    for model in [path] if is_model else sorted(child for child in path.iterdir() if child.is_dir()):
        versions = [p for p in (model / PENDING).glob("*") if p.name.isdigit() and p.is_dir()]
        yield from sorted(versions, key=lambda version: int(version.name))


def _require(plan: BuildPlan) -> None:
    if plan.target is not Flavour.TENSORRT:
        raise InputError(
            f"build.json asks for the target {plan.target.value}, whose engines are built when they are converted",
            hint="run 'convkit convert' again",
            code="build.plan",
        )
    if not installed(Flavour.TENSORRT):
        raise not_installed(Flavour.TENSORRT, "it is not installed, so the pending engines cannot be built")
    if gpu() is None:
        raise no_gpu("TensorRT builds on a GPU only")


def _build_one(
    run: Runner, folder: Path, plan: BuildPlan, evaluation: Evaluation | None, signer: Signer | None
) -> Report:
    on = gpu()
    if on is None:
        raise MissingError("the GPU is gone", hint="run the command again", code="missing.gpu")
    run.stages.clear()
    model = Model(files=gather(folder, plan.model), interface=plan.interface)
    samples, references = (_tensors(folder, names) for names in (plan.samples, plan.references))
    engine = run(build_tensorrt, model, plan.profiles, plan.options, on=on)
    answers = run(run_tensorrt, engine.files, samples)
    rounds = _time(run, engine, samples, plan, on)
    verification = hold_against(list(references), list(answers), plan.precision, plan.tolerance)
    refuse_difference(
        verification,
        "the built engine",
        "the source framework",
        hint="convert in a higher precision, or allow more with --max-error or --min-sqnr",
    )
    accuracy = judge_engine(run, engine, plan, evaluation, on) if evaluation is not None else None
    report = read_report((folder / "report.json").read_bytes(), where=str(folder / "report.json"))
    final = report.subject(Role.FINAL)
    label = final.label if final else "TensorRT"
    timed = statistics.latency(rounds, batch=_batch(plan)) if rounds else None
    found = Found(
        size_bytes=engine.files.bytes,
        latency_ms=latency_interval(timed) if timed else None,
        low_precision=low_precision(final, plan.precision.bits) if final else None,
        drop=plan.accuracy.source - accuracy.value if plan.accuracy and accuracy else None,
        outputs=verification.outputs,
    )
    max_drop = plan.accuracy.max_drop if plan.accuracy else None
    gates = judge(plan.gates, plan.check, found, unknown=Verdict.INCONCLUSIVE, max_drop=max_drop)
    report = msgspec.structs.replace(
        report,
        status=Status.OK,
        engine=EngineState.BUILT,
        created=datetime.now(UTC).replace(microsecond=0),
        stages=(*report.stages, *staged(run)),
        checks=(*report.checks, checked(f"{label}, built on {on.name}", "the source framework", verification)),
        gates=gates,
        accuracy=described(report.accuracy, plan.accuracy, accuracy, gates),
        subjects=tuple(
            msgspec.structs.replace(
                s,
                file_bytes=engine.files.bytes,
                emulated=False,
                latency=timed,
                throughput_per_s=statistics.throughput(rounds, batch=_batch(plan)) if rounds else None,
            )
            if s.role is Role.FINAL
            else s
            for s in report.subjects
        ),
        measured_how=(
            *(how for how in report.measured_how if how != EMULATED),
            *_measured_how(label, rounds, accuracy, on),
        ),
    )
    _require_gates(report, found, engine)
    return _publish(run, folder, engine, msgspec.structs.replace(report, worse=worsened(report)), signer)


def _time(run: Runner, engine: Engine, samples: Tensors, plan: BuildPlan, on: Gpu) -> list[Timing]:
    """Time the engine where a gate asks how long it takes."""
    limit = plan.gates.max_latency
    if limit is None:
        return []
    seconds = PLANS[MeasureMode.QUICK].seconds
    contenders = {"": Contender(time_tensorrt, engine.files, inputs=samples, seconds=seconds, on=on)}
    rounds = measure_latency(run, contenders, MeasureMode.QUICK)[""]
    found = latency_interval(statistics.latency(rounds, batch=1))
    if run.stages[-1].cached and at_most(limit, found) is not Verdict.PASSED:
        rounds = measure_latency(run, contenders, MeasureMode.QUICK, fresh=True)[""]
    return rounds


def _measured_how(label: str, rounds: list[Timing], accuracy: Accuracy | None, on: Gpu) -> Iterator[str]:
    if rounds:
        yield (
            f"{label} was timed by convkit build on {on.name}, alone, in {len(rounds)} rounds, copies to the GPU and "
            "back included; the other models were timed where the model was converted."
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
        failure = Failure(code=error.code, stage=error.stage, message=error.message, hint=error.hint)
        error.document = msgspec.structs.replace(
            report,
            status=Status.FAILED,
            exit_code=int(error.exit_status),
            candidate=str(engine.files.file()),
            report=None,
            error=failure,
        )
        raise


def _tensors(folder: Path, names: dict[str, str]) -> Tensors:
    return Tensors(files=gather(folder, names))


def _publish(run: Runner, folder: Path, engine: Engine, report: Report, signer: Signer | None) -> Report:
    """Publish the engine with what it was built from, and take the pending folder away.

    Raises:
        InputError: the repository cannot be written.
        MissingError: its disk is full, or fails.
    """
    model = folder.parent.parent
    repository, number = model.parent, int(folder.name)
    with run.account("publish", "Publish"), locked(repository):
        publication = _publication(folder, engine)
        place = model / str(number) / RECORDS / "report.json"
        report = msgspec.structs.replace(report, version=number, report=str(place))
        if find_unchanged(repository, publication, number) is None:
            records = {**report_files(report), **({SIGNATURE: signer.sign(publication.manifest)} if signer else {})}
            rendered = {f"{RECORDS}/{name}": data for name, data in records.items()}
            publish(
                repository,
                msgspec.structs.replace(publication, files={**publication.files, **rendered}),
                version=number,
                replace=True,  # the number was given when it was prepared
                same_interface=True,
            )
        discard_pending(folder)
    return report


def _publication(folder: Path, engine: Engine) -> Publication:
    """Make a version of an engine and of the pending folder that it was built from."""
    manifest = (folder / MANIFEST).read_bytes()
    names = [name for name in results(manifest) if not name.startswith((f"{MODEL_FOLDER}/", f"{EVALUATION}/"))]
    beside = {
        path.relative_to(folder / MODEL_FOLDER).as_posix(): path.read_bytes()
        for path in (folder / MODEL_FOLDER).rglob("*")
        if path.is_file()
    }
    config = beside.pop(CONFIG)
    files: dict[str, Path | bytes] = {
        ENGINE_FILES[engine.flavour]: engine.files.file(),
        **{f"{RECORDS}/{name}": folder / name for name in names},
    }
    return Publication(
        name=folder.parent.parent.name,
        files=files,
        manifest=write_manifest(
            files=files,
            beside={**beside, CONFIG: config},
            options={"engine": msgspec.to_builtins(engine.options), "gpu": msgspec.to_builtins(engine.gpu)},
            sources=results(manifest),
            versions={"convkit": __version__, **library_versions(ENVIRONMENTS["tensorrt"])},
        ),
        config=config,
        beside=beside,
    )
