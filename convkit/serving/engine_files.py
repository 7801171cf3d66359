"""What the plans of a version are called, so that one folder serves several kinds of GPU.

Triton loads for each GPU what `cc_model_filenames` says for its compute capability, else `default_model_filename`
(model_config.proto; https://github.com/triton-inference-server/tensorrt_backend). The map is the model's, so that a
compute capability has one file name in all versions. The first kind of GPU keeps the default name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from convkit.errors import ConvkitError
from convkit.pipeline.artifact import digest_file
from convkit.serving.engine_names import with_names
from convkit.serving.layout import numbered
from convkit.serving.publish import CONFIG, RECORDS
from convkit.serving.triton_text import parse
from convkit.targets.build_plan import FILE_NAME, BuildPlan
from convkit.targets.engine_records import (
    ENGINES,
    EVERY_ARCHITECTURE,
    BuiltEngine,
    Engines,
    encode_engines,
    find_standing,
    is_file_name,
    is_whole,
    read_engines,
)
from convkit.targets.here import Here
from convkit.targets.trt_api import Flavour
from convkit.targets.trt_build import ENGINE_FILES
from convkit.targets.trt_options import TensorRTOptions

DEFAULT = ENGINE_FILES[Flavour.TENSORRT]
"""The name that the first kind of GPU's plan gets."""


def known_names(model: Path) -> dict[str, str]:
    """Return the file names that a published model's compute capabilities have: by its config.pbtxt, else its versions.

    Empty where nothing is published, or what is there is not convkit's.
    """
    try:
        names = dict(parse((model / CONFIG).read_text(encoding="utf-8")).cc_model_filenames)
    except (OSError, UnicodeDecodeError, ConvkitError):
        names = {}
    if names:
        return {capability: file for capability, file in names.items() if is_file_name(file)}
    versions = sorted(numbered(model), key=lambda version: int(version.name))
    return {
        engine.gpu.compute_capability: engine.file
        for version in versions
        for engine in read_engines(version / RECORDS).engines
    }


def file_for(model: Path, capability: str) -> str | None:
    """Return the file that a server loads on a GPU of a compute capability; None where no configuration says so."""
    try:
        config = parse((model / CONFIG).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ConvkitError):
        return None
    return str(config.cc_model_filenames.get(capability) or config.default_model_filename or "") or None


def name_engines(known: Mapping[str, str], capabilities: Iterable[str], default: str) -> dict[str, str]:
    """Return the known names, and one for each further compute capability; no two share one.

    Args:
        known: file names by compute capability.
        capabilities: such as ``8.9``, in the order in which names are given.
        default: the name that the first gets, such as ``model.plan``.
    """
    names: dict[str, str] = {}
    for capability, file in [*known.items(), *((each, "") for each in capabilities if each not in known)]:
        free = file if file and file not in names.values() else default
        names[capability] = free if free not in names.values() else _own_name(capability, default)
    return names


class Plans(msgspec.Struct, frozen=True, kw_only=True):
    """The engines of a version as they are to be published."""

    records: tuple[BuiltEngine, ...]
    files: dict[str, Path | bytes]
    """By the names in the version's directory."""
    names: dict[str, str]
    """By compute capability, of the whole model; empty: every GPU loads the default."""


def lay_side_by_side(model: Path, found: Sequence[tuple[BuiltEngine, Path | bytes]], options: TensorRTOptions) -> Plans:
    """Name the engines of one version, each for a compute capability of its own, as its model's others are named.

    Args:
        model: the model's folder where they are published.
        found: each engine and its file.
        options: what they were built with; a plan for every architecture stands alone, under the default name.
    """
    everywhere = options.hardware_compatibility == EVERY_ARCHITECTURE
    names = {} if everywhere else name_engines(known_names(model), [capability_of(e) for e, _ in found], DEFAULT)
    named = [(msgspec.structs.replace(e, file=names.get(capability_of(e), DEFAULT)), path) for e, path in found]
    return Plans(records=tuple(each for each, _ in named), files={each.file: path for each, path in named}, names=names)


def standing_beside(
    folder: Path, standing: Iterable[BuiltEngine], capability: str, options: TensorRTOptions
) -> list[tuple[BuiltEngine, Path | bytes]]:
    """Return the whole plans of a version's directory that stay when one for a compute capability is published."""
    if options.hardware_compatibility == EVERY_ARCHITECTURE:
        return []
    return [(e, folder / e.file) for e in standing if capability_of(e) != capability and is_whole(folder, e)]


class Fitted(NamedTuple):
    """An engine that was built at once, as its model can take it."""

    files: dict[str, Path | bytes]
    """The version's."""
    config: bytes
    version: int | None
    """The version whose engines were built from the same files: this one joins them. None: it is a new version."""


def fit_in(model: Path, files: Mapping[str, Path | bytes], config: bytes, *, version: int | None = None) -> Fitted:
    """Put an engine that was built at once among those of a model that is published already.

    Where the latest version, or the one asked for, was built from the same files, its plans for other kinds of GPU stay
    in it; and its plan for this GPU is kept instead of the new one, since two builds differ in their bytes.

    Args:
        model: the model's folder.
        files: of the version, build.json and engines.json among them; one engine.
        config: config.pbtxt for the engine alone.
        version: the number asked for; None: the next, unless nothing is new.
    """
    place = f"{RECORDS}/{ENGINES}"
    record, recipe = files.get(place), files.get(f"{RECORDS}/{FILE_NAME}")
    if not isinstance(record, bytes) or not isinstance(recipe, bytes):
        return Fitted(dict(files), config, None)
    plan = msgspec.json.decode(recipe, type=BuildPlan)
    [engine] = msgspec.json.decode(record, type=Engines).engines
    found: list[tuple[BuiltEngine, Path | bytes]] = [(engine, files[engine.file])]
    folder = _built_from(model, engine.built_from, version)
    if folder is not None:
        standing = read_engines(folder / RECORDS).of(engine.built_from)
        kept = find_standing(folder, standing, plan, Here(gpu=engine.gpu, tensorrt=engine.tensorrt))
        if kept is not None:
            found = [(kept, folder / kept.file)]
        found = [*standing_beside(folder, standing, capability_of(found[0][0]), plan.options), *found]
    plans = lay_side_by_side(model, found, plan.options)
    rest = {name: content for name, content in files.items() if name not in (engine.file, place)}
    return Fitted(
        {**plans.files, **rest, place: encode_engines(plans.records)},
        with_names(config, plans.names),
        int(folder.name) if folder is not None else None,
    )


def capability_of(engine: BuiltEngine) -> str:
    """Return the compute capability that an engine was built on."""
    return engine.gpu.compute_capability


def _built_from(model: Path, plan_digest: str, version: int | None) -> Path | None:
    """Return the directory of the version asked for, else of the latest, if its build.json has that digest."""
    versions = [each for each in numbered(model) if version in (None, int(each.name))] if model.is_dir() else []
    for folder in sorted(versions, key=lambda each: int(each.name))[-1:]:
        try:
            if digest_file(folder / RECORDS / FILE_NAME) == plan_digest:
                return folder
        except OSError:
            return None
    return None


def _own_name(capability: str, default: str) -> str:
    stem, _, ending = default.partition(".")
    return f"{stem}_sm{capability.replace('.', '')}.{ending}"
