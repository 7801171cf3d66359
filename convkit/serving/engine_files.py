"""What the plans of a version are called, so that one folder serves several kinds of GPU.

Triton loads for each GPU what `cc_model_filenames` says for its compute capability, else `default_model_filename`
(model_config.proto; https://github.com/triton-inference-server/tensorrt_backend). The map is the model's, so that a
compute capability has one file name in all versions. The first kind of GPU keeps the default name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from convkit.errors import ConvkitError
from convkit.serving.engine_names import with_names
from convkit.serving.layout import numbered
from convkit.serving.publish import CONFIG, RECORDS
from convkit.serving.triton_text import parse
from convkit.targets.engine_records import ENGINES, Engines, encode_engines, is_file_name, read_engines


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


def fit_in(model: Path, files: Mapping[str, Path | bytes], config: bytes) -> tuple[dict[str, Path | bytes], bytes]:
    """Give an engine that was built at once the name that its kind of GPU has in a model that is published already.

    Args:
        model: the model's folder.
        files: of the version, engines.json among them; one engine.
        config: config.pbtxt for the engine alone.

    Returns the version's files and the configuration as they are to be published.
    """
    place = f"{RECORDS}/{ENGINES}"
    known, record = known_names(model), files.get(place)
    if not known or not isinstance(record, bytes):
        return dict(files), config
    [engine] = msgspec.json.decode(record, type=Engines).engines
    names = name_engines(known, [engine.gpu.compute_capability], engine.file)
    named = msgspec.structs.replace(engine, file=names[engine.gpu.compute_capability])
    renamed = {named.file if name == engine.file else name: content for name, content in files.items()}
    return {**renamed, place: encode_engines([named])}, with_names(config, names)


def _own_name(capability: str, default: str) -> str:
    stem, _, ending = default.partition(".")
    return f"{stem}_sm{capability.replace('.', '')}.{ending}"
