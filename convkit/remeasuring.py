"""Measuring again what a report says, on what was published, and whether the old figures hold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from convkit import __version__
from convkit.conversion import take_final_census
from convkit.custom_ops import find_extensions, refuse_unread
from convkit.errors import CheckError, InputError
from convkit.graph.model import DATA_FILE, MODEL_FILE, Model, Tensors, load_model
from convkit.graph.present import interface_of
from convkit.measure.compare import Verification, compare_outputs, hold_against
from convkit.measure.latency import PLANS, measure_latency
from convkit.measure.waiting import doubt
from convkit.pipeline.artifact import Artifact, gather, use_index
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import Observer, nobody
from convkit.pipeline.runner import Contender, Runner
from convkit.pipeline.shared import open_cache
from convkit.pipeline.step import step
from convkit.pipeline.stopwatch import Timing
from convkit.pipeline.watch import limits_from
from convkit.report.assemble import checked, machine
from convkit.report.changes import Change, ModelChanges, compare_reports
from convkit.report.changes_sheet import shown
from convkit.report.document import Failure, Report, Role, Status, Subject, failed
from convkit.report.speeds import Speeds
from convkit.reporting import find_reports
from convkit.served import read_expected
from convkit.serving.check_files import Version
from convkit.serving.publish import MANIFEST, RECORDS
from convkit.serving.records import Expected
from convkit.serving.statement import read_statement
from convkit.spec.options import LimitOptions, MeasureMode
from convkit.spec.tensor import Interface
from convkit.targets.onnxruntime import time_onnxruntime
from convkit.targets.openvino_model import (
    GRAPH_FILE,
    WEIGHTS_FILE,
    OpenVINOModel,
    OpenVINOOptions,
    run_openvino,
    time_openvino,
)

WIDE = 0.1
"""An interval that reaches further than this share about its middle says too little, waiting for others included."""
_AGAIN = "final, again"


class Remeasured(msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="convkit.remeasured/1"):
    """What `convkit report --remeasure --json` prints."""

    status: Status
    exit_code: int
    models: tuple[ModelChanges, ...]
    """`before` is what the report says, `after` what was measured now."""
    inconclusive: tuple[str, ...] = ()
    """Models whose latency was measured now with an interval so wide that the old one lies in it by chance."""
    notes: tuple[str, ...] = ()
    """What was not measured again, and why, a sentence each."""
    error: Failure | None = None


def remeasure(
    path: Path,
    *,
    mode: MeasureMode = MeasureMode.QUICK,
    custom_ops: Sequence[str] = (),
    limits: LimitOptions | None = None,
    observer: Observer = nobody,
    cache: Cache | None = None,
) -> Remeasured:
    """Measure again what reports say, as far as the published version allows, and hold the one against the other.

    Size, operators, the numbers on recorded samples, and latency. The rules are those by which two releases are
    compared: a latency must differ by 3 %, with intervals that do not overlap, on the same machine.

    Args:
        path: what `convkit.reporting.report` takes.
        mode: how long to measure latency.
        custom_ops: libraries of the user's operators, which ONNX Runtime loads; see docs/custom_ops.md.
        limits: what the workers may take.
        observer: is told what happens.
        cache: where steps are remembered. Measurements are made anew.

    Returns:
        The figures, with exit status 5 where one of them got worse.

    Raises:
        InputError: there is no report, or what it describes is not there.
        UsageError: a file of `custom_ops` is no library.
    """
    extensions = find_extensions(custom_ops)
    refuse_unread(extensions, {"onnx"})
    cache = cache or open_cache(observer)
    use_index(None)
    models, notes, inconclusive = [], [], []
    with Runner(cache, observer, limits=limits_from(limits or LimitOptions())) as run:
        run.extend(extensions)
        for file, before in find_reports(path):
            again = _Again(run, file, before, mode)
            after = again.report()
            models.append(compare_reports(before.name or file.parent.name, before, after))
            notes += again.notes
            inconclusive += [models[-1].name] if _is_unsure(models[-1], after) else []
    found = Remeasured(
        status=Status.OK,
        exit_code=0,
        models=tuple(models),
        inconclusive=tuple(inconclusive),
        notes=tuple(dict.fromkeys(notes)),
    )
    worse = [f"{model.name}: {figure.name}: {shown(figure)}" for model in models for figure in model.worse]
    unsure = [f"{name}: latency: this machine is not quiet enough to tell" for name in inconclusive]
    if not worse and not unsure:
        return found
    error = CheckError(
        "what the report says does not hold, or not surely: " + "; ".join((*worse, *unsure)),
        hint="see what else this machine does, and measure longer with --measure full; else convert again",
        code="report.does-not-hold",
    )
    head = failed(error)
    return msgspec.structs.replace(found, status=head.status, exit_code=head.exit_code, error=head.error)


def _is_unsure(model: ModelChanges, after: Report) -> bool:
    """Tell whether a latency seems to hold only because it was measured so badly."""
    final = after.subject(Role.FINAL)
    latency = final.latency if final is not None else None
    same = any(figure.name == "latency" and figure.change is Change.SAME for figure in model.figures)
    if not same or latency is None:
        return False
    low = latency.low_ms * (1 - doubt(latency.waited))
    return math.sqrt(latency.high_ms / low) - 1 > WIDE


class _Again:
    """One report, measured again."""

    def __init__(self, run: Runner, file: Path, report: Report, mode: MeasureMode) -> None:
        self.notes: list[str] = []
        self._run, self._before, self._mode = run, report, mode
        self._version = _published(file, report)
        self._expected = read_expected(self._version)
        self._final = report.subject(Role.FINAL)

    def report(self) -> Report:
        """Return the report with the figures of now in place of the old ones; what cannot be measured is left out."""
        before, final = self._before, self._final
        if final is None:
            raise InputError(
                f"{before.report or self._version.folder}: the report is one of a run that ended before there was a "
                "final model",
                hint="convert again",
                code="report.no-model",
            )
        name = before.name or self._version.folder.name
        others = [subject.label for subject in before.subjects if subject is not final and subject.latency]
        if others and final.latency:
            self.notes.append(
                f"{name}: what did not come along with what was published was not measured again: the latency of "
                f"{'; '.join(others)}; nor how many times as fast the model is. The command in the report does that."
            )
        subject, checks = self._measured(final)
        return msgspec.structs.replace(
            before,
            created=datetime.now(UTC).replace(microsecond=0),
            convkit=__version__,
            machine=machine(),
            subjects=tuple(subject if each is final else each for each in before.subjects),
            checks=checks,
        )

    def _measured(self, final: Subject) -> tuple[Subject, Any]:
        folder, before = self._version.folder, self._before
        files = [name for name in (MODEL_FILE, DATA_FILE) if (folder / name).is_file()]
        if (folder / GRAPH_FILE).is_file():
            files = [GRAPH_FILE, WEIGHTS_FILE]
        bare = msgspec.structs.replace(final, latency=None, throughput_per_s=None, nodes=None, operators=None)
        if not files:
            self.notes.append(
                f"{before.name}: the engine is not run by this command; its records are held by convkit check."
            )
            return msgspec.structs.replace(bare, file_bytes=None), ()
        artifact = gather(folder, files)
        bare = msgspec.structs.replace(bare, file_bytes=artifact.bytes)
        subject, verification = (
            self._of_openvino(artifact, bare) if GRAPH_FILE in files else self._of_onnx(artifact, bare)
        )
        if verification is None:
            return subject, ()
        return subject, (checked(final.label, before.checks[-1].against if before.checks else "", verification),)

    def _of_onnx(self, files: Artifact, subject: Subject) -> tuple[Subject, Verification | None]:
        model = Model(files=files, interface=self._run(published_interface, files))
        census = self._run(take_final_census, model)
        subject = msgspec.structs.replace(subject, nodes=census.nodes, operators=census.operators)
        if (given := self._given()) is None:
            return subject, None
        expected, samples, references = given
        seconds = self._seconds
        subject = self._timed(
            subject,
            Contender(time_onnxruntime, model, inputs=samples, seconds=seconds),
            Contender(time_onnxruntime, model, inputs=samples, seconds=seconds, session=1),
        )
        verification = self._run(
            compare_outputs,
            model,
            samples=samples,
            references=references,
            precision=expected.precision,
            options=expected.check,
        )
        return subject, verification

    def _of_openvino(self, files: Artifact, subject: Subject) -> tuple[Subject, Verification | None]:
        name = self._before.name
        self.notes.append(f"{name}: the operators of the report are the ONNX graph's; OpenVINO's model has others.")
        if find_spec("openvino") is None:
            self.notes.append(f"{name}: OpenVINO is not installed here: nothing but the size was measured again.")
            return subject, None
        if (given := self._given()) is None:
            return subject, None
        expected, samples, references = given
        interface = self._run(interface_of_answers, references)
        model = OpenVINOModel(files=files, interface=interface, version="", layers=0)
        options = self._openvino_options()
        contender = Contender(time_openvino, model, inputs=samples, seconds=self._seconds, options=options)
        subject = self._timed(subject, contender, None)
        answers = self._run(run_openvino, model, samples=samples, options=options)
        return subject, hold_against(list(references), list(answers), expected.precision, expected.check)

    def _timed(self, subject: Subject, contender: Contender[Timing], twin: Contender[Timing] | None) -> Subject:
        was = self._final.latency if self._final is not None else None
        if was is None or self._mode is MeasureMode.NONE:
            return subject
        again = (_AGAIN, twin) if twin is not None else None
        contenders = {_AGAIN: contender}
        measurement = measure_latency(self._run, contenders, self._mode, again=again, fresh=True)
        speeds = Speeds(measurement, final=_AGAIN, batch=was.batch, mode=self._mode)
        return msgspec.structs.replace(
            subject, latency=speeds.latency(_AGAIN), throughput_per_s=speeds.throughput(_AGAIN)
        )

    def _openvino_options(self) -> OpenVINOOptions:
        """Return the options that the model was published with, as its manifest tells them."""
        try:
            statement = read_statement((self._version.records / MANIFEST).read_bytes())
            return msgspec.convert(statement.options.get("openvino") or {}, type=OpenVINOOptions)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self._version.records / MANIFEST} cannot be read: {error}",
                hint="convkit check says what is damaged; publish the version again",
                code="report.unreadable",
            ) from error

    @property
    def _seconds(self) -> float:
        return PLANS[self._mode].seconds if self._mode is not MeasureMode.NONE else 0.0

    def _given(self) -> tuple[Expected, Tensors, Tensors] | None:
        """Return the recorded samples and references; None where the version has none."""
        expected, records = self._expected, self._version.records
        if expected is None:
            self.notes.append(
                f"{self._before.name}: no samples came along: neither numbers nor latency were measured again."
            )
            return None
        samples, references = (
            Tensors(files=gather(records, names)) for names in (expected.samples, expected.references)
        )
        return expected, samples, references


def _published(file: Path, report: Report) -> Version:
    """Return the version that a report describes: the one it lies in, else the one that it names.

    Raises:
        InputError: that is not there.
    """
    for folder in _places(file, report):
        version = Version(number=report.version or 0, folder=folder, pending=not (folder / RECORDS).is_dir())
        if (version.records / MANIFEST).is_file():
            return version
    raise InputError(
        f"{file}: what it describes was not published, or is not where it says",
        hint="name a published version, or a model; the command that measures everything again is in the report",
        code="report.not-published",
    )


def _places(file: Path, report: Report) -> Iterator[Path]:
    folder = file.absolute().parent
    yield folder.parent if folder.name == RECORDS else folder
    if report.model is not None and report.version is not None:
        yield Path(report.model) / str(report.version)


@step(version=1, stage="source", title="Open what was published", needs="onnx")
def published_interface(files: Artifact) -> Interface:
    """Read the interface of a graph that was published."""
    unknown = Model(files=files, interface=Interface(inputs=(), outputs=()))
    return interface_of(load_model(unknown, weights=False))


@step(version=1, stage="source", title="Read the recorded answers", needs="onnx")
def interface_of_answers(references: Tensors) -> Interface:
    """Return the outputs that were recorded, which is all of an interface that running a model needs."""
    from convkit.spec.tensor import DType, TensorSpec

    names = next(iter(references))
    return Interface(inputs=(), outputs=tuple(TensorSpec(name=name, dtype=DType.FLOAT32, dims=()) for name in names))
