"""Building the engines that a conversion without a GPU has left pending, and those that no longer match their GPU.

building_work      what there is to do                building_engine    one engine, checked and judged
refitting          other weights for one that stands  building_publish   beside those of other GPUs, by one rename

Needs the light core and TensorRT alone, as a Triton container has them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from convkit.building_engine import failed_report, finish_engine, report_of
from convkit.building_publish import publish_engine
from convkit.building_work import Task, find_again, find_models, find_tasks, require_buildable, require_place
from convkit.built_accuracy import Evaluation, find_evaluations
from convkit.errors import ConvkitError, InputError, InterruptedRunError, TerminatedRunError
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import Event, Observer, StepFinished, StepStarted, Warned, nobody
from convkit.pipeline.home import default_root
from convkit.pipeline.ownership import make_top_folder
from convkit.pipeline.runner import Runner
from convkit.pipeline.watch import limits_from
from convkit.refitting import find_refittable
from convkit.report.document import Report, Status
from convkit.serving.builder_lock import only_builder
from convkit.serving.holding import locked, told
from convkit.serving.layout import numbered
from convkit.serving.publish import CONFIG, MANIFEST, RECORDS
from convkit.serving.put import read_if_there
from convkit.serving.signature import SIGNATURE, Signer
from convkit.serving.surroundings import take_over
from convkit.spec.options import LimitOptions, MeasureMode
from convkit.targets.engine_records import find_standing
from convkit.targets.here import Here, machine_here


def build(
    path: Path,
    *,
    everything: bool = False,
    into: Path | None = None,
    observer: Observer = nobody,
    cache: Cache | None = None,
    sign: Path | None = None,
    limits: LimitOptions = LimitOptions(),  # noqa: B008 - frozen
    eval_data: Path | None = None,
    metric: str | None = None,
    measure: MeasureMode = MeasureMode.NONE,
) -> tuple[Report, ...]:
    """Build every engine that is pending in a repository, or in one model of it.

    Each is built on this machine's GPU, held against the recorded samples, and published under its version; the
    pending folder goes away with that. Models follow one another; one that fails ends the run, and those before it
    stay published. Of several builders at work in one repository, one builds each model and the others wait for it.

    Args:
        path: REPOSITORY or REPOSITORY/NAME.
        everything: see to live versions too: an engine of another TensorRT is replaced, one for this GPU is set beside
            those for others. What matches is left alone.
        into: make a ready repository here, and leave the first as it is: it may be read-only.
        observer: is told what happens.
        cache: where results are remembered; by default this user's.
        sign: a private key (PEM, Ed25519) with which the engines' manifests are signed; with `everything` also those
            of engines that stand already.
        limits: what the workers may take.
        eval_data: the evaluation data of an engine whose accuracy is to be judged, where they were too large to lie
            beside it: the same files as when it was prepared.
        metric: ``FILE.py:function`` or ``module:function``, the metric of the user's own that it is judged by.
        measure: how long each engine is timed, with the copies to the GPU and without them; `none`: only where a gate
            asks how long it takes.

    Returns the report of each engine, `unchanged` where it stood already; nothing where nothing is pending.

    Raises:
        UsageError: a limit is malformed; data or a metric are wanted and not named.
        InputError: there is no such repository, it cannot be written, or a file in it is damaged.
        MissingError: TensorRT or a GPU is missing here, or does not suit; nothing is changed.
        StepError: TensorRT could not build an engine.
        CheckError: an engine's outputs are not the source framework's, or it missed a gate; it is not published.
    """
    signer = Signer(sign) if sign is not None else None
    allowed = limits_from(limits)
    repository, models = find_models(path)
    target = into.absolute() if into is not None else repository
    tasks = find_tasks(models, target, everything=everything or into is not None)
    if into is not None:
        require_place(repository, into)
        with told(target):
            make_top_folder(target)
        for model in models:
            _take_over_what_is_no_engine(model, target, tasks)
    if not tasks:
        return ()
    here = machine_here()
    to_do = [task for task in tasks if task.standing(here) is None or task.pending_here]
    for task in to_do:
        require_buildable(task, here)
    found = find_evaluations([(task.inputs, task.plan) for task in to_do], eval_data, metric)
    evaluations = {task.inputs: evaluation for task, evaluation in zip(to_do, found, strict=True)}
    if to_do:
        require_place(repository, into)
    reports = []
    telling = _Telling(observer) if len(to_do) > 1 else None
    with Runner(cache or Cache(default_root()), telling or observer, limits=allowed) as run:
        for task in tasks:
            if task.inputs in evaluations or _lacks_signature(task, signer):
                if telling is not None:
                    telling.about = _name(task)
                with _named(task):
                    reports.append(_see_to(run, task, here, evaluations.get(task.inputs), signer, measure))
            else:
                reports.append(_unchanged(task))
    return tuple(reports)


def _see_to(
    run: Runner,
    task: Task,
    here: Here,
    evaluation: Evaluation | None,
    signer: Signer | None,
    measure: MeasureMode,
) -> Report:
    """Build and publish, unless another builder has done it meanwhile."""

    def tell() -> None:
        message = f"another convkit build is at work on {task.source.name}; this one waits for it"
        run.observe(Warned(code="build.waiting", message=message))

    with only_builder(task.target, task.source.name, tell):
        now = find_again(task)
        stands = now is not None and not now.pending_here and now.standing(here) is not None
        if now is not None and stands and not _lacks_signature(now, signer):
            return _unchanged(now)
        if now is None:
            require_buildable(task, here)  # says which file is gone
            now = task
        folder, engines = now.base()
        if folder is not None and find_standing(folder, engines, now.plan, here) is not None:
            return publish_engine(run, now, here, None, signer)
        made = finish_engine(run, now, here, evaluation, find_refittable(now, here), measure)
        return publish_engine(run, now, here, made, signer)


def _lacks_signature(task: Task, signer: Signer | None) -> bool:
    """Tell whether an engine that stands is to be put in place again for the sake of its manifest's signature."""
    if signer is None:
        return False
    manifest = read_if_there(task.place / RECORDS / MANIFEST)
    return manifest is not None and read_if_there(task.place / RECORDS / SIGNATURE) != signer.sign(manifest)


class _Telling:
    """Lets what happens say which of several models it happens to."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.about = ""

    def __call__(self, event: Event) -> None:
        match event:
            case StepStarted() | StepFinished():
                event = msgspec.structs.replace(event, title=f"{self.about}: {event.title}")
            case Warned():
                event = msgspec.structs.replace(event, message=f"{self.about}: {event.message}")
        self._observer(event)


def _name(task: Task) -> str:
    return f"{task.source.name} version {task.number}"


@contextlib.contextmanager
def _named(task: Task) -> Iterator[None]:
    """Let an error say which of the models it is about, in its message and in its document."""
    try:
        yield
    except (InterruptedRunError, TerminatedRunError):
        raise
    except ConvkitError as error:
        error.message = f"{_name(task)}: {error.message}"
        with contextlib.suppress(InputError):  # the model's report may be what cannot be read
            known = error.document if isinstance(error.document, Report) else report_of(task)
            here = msgspec.structs.replace(known, repository=str(task.target), model=None, version=task.number)
            error.document = failed_report(here, error, candidate=known.candidate)
        raise


def _unchanged(task: Task) -> Report:
    path = task.place / "convkit"
    report = report_of(msgspec.structs.replace(task, inputs=path))
    return msgspec.structs.replace(report, status=Status.UNCHANGED)


def _take_over_what_is_no_engine(model: Path, target: Path, tasks: list[Task]) -> None:
    """Copy the versions of a model for which there is nothing to build."""
    engines = {task.number for task in tasks if task.source == model}
    versions = [folder for folder in numbered(model) if int(folder.name) not in engines]
    if versions:
        with locked(target):
            take_over(model, target, sorted(versions), read_if_there(model / CONFIG))
