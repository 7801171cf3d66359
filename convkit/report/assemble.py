"""From what a run has found so far to its report: the whole one, or that of a failure."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from convkit import __version__
from convkit.errors import ConvkitError
from convkit.graph.census import Census
from convkit.graph.model import Model
from convkit.graph.simplify import Simplified
from convkit.graph.work import Work
from convkit.measure.accuracy import Accuracy, TaskAccuracy
from convkit.measure.compare import Verification
from convkit.measure.gates import Found, Gate, Verdict, judge
from convkit.measure.metrics import Metric
from convkit.pipeline.allowance import cores
from convkit.pipeline.cache import write_atomically
from convkit.pipeline.identity import cpu_name, library_version
from convkit.pipeline.ownership import make_top_folder
from convkit.pipeline.runner import Runner
from convkit.quantize.result import Quantized
from convkit.report import document
from convkit.report.document import Calibration, Caution, Check, Engine, Failure, Report, Role, Status, Subject
from convkit.report.engine import engine_inside
from convkit.report.gates import latency_interval, low_precision, speedup_interval
from convkit.report.speeds import Speeds
from convkit.report.verdict import worsened
from convkit.sources.exported import Exported
from convkit.spec.options import CheckOptions, GateOptions, MeasureMode, Precision, SpeedupOver
from convkit.targets.target import Compiled

LIBRARIES = (
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "onnxsim",
    "onnxslim",
    "tensorflow-cpu",
    "tensorrt",
    "tensorrt-rtx-cu13",
    "tf2onnx",
    "torch",
)

EMULATED = (
    "The engine's numbers are those of its ONNX graph in ONNX Runtime on this CPU (emulated); its latency is not "
    "measured here."
)


class Rival(NamedTuple):
    """What else the model was timed in, or why it was not."""

    label: str
    said: str
    """A sentence for the report."""
    is_timed: bool
    file_bytes: int | None = None


class Dossier:
    """All that one run has found so far; every stage adds its part."""

    def __init__(self, *, target: str, precision: Precision, measure: MeasureMode, command: Sequence[str]) -> None:
        self.target = target
        self.precision = precision
        self.measure = measure
        self.command = tuple(command)
        self.name: str | None = None
        self.repository: str | None = None
        self.source_name = ""
        self.source_kind = ""
        self.source_digest = ""
        self.source_bytes = 0
        self.source_file = ""
        self.exported: Exported | None = None
        self.simplified: Simplified | None = None
        self.quantized: Quantized | None = None
        self.final: tuple[Model, Census] | None = None
        self.compiled: Compiled | None = None
        self.checks: list[tuple[str, Verification]] = []
        self.speeds = Speeds()
        self.rivals: tuple[Rival, ...] = ()
        self.profiles: tuple[document.Profile, ...] = ()
        self.calibration_source = "random"
        self.work: Work | None = None
        self.emulated = False
        self.candidate: str | None = None
        self.metric: Metric | None = None
        self.accuracy: tuple[Accuracy, Accuracy | None] | None = None
        self.tasks: tuple[TaskAccuracy, ...] = ()
        self.trials: tuple[document.Trial, ...] = ()
        self.choice: tuple[str, ...] = ()
        """How good the source framework's model is, and the final one."""
        self.max_drop: float | None = None
        self.client: document.Client | None = None
        self.gate_options = GateOptions()
        self.check_options = CheckOptions()
        self.complete = False
        """Whether everything has been measured that the gates are to be held against."""

    @property
    def baseline_label(self) -> str:
        """Return what the FP32 graph is called in the report."""
        return "ONNX FP32"

    @property
    def final_label(self) -> str:
        """Return what the published model is called in the report."""
        names = {
            Precision.NONE: "FP32",
            Precision.FP16: "FP16",
            Precision.BF16: "BF16",
            Precision.INT8: "INT8",
            Precision.INT8_FP16: "INT8 + FP16",
            Precision.INT4: "INT4",
            Precision.FP8: "FP8",
            Precision.DYNAMIC: "INT8 dynamic",
        }
        title = {
            "onnxruntime": "ONNX",
            "openvino": "OpenVINO",
            "tensorrt": "TensorRT",
            "tensorrt-rtx": "TensorRT-RTX",
        }.get(self.target, self.target)
        return f"{title} {names[self.precision]}"

    def report(
        self,
        run: Runner,
        *,
        status: Status,
        version: int | None = None,
        report_path: str | None = None,
        error: ConvkitError | None = None,
    ) -> Report:
        """Write down everything that is known now."""
        last = self.checks[-1][1] if self.checks else None
        exported = self.exported
        report = Report(
            status=status,
            exit_code=int(error.exit_status) if error else 0,
            repository=self.repository,
            model=f"{self.repository}/{self.name}" if self.repository and self.name else None,
            name=self.name,
            version=version,
            engine=Engine(self.compiled.engine) if self.compiled else Engine.NONE,
            report=report_path,
            candidate=self.candidate,
            stages=staged(run),
            verification=None if last is None else document.Verification(passed=last.passed, outputs=last.outputs),
            gates=self.gates(),
            accuracy=self._accuracy(),
            trials=self.trials,
            choice=self.choice,
            warnings=tuple(Caution(code=warning.code, message=warning.message) for warning in run.warnings),
            error=None
            if error is None
            else Failure(code=error.code, stage=error.stage, message=error.message, hint=error.hint),
            created=datetime.now(UTC).replace(microsecond=0),
            convkit=__version__,
            target=self.target,
            precision=self.precision.value,
            source=None
            if exported is None
            else document.Source(
                name=self.source_name,
                digest=self.source_digest,
                kind=self.source_kind,
                framework=exported.framework,
                exporter=exported.exporter,
                parameters=exported.parameters,
            ),
            subjects=self._subjects(),
            comparisons=self.speeds.comparisons,
            self_check=self.speeds.self_check,
            conditions=self.speeds.measurement.conditions if self.speeds.measurement.timings else None,
            profiles=self.profiles,
            checks=self._checks(),
            simplification=None
            if self.simplified is None
            else document.Simplification(
                before=self.simplified.before.operators,
                after=self.simplified.after.operators,
                applied=self.simplified.applied,
            ),
            calibration=None
            if self.quantized is None or self.quantized.samples == 0
            else Calibration(
                method=self.quantized.method, samples=self.quantized.samples, source=self.calibration_source
            ),
            inside=engine_inside(self.compiled.layers, self.compiled.placed) if self.compiled else None,
            machine=machine(),
            libraries={name: library_version(name) for name in LIBRARIES if library_version(name) != "absent"},
            measured_how=self._measured_how(),
            rerun=shlex.join(self.command),
            client=self.client,
        )
        return msgspec.structs.replace(report, worse=worsened(report))

    def found(self) -> Found:
        """Return what is known of the final model that gates are held against."""
        final = next((subject for subject in self._subjects() if subject.role is Role.FINAL), None)
        over = {SpeedupOver.BASELINE: self.baseline_label, SpeedupOver.SOURCE: self._framework}[
            self.gate_options.speedup_over
        ]
        speedup = next((comparison for comparison in self.speeds.comparisons if comparison.before == over), None)
        checks = [check for subject, check in self.checks if subject.startswith(self.final_label)]
        return Found(
            size_bytes=final.file_bytes if final and not self._deferred else None,
            latency_ms=latency_interval(final.latency) if final and final.latency else None,
            speedup=speedup_interval(speedup) if speedup else None,
            low_precision=low_precision(final, self.precision.bits) if final else None,
            drop=self._drop,
            outputs=checks[-1].outputs if checks else None,
        )

    def gates(self) -> tuple[Gate, ...]:
        """Judge the gates that were asked for; before everything is measured, those whose figures are known."""
        if (self.gate_options, self.check_options, self.max_drop) == (GateOptions(), CheckOptions(), None):
            return ()
        unknown = Verdict.DEFERRED if self._deferred else Verdict.INCONCLUSIVE if self.complete else None
        return judge(self.gate_options, self.check_options, self.found(), unknown=unknown, max_drop=self.max_drop)

    @property
    def _drop(self) -> float | None:
        source, final = self.accuracy or (None, None)
        return source.value - final.value if source is not None and final is not None else None

    def _accuracy(self) -> document.Accuracy | None:
        if self.accuracy is None or self.metric is None:
            return None
        source, final = self.accuracy
        return document.Accuracy(
            metric=self.metric.name,
            samples=source.samples,
            source=source.value,
            final=final.value if final is not None else None,
            drop=self._drop,
            max_drop=self.max_drop,
            verdict=next((gate.verdict for gate in self.gates() if gate.name == "max-drop"), None),
            output=None if self.metric.function is not None else self.metric.outputs[0],
            emulated=self.emulated,
            tasks=self.tasks,
        )

    @property
    def _deferred(self) -> bool:
        return self.compiled is not None and self.compiled.engine == "deferred"

    @property
    def _framework(self) -> str:
        return self.exported.framework if self.exported else ""

    def _subjects(self) -> tuple[Subject, ...]:
        subjects = []
        if self.exported is not None:
            subjects.append(
                self._subject(
                    self.exported.framework,
                    Role.SOURCE,
                    file_bytes=self.source_bytes,
                    parameters=self.exported.parameters,
                )
            )
        subjects += [
            self._subject(rival.label, Role.OTHER, file_bytes=rival.file_bytes)
            for rival in self.rivals
            if rival.is_timed
        ]
        if self.simplified is not None and self.final is not None and self.baseline_label != self.final_label:
            subjects.append(
                self._subject(
                    self.baseline_label,
                    Role.BASELINE,
                    file_bytes=self.simplified.model.files.bytes,
                    census=self.simplified.after,
                )
            )
        if self.final is not None:
            model, census = self.final
            served = self.compiled.served_bytes if self.compiled else None
            subjects.append(
                self._subject(
                    self.final_label,
                    Role.FINAL,
                    file_bytes=model.files.bytes if served is None else served,
                    census=census,
                    emulated=self.emulated,
                    work=self.work,
                )
            )
        return tuple(subjects)

    def _subject(
        self,
        label: str,
        role: Role,
        *,
        file_bytes: int | None,
        parameters: int | None = None,
        census: Census | None = None,
        emulated: bool = False,
        work: Work | None = None,
    ) -> Subject:
        return Subject(
            label=label,
            role=role,
            file_bytes=file_bytes,
            parameters=census.parameters if census else parameters,
            nodes=census.nodes if census else None,
            operators=census.operators if census else None,
            initializer_bytes=census.weight_bytes if census else None,
            latency=self.speeds.latency(label),
            latency_alone=self.speeds.latency_alone(label),
            throughput_per_s=self.speeds.throughput(label),
            emulated=emulated,
            macs=work.macs if work else None,
            macs_seen_by=work.seen_by if work else None,
        )

    @property
    def batch(self) -> int:
        """Return how many samples one call takes, where the first dimension is fixed; else 1."""
        if self.exported is None:
            return 1
        first = self.exported.model.interface.inputs[0].dims[:1]
        return first[0] if first and isinstance(first[0], int) else 1

    def _checks(self) -> tuple[Check, ...]:
        return tuple(checked(subject, self._framework, verification) for subject, verification in self.checks)

    def _measured_how(self) -> tuple[str, ...]:
        emulated = (EMULATED,) if self.emulated else ()
        others = (rival.said for rival in self.rivals)
        return (*self.speeds.how(), *others, *emulated, *(self.compiled.facts if self.compiled else ()))


def staged(run: Runner) -> tuple[document.Stage, ...]:
    """Return what the run's steps cost, as the report shows it."""
    return tuple(
        document.Stage(
            name=stage.name,
            title=stage.title,
            seconds=stage.seconds,
            peak_bytes=stage.peak_bytes,
            cached=stage.cached,
        )
        for stage in run.stages
    )


def checked(subject: str, framework: str, verification: Verification) -> Check:
    """Return a verification as the report shows it."""
    return Check(
        subject=subject,
        against=framework,
        tolerance=verification.tolerance,
        cases=verification.cases,
        passed=verification.passed,
        outputs=verification.outputs,
    )


def machine() -> document.Machine:
    """Describe the machine that this process runs on."""
    return document.Machine(
        cpu=cpu_name(),
        cores=cores(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        os=f"{platform.system()} {platform.release()}",
        python=".".join(map(str, sys.version_info[:3])),
    )


def write_reports(folder: Path, rendered: dict[str, bytes]) -> None:
    """Write a report's files into a folder, which is made where it is missing; they are owned as it is."""
    make_top_folder(folder)
    for name, data in rendered.items():
        write_atomically(folder / name, data)
