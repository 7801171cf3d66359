"""build.json: an engine still to be built, as a typed and versioned document beside its ONNX file."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from convkit.errors import InputError, MissingError
from convkit.graph.work import NodeWork
from convkit.pipeline.artifact import digest_file
from convkit.pipeline.cache import write_atomically
from convkit.spec.damage import NOT_JSON
from convkit.spec.options import CheckOptions, GateOptions, Precision
from convkit.spec.paths import is_plain
from convkit.spec.tensor import Interface
from convkit.targets.trt_api import Flavour
from convkit.targets.trt_options import TensorRTOptions
from convkit.targets.trt_profiles import Profile

SCHEMA = "convkit.build/1"
FILE_NAME = "build.json"
EVALUATION = "evaluation"
"""The folder of what an engine's accuracy is judged on. It stays with the version: an engine for another GPU, or by the
next TensorRT, is judged like the first."""
_MOST_BYTES = 16 << 20


class VersionRange(msgspec.Struct, frozen=True, kw_only=True):
    """TensorRT versions that a build suits."""

    at_least: str = "10.0"
    """The first release whose parser takes strongly typed networks as convkit writes them."""
    below: str | None = None

    def suits(self, version: str) -> bool:
        """Tell whether a version such as ``10.16.1.11`` lies within."""
        found = version_numbers(version)
        return version_numbers(self.at_least) <= found and (self.below is None or found < version_numbers(self.below))


class AccuracyGate(msgspec.Struct, frozen=True, kw_only=True):
    """How much accuracy an engine may lose, and on what that is judged."""

    metric: str
    """``top1``, ``agreement``, or the user's own, as ``file.py:function`` or ``module:function``."""
    code: str | None = None
    """The digest of the code of a metric of the user's own, which is not carried."""
    outputs: tuple[str, ...]
    """The outputs that it looks at."""
    labels: str | None = None
    """The name of the array with the labels."""
    at_most: int | None = None
    """Rows that count; None: all."""
    source: float
    """How good the source framework's model is."""
    max_drop: float
    """Most that may be lost, in points of the metric."""
    data: dict[str, str]
    """``.npz`` files of rows under wire names or aliases, in order."""
    carried: bool = True
    """Whether they lie in this folder; else whoever builds names them."""
    answers: dict[str, str] = {}
    """The classes that the source framework chose, a file for each batch; for agreement alone."""

    @property
    def files(self) -> dict[str, str]:
        """Return what lies in the plan's folder."""
        return {**(self.data if self.carried else {}), **self.answers}

    def already_judged(self) -> AccuracyGate:
        """Return it as the record of an engine that is never built again: nothing is carried."""
        return msgspec.structs.replace(self, carried=False, answers={})


class BuildPlan(msgspec.Struct, frozen=True, kw_only=True):
    """All that `convkit build` needs besides the files that it names, which lie in the same folder.

    Files are given by their relative names with their digests (``sha256:…``).
    """

    schema: str = SCHEMA
    target: Flavour = Flavour.TENSORRT
    interface: Interface
    profiles: tuple[Profile, ...]
    options: TensorRTOptions
    precision: Precision
    """What the graph holds; it decides the tolerance where `check` leaves it open."""
    model: dict[str, str]
    """model.onnx and its external data."""
    samples: dict[str, str] = {}
    """Recorded inputs under their wire names, one ``.npz`` file for each case."""
    references: dict[str, str] = {}
    """The source framework's outputs for them, in the same order."""
    check: CheckOptions = CheckOptions()
    """The tolerance asked for."""
    gates: GateOptions = GateOptions()
    """What the engine must keep to be published."""
    accuracy: AccuracyGate | None = None
    """None where no drop of accuracy was bounded."""
    versions: VersionRange = VersionRange()
    work: dict[str, NodeWork] = {}
    """The work of each node of the graph, so that the engine's layers tell how much of it runs in low precision."""
    structure: str | None = None
    """The graph without its weights, where the plan is to take those of a model that was trained again."""

    @property
    def files(self) -> dict[str, str]:
        """Return the digest of every file that lies in the plan's folder."""
        carried = self.accuracy.files if self.accuracy is not None else {}
        return {**self.model, **self.samples, **self.references, **carried}

    @property
    def tolerance(self) -> CheckOptions:
        """Return how far the engine's outputs may be off."""
        return self.check if self.accuracy is None else self.check.where_judged(self.precision)


def encode_build_plan(plan: BuildPlan) -> bytes:
    """Return the document: the same plan gives the same bytes."""
    return msgspec.json.format(msgspec.json.encode(plan, order="sorted"), indent=2) + b"\n"


def write_build_plan(folder: Path, plan: BuildPlan) -> Path:
    """Write build.json into a folder, and return its path."""
    path = folder / FILE_NAME
    write_atomically(path, encode_build_plan(plan))
    return path


def read_build_plan(path: Path) -> BuildPlan:
    """Read a build.json.

    Raises:
        InputError: it is missing, no such document, of another schema, or names files outside its folder.
        MissingError: its disk fails.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        raise _refused(path, f"cannot be read: {error.strerror}", "name a folder that convkit prepared") from error
    except OSError as error:
        raise MissingError(
            f"{path} cannot be read: {error.strerror or error}",
            hint="see to the disk or the mount, and run the same command again",
            code="build.disk",
        ) from error
    try:
        schema = msgspec.json.decode(data, type=_Head).schema
        if schema != SCHEMA:
            raise _refused(
                path, f"is of the schema '{schema}'", f"this convkit reads {SCHEMA}: use the one that wrote it"
            )
        plan = msgspec.json.decode(data, type=BuildPlan)
    except NOT_JSON as error:
        raise _refused(
            path, f"is not a build plan: {error}", "run 'convkit convert' again; it is never edited"
        ) from error
    for name in plan.files:
        if not is_plain(name):
            raise _refused(path, f"names the file '{name}', outside its folder", "run 'convkit convert' again")
    return plan


def verify_files(plan: BuildPlan, folder: Path) -> None:
    """See that the files which the plan names are there, and are those that it was written for.

    Raises:
        InputError: one is missing or has another content.
    """
    for name, digest in plan.files.items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path} is missing", hint="copy the whole folder", code="build.missing-file")
        if digest_file(path) != digest:
            raise InputError(
                f"{path} is not the file that {FILE_NAME} was written for",
                hint="copy the folder again, or run 'convkit convert' again",
                code="build.digest",
            )


class _Head(msgspec.Struct):
    schema: str


def _refused(path: Path, problem: str, hint: str) -> InputError:
    return InputError(f"{path} {problem}", hint=hint, code="build.plan")


def version_numbers(version: str) -> tuple[int, ...]:
    """Return a version as numbers, to be compared."""
    return tuple(int(number) for number in re.findall(r"\d+", version))
