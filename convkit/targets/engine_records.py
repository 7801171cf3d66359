"""engines.json: which plan of a version was built where, beside the ONNX model that all of them were built from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from convkit.pipeline.artifact import digest_file, read_record
from convkit.spec.damage import NOT_JSON
from convkit.spec.paths import is_plain
from convkit.targets.build_plan import BuildPlan, version_numbers
from convkit.targets.cuda_driver import Gpu
from convkit.targets.here import Here

ENGINES = "engines.json"

EVERY_ARCHITECTURE = "AMPERE_PLUS"
"""TensorRT's HardwareCompatibilityLevel of a plan that runs on compute capability 8.0 and later."""
SAME_CAPABILITY = "SAME_COMPUTE_CAPABILITY"


class BuiltEngine(msgspec.Struct, frozen=True, kw_only=True):
    """One plan of a version."""

    file: str
    """Its name in the version's directory."""
    digest: str
    gpu: Gpu
    tensorrt: str
    """The version that built it."""
    built_from: str
    """The digest of the build.json that it was built by, which has the ONNX model's."""
    refitted: bool = False
    """Whether it is another version's plan with this one's weights."""


class Engines(msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="convkit.engines/1"):
    """The plans of a version, each for a GPU of its own."""

    engines: tuple[BuiltEngine, ...] = ()

    def of(self, plan_digest: str) -> tuple[BuiltEngine, ...]:
        """Return those that were built by a build.json of that digest."""
        return tuple(engine for engine in self.engines if engine.built_from == plan_digest)


def encode_engines(engines: Iterable[BuiltEngine]) -> bytes:
    """Return the document: the same plans give the same bytes."""
    ordered = tuple(sorted(engines, key=lambda engine: engine.file))
    return msgspec.json.format(msgspec.json.encode(Engines(engines=ordered), order="sorted"), indent=2) + b"\n"


def read_engines(records: Path) -> Engines:
    """Read a version's engines.json from the folder of its records; none are known where there is none, or damage.

    A plan that is not known is built anew, and so is one that is said to lie elsewhere.
    """
    try:
        found = msgspec.json.decode(read_record(records / ENGINES), type=Engines)
    except (*NOT_JSON, OSError):
        return Engines()
    return Engines(engines=tuple(engine for engine in found.engines if is_file_name(engine.file)))


def is_file_name(name: str) -> bool:
    """Tell whether a name is one of a file in a version's directory itself."""
    return is_plain(name) and "/" not in name


def runs_here(engine: BuiltEngine, plan: BuildPlan, here: Here) -> bool:
    """Tell whether a plan was built for this GPU and this TensorRT.

    A plan belongs to a model of GPU and a version, unless it was built with `hardware_compatibility` or
    `version_compatible`: https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/engine-compatibility.html
    """
    return _fits_gpu(engine.gpu, here.gpu, plan.options.hardware_compatibility) and _fits_version(
        engine.tensorrt, here.tensorrt, compatible=plan.options.version_compatible
    )


def find_standing(folder: Path, engines: Iterable[BuiltEngine], plan: BuildPlan, here: Here) -> BuiltEngine | None:
    """Return the plan in a version's directory that runs here and is whole; None where there is none."""
    for engine in engines:
        if runs_here(engine, plan, here) and is_whole(folder, engine):
            return engine
    return None


def is_whole(folder: Path, engine: BuiltEngine) -> bool:
    """Tell whether a plan's file is there and is the one that was built."""
    try:
        return digest_file(folder / engine.file) == engine.digest
    except OSError:
        return False


def _fits_gpu(built: Gpu, here: Gpu, compatibility: str | None) -> bool:
    if compatibility == EVERY_ARCHITECTURE:
        least = version_numbers("8.0")
        return all(version_numbers(each.compute_capability) >= least for each in (built, here))
    same = built.compute_capability == here.compute_capability
    return same and (compatibility == SAME_CAPABILITY or built.name == here.name)


def _fits_version(built: str, here: str, *, compatible: bool) -> bool:
    return built == here or (compatible and version_numbers(built) < version_numbers(here))
