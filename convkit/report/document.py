"""The report as one typed document: what `--json` prints (`Result`), and the report.json around it (`Report`).

Numbers carry their unit in their names; 1 KiB is 1024 bytes. JSON has neither NaN nor infinity: a figure that is
not finite is null.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated

import msgspec

from convkit.errors import ConvkitError, InputError
from convkit.graph.operator_times import OperatorTimes
from convkit.measure.accuracy import TaskAccuracy
from convkit.measure.compare import OutputDifference
from convkit.measure.conditions import Conditions
from convkit.measure.gates import Gate, Verdict
from convkit.report.engine import EngineInside
from convkit.report.latency import Comparison, Latency
from convkit.spec.damage import NOT_JSON


class Status(Enum):
    """How the command ended."""

    OK = "ok"
    UNCHANGED = "unchanged"
    """The result is what was published before; nothing was published."""
    FAILED = "failed"


class Engine(Enum):
    """What became of the target's engine."""

    NONE = "none"
    """The target loads the model as it is."""
    BUILT = "built"
    DEFERRED = "deferred"
    """`convkit build` makes it where the hardware is."""


class Role(Enum):
    """Where a measured model stands in the comparison."""

    SOURCE = "source"
    """The user's model in its own framework."""
    OTHER = "other"
    """What else the source or its graph could run in: a figure to compare with."""
    BASELINE = "baseline"
    """The same model as ONNX, in the source's precision."""
    FINAL = "final"
    """What the repository serves."""


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """What one step cost: when it ran, where its result was remembered (`cached`)."""

    name: str
    """source, simplify, precision, calibrate, quantize, compile, check, measure or publish."""
    seconds: float
    peak_bytes: int
    """The largest resident set of the step's process meanwhile."""
    cached: bool
    title: str = ""


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """The last model that was held against the source framework's outputs: the final one, unless an earlier failed."""

    passed: bool
    outputs: tuple[OutputDifference, ...]


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """How good the model is at its task, before and after; a share between 0 and 1 for top1 and agreement."""

    metric: str
    """``top1``, ``agreement`` with the source framework's answers, or the user's own; the larger the better."""
    samples: int
    source: float
    """The source framework's model."""
    final: float | None = None
    """The final model; None where the command ended before it was made."""
    drop: float | None = None
    """`source` less `final`: what was lost."""
    max_drop: float | None = None
    """The most that may be lost; None where nothing was asked for."""
    verdict: Verdict | None = None
    """None where nothing was asked for, or nothing could be judged."""
    output: str | None = None
    """The output that names the classes; None for a metric of the user's own."""
    emulated: bool = False
    """The engine does not run here: `final` is that of its ONNX graph in ONNX Runtime."""
    tasks: tuple[TaskAccuracy, ...] = ()


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One model on the way to an accuracy budget, judged by the metric."""

    what: str
    """How it was quantized: calibration method, repair, how much precision was given back."""
    value: float
    """The metric."""
    drop: float
    """What was lost against the source framework's model."""
    sqnr_db: float | None = None
    """10 log10 of signal over noise of the outputs against the FP32 graph's, on calibration data; None: no noise."""
    latency_ms: float | None = None
    """The median of a moment; None where the runtime does not run here."""
    kept: int = 0
    """Nodes that were given their precision back."""
    passed: bool = False


class Caution(msgspec.Struct, frozen=True, kw_only=True):
    """A warning, with a stable code."""

    code: str
    message: str


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The error that ended the command."""

    code: str
    stage: str | None
    message: str
    hint: str


class Result(msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="convkit.result/1"):
    """What `--json` prints, for every exit status; its fields are the head of report.json."""

    status: Status
    exit_code: int
    repository: str | None = None
    model: str | None = None
    """REPOSITORY/NAME."""
    name: str | None = None
    version: int | None = None
    engine: Engine = Engine.NONE
    report: str | None = None
    """Path of report.json."""
    candidate: str | None = None
    """Path of a model that was made but missed its budget."""
    stages: tuple[Stage, ...] = ()
    verification: Verification | None = None
    """None where the command ended before anything was checked."""
    gates: tuple[Gate, ...] = ()
    accuracy: Accuracy | None = None
    """None where no evaluation data were given."""
    warnings: tuple[Caution, ...] = ()
    error: Failure | None = None


class Built(msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="convkit.builds/1"):
    """What `convkit build --json` prints: the result of every engine that was pending."""

    status: Status
    exit_code: int
    results: tuple[Result, ...]


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """The model that was converted."""

    name: str
    """The file's or folder's name, without its path."""
    digest: str
    """``sha256:`` and the hexadecimal digest."""
    kind: str
    """What it is, such as ``state dict with model.py`` or ``SavedModel``."""
    framework: str
    """Name and version, such as ``torch 2.13.0``."""
    exporter: str
    """What wrote the ONNX file, with the road taken."""
    parameters: int
    """Elements of all weights."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where everything was measured."""

    cpu: str
    cores: int
    """Processors that this process may use."""
    memory_bytes: int
    os: str
    python: str


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """One column of the before/after table. None stands for what cannot be told or was not measured."""

    label: str
    """Unique in the report, such as ``torch 2.13.0`` or ``ONNX INT8``."""
    role: Role
    file_bytes: int | None = None
    parameters: int | None = None
    nodes: int | None = None
    operators: dict[str, int] | None = None
    """ONNX operator types and their number."""
    initializer_bytes: int | None = None
    """Bytes of the weights in the graph."""
    latency: Latency | None = None
    latency_alone: Latency | None = None
    """Without the copies to the GPU and back; `measured_how` says how. None: not timed, or there are none."""
    throughput_per_s: float | None = None
    """Samples per second of one caller, call after call."""
    macs: dict[str, int] | None = None
    """Multiply-accumulates of one call by the precision they run in: ``int8``, ``fp16``, ``fp32`` and so on."""
    macs_seen_by: str | None = None
    """The runtime whose compiled graph was counted; None: counted from the graph, as it asks for it."""
    emulated: bool = False
    """The engine does not run on this machine; speed and outputs are those of its ONNX graph in ONNX Runtime."""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Where one subject spends its time."""

    label: str
    """That of the subject."""
    times: OperatorTimes


class Simplification(msgspec.Struct, frozen=True, kw_only=True):
    """The exported graph before and after it was simplified: operator types and their number."""

    before: dict[str, int]
    after: dict[str, int]
    applied: tuple[str, ...] = ()
    """What each simplifier did, a sentence each."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One model's outputs held against the source framework's on the same inputs."""

    subject: str
    """Which model: a subject's label, or ``as exported``."""
    against: str
    """Whose outputs are the reference."""
    tolerance: str
    """The rule by which it was judged."""
    cases: int
    """Sets of inputs that were compared."""
    passed: bool
    outputs: tuple[OutputDifference, ...]


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """Where the quantized ranges come from."""

    method: str
    samples: int
    source: str
    """The data file's name, or ``random``."""


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """What asks the model on a Triton server, with a recorded sample; to be run in the folder of its records."""

    script: str
    """A Python program that needs numpy alone."""
    curl: str
    """The same request as a line for a shell."""


class Report(Result, frozen=True, kw_only=True, tag="convkit.report/1"):
    """All that is known of a conversion. The renderers show it; nothing in it is computed while rendering."""

    created: Annotated[datetime, msgspec.Meta(tz=True)]
    """When, in UTC."""
    convkit: str
    """convkit's version."""
    target: str
    precision: str
    """As asked for with --quantize; where that was `auto`, what was chosen."""
    worse: tuple[str, ...] = ()
    """What got worse, worst first, a sentence each: `convkit.report.verdict.worsened` writes them."""
    source: Source | None = None
    subjects: tuple[Subject, ...] = ()
    """In the order in which they are shown: source, baseline, final."""
    comparisons: tuple[Comparison, ...] = ()
    self_check: Comparison | None = None
    """The baseline against itself, measured twice in the same alternation: what they differ by is the machine's."""
    conditions: Conditions | None = None
    """What the machine did while speeds were measured; None where none were."""
    profiles: tuple[Profile, ...] = ()
    """Where the time goes, for the subjects whose runtime tells; empty where nothing was measured."""
    checks: tuple[Check, ...] = ()
    simplification: Simplification | None = None
    calibration: Calibration | None = None
    choice: tuple[str, ...] = ()
    """What `--quantize auto` considered, a sentence each, the choice last; empty: the precision was asked for."""
    trials: tuple[Trial, ...] = ()
    """The search for a model within the accuracy budget, in the order in which they were judged; empty: none."""
    inside: EngineInside | None = None
    """The layers of the built engine; None where none was built, or it does not tell."""
    machine: Machine | None = None
    libraries: dict[str, str] = {}
    """Distributions that took part, and their versions."""
    measured_how: tuple[str, ...] = ()
    """How the figures were measured, a sentence each."""
    rerun: str = ""
    """The command that measures again."""
    client: Client | None = None
    """None where no Triton backend loads the model."""

    def subject(self, role: Role) -> Subject | None:
        """Return the subject in this role; None where there is none."""
        return next((subject for subject in self.subjects if subject.role is role), None)

    def head(self) -> Result:
        """Return what `--json` prints of this report."""
        return Result(**{name: getattr(self, name) for name in Result.__struct_fields__})


class Reports(msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="convkit.reports/1"):
    """What `convkit report --format json` prints of several models."""

    reports: tuple[Report, ...]


def failed(error: ConvkitError) -> Result:
    """Return what `--json` prints of an error where no report was begun."""
    failure = Failure(code=error.code, stage=error.stage, message=error.message, hint=error.hint)
    return Result(status=Status.FAILED, exit_code=int(error.exit_status), error=failure)


def to_json(document: msgspec.Struct) -> str:
    """Write a result or reports as indented JSON with a newline at its end."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def read_report(data: bytes, *, where: str) -> Report:
    """Read a report.json.

    Raises:
        InputError: it is no JSON, or not a report of this schema.
    """
    try:
        return msgspec.json.decode(data, type=Report)
    except NOT_JSON as error:
        raise InputError(
            f"{where} is no report that this convkit reads: {error}",
            hint="name a report.json with the schema convkit.report/1, as `convkit convert` writes it",
            code="report.unreadable",
        ) from error
