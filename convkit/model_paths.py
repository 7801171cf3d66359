"""From a path to a graph that can be run: a model of any framework, or what a repository holds of one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from convkit.errors import InputError
from convkit.graph.model import MODEL_FILE, Model, Tensors
from convkit.pipeline.artifact import Artifact, gather
from convkit.pipeline.runner import Runner
from convkit.served import read_expected
from convkit.serving.check_files import Version
from convkit.serving.check_layout import find_models, versions_of
from convkit.serving.layout import is_model
from convkit.serving.publish import MANIFEST, RECORDS
from convkit.serving.records import SAMPLES
from convkit.sources.find import Framework, find_model
from convkit.sources.open import open_source
from convkit.spec.metadata import read_metadata
from convkit.spec.options import ExportOptions, Precision
from convkit.targets.openvino_model import GRAPH_FILE, WEIGHTS_FILE

_ANY_OPSET = 26


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """Something that can be run, and inputs for it."""

    model: Model | None
    """None where only OpenVINO's own format was published."""
    samples: Tensors | None
    """Those recorded with a published version, else random ones that respect config.txt."""
    recorded: bool
    openvino: Artifact | None = None
    """``model.xml`` and ``model.bin``, where there is no ONNX file."""
    precision: Precision = Precision.NONE
    """What was recorded of it, where there is no ONNX file."""


def has_report(path: Path) -> bool:
    """Tell whether a path stands for reports rather than for a source model: a report.json, or what was published.

    A path with nothing there counts as one, so that it is named.
    """
    return path.suffix == ".json" or not path.exists() or is_published(path)


def is_published(path: Path) -> bool:
    """Tell whether a path is a repository, a model in one, or a version, as `convkit convert` writes them."""
    if not path.is_dir():
        return False
    if is_model(path) or (path / RECORDS).is_dir() or (path / MANIFEST).is_file():
        return True
    return any(child.is_dir() and is_model(child) for child in path.iterdir())


def environment_of(path: Path) -> str:
    """Return the worker that reads what lies at a path: what is published, or a model of any source.

    Raises:
        InputError: there is no model, or more than one.
    """
    if is_published(path):
        return "onnx"
    match find_model(path).framework:
        case Framework.PYTORCH:
            return "torch"
        case Framework.TENSORFLOW:
            return "tensorflow"
        case _:
            return "onnx"


def open_model(path: Path, run: Runner, *, trust: Sequence[str], data: Artifact | None, command: str) -> Opened:
    """Export a model as `convert` does, or take the graph of a published version.

    Args:
        path: what `find_model` takes, or a version, a model (its latest version) or a repository with one model.
        run: exports are remembered, as those of a conversion.
        trust: ``yes``, or digests of files whose code may run.
        data: the user's inputs, for a source.
        command: the command line, for hints.

    Raises:
        InputError: there is no model, or neither a graph beside an engine nor one of OpenVINO's.
        TrustError: code beside the model would run.
    """
    published = _latest(path) if is_published(path) else None
    if published is not None and (published.folder / GRAPH_FILE).is_file():
        expected = read_expected(published)
        recorded = _recorded(published)
        return Opened(
            model=None,
            samples=recorded,
            recorded=recorded is not None,
            openvino=gather(published.folder, [GRAPH_FILE, WEIGHTS_FILE]),
            precision=expected.precision if expected is not None else Precision.NONE,
        )
    found = find_model(path if published is None else _graph_of(published))
    metadata = read_metadata(Path(found.config)) if found.config and published is None else None
    source = open_source(found, metadata, ExportOptions(), trust, command)
    exported = source.export(run, samples=data if published is None else None, max_opset=_ANY_OPSET)
    recorded = _recorded(published) if published is not None else None
    return Opened(model=exported.model, samples=recorded or exported.samples, recorded=recorded is not None)


def _latest(path: Path) -> Version:
    path = path.absolute()
    if (path / RECORDS).is_dir() or (path / MANIFEST).is_file():
        return Version(number=0, folder=path, pending=not (path / RECORDS).is_dir())
    _, models = find_models(path)
    if len(models) > 1:
        raise InputError(
            f"{path} holds {len(models)} models: {', '.join(model.name for model in models[:5])}",
            hint="name the one meant: REPOSITORY/NAME",
            code="compare.several-models",
        )
    return max(versions_of(models[0]), key=lambda version: version.number)


def _graph_of(version: Version) -> Path:
    for folder in (version.folder, version.records):
        if (folder / MODEL_FILE).is_file():
            return folder / MODEL_FILE
    raise InputError(
        f"{version.folder} holds no {MODEL_FILE}: its runtime loads another format",
        hint="compare the model that it was made from, or one published for --to onnxruntime",
        code="compare.no-graph",
    )


def _recorded(version: Version) -> Tensors | None:
    folder = version.records / SAMPLES
    return Tensors(files=gather(folder)) if folder.is_dir() else None
