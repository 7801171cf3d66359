"""build.json: an engine still to be built, as a typed and versioned document beside its ONNX file."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from convkit.errors import InputError
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
_MOST_BYTES = 16 << 20


class VersionRange(msgspec.Struct, frozen=True, kw_only=True):
    """TensorRT versions that a build suits."""

    at_least: str = "10.0"
    """The first release whose parser takes strongly typed networks as convkit writes them."""
    below: str | None = None

    def suits(self, version: str) -> bool:
        """Tell whether a version such as ``10.16.1.11`` lies within."""
        found = _numbers(version)
        return _numbers(self.at_least) <= found and (self.below is None or found < _numbers(self.below))


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
    versions: VersionRange = VersionRange()


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
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror}", "name a folder that convkit prepared") from error
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
    for name in (*plan.model, *plan.samples, *plan.references):
        if not is_plain(name):
            raise _refused(path, f"names the file '{name}', outside its folder", "run 'convkit convert' again")
    return plan


def verify_files(plan: BuildPlan, folder: Path) -> None:
    """See that the files which the plan names are there, and are those that it was written for.

    Raises:
        InputError: one is missing or has another content.
    """
    for name, digest in {**plan.model, **plan.samples, **plan.references}.items():
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


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
