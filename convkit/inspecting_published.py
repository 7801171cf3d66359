"""What a model repository, a version in one, or a serialized engine tells of itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from convkit.custom_ops import OPTION, refuse_unread
from convkit.errors import InputError, UsageError
from convkit.graph.model import MODEL_FILE
from convkit.model_paths import environment_of
from convkit.pipeline.extensions import Extension
from convkit.report.document import Report, read_report
from convkit.report.inspection import (
    DynamicDim,
    EngineFacts,
    Inspection,
    LeftOut,
    Published,
    TensorFacts,
    with_interface,
)
from convkit.reporting import REPORT
from convkit.serving.check_files import Version
from convkit.serving.check_layout import find_models, versions_of
from convkit.serving.publish import CONFIG, MANIFEST, PENDING, RECORDS
from convkit.serving.triton_text import ModelConfig, parse, type_name
from convkit.sources.find import find_model
from convkit.sources.open import open_source
from convkit.spec.options import ExportOptions
from convkit.spec.tensor import DType
from convkit.targets.engine_records import read_engines

if TYPE_CHECKING:
    from convkit.inspecting import Inspector

_ENGINES = (".plan", ".engine", ".trt")
_MAGIC = {b"ftrt": "TensorRT", b"ptrt": "TensorRT", b"vtrt": "TensorRT-RTX"}
_VERSION_AT = slice(24, 28)
"""Where an engine's header has the version that wrote it: major, minor, patch, build."""
_FREE = -1


def is_engine(path: Path) -> bool:
    """Tell whether a path is a serialized TensorRT engine, by its name and its first bytes."""
    return path.is_file() and (path.suffix in _ENGINES or _header(path)[1:4] == b"trt")


def refuse_unread_at(path: Path, extensions: Sequence[Extension]) -> None:
    """Refuse files of ``--custom-ops`` that inspecting what lies at a path would not load.

    Raises:
        UsageError: says which, and why.
    """
    if extensions and is_engine(path):
        raise UsageError(
            f"{OPTION} {extensions[0].name}: of an engine the header is read, and nothing is loaded",
            hint="leave it out",
            code="custom-ops.target",
        )
    if extensions:
        refuse_unread(extensions, {environment_of(path)})


def engine_facts(path: Path) -> Inspection:
    """Inspect a serialized engine: by its header, and where it lies in a repository by what stands beside it."""
    header = _header(path)
    flavour = _MAGIC.get(header[:4])
    version = ".".join(map(str, header[_VERSION_AT])) if flavour is not None else None
    records = path.parent / RECORDS
    built = next((each for each in read_engines(records).engines if each.file == path.name), None)
    report = _report(records)
    inside = report.inside if report is not None else None
    told = Inspection(
        status="ok",
        exit_code=0,
        model=str(path),
        name=path.stem,
        kind=f"{flavour} engine" if flavour else "engine of a format that convkit does not know",
        files={path.name: path.stat().st_size},
        engine=EngineFacts(
            file=path.name,
            bytes=path.stat().st_size,
            flavour=flavour,
            version=built.tensorrt if built is not None else version,
            gpu=built.gpu.name if built is not None else None,
            layers=len(inside.layers) if inside is not None else None,
        ),
    )
    config = path.parent.parent / CONFIG
    if config.is_file():
        return with_config(told, parse(_text(config), where=str(config)))
    return msgspec.structs.replace(
        told,
        left_out=(
            LeftOut(
                what="inputs and outputs",
                why="an engine tells them only when it is loaded, by the TensorRT that built it, on its GPU",
                hint="inspect the model that it was built from, or the repository that it is published in",
            ),
        ),
    )


def inspect_published(path: Path, inspector: Inspector) -> Inspection:
    """Inspect a version, a model's latest version, or that of a repository with one model.

    Raises:
        InputError: the repository holds several models, or the model has no version.
    """
    model, version = _chosen(path.absolute())
    report = _report(version.records)
    files = {
        file.relative_to(version.folder).as_posix(): file.stat().st_size
        for file in sorted(version.folder.rglob("*"))
        if file.is_file() and RECORDS not in file.relative_to(version.folder).parts
    }
    told = Inspection(
        status="ok",
        exit_code=0,
        model=str(path),
        name=model.name,
        kind="published model",
        files=files,
        published=Published(
            version=version.number or None,
            pending=version.pending,
            backend=None,
            target=report.target if report is not None else None,
            precision=report.precision if report is not None else None,
            created=report.created.isoformat(timespec="seconds") if report is not None else None,
        ),
    )
    if report is not None and report.source is not None:
        told = msgspec.structs.replace(told, framework=report.source.framework, parameters=report.source.parameters)
    engines = [version.folder / name for name in files if Path(name).suffix in _ENGINES]
    if engines:
        told = msgspec.structs.replace(told, engine=engine_facts(engines[0]).engine)
    config = model / CONFIG
    if config.is_file():
        told = with_config(told, parse(_text(config), where=str(config)))
    graph = next(
        (each / MODEL_FILE for each in (version.folder, version.records) if (each / MODEL_FILE).is_file()), None
    )
    if graph is not None:
        told = _with_graph(told, graph, inspector)
    return told


def _with_graph(told: Inspection, graph: Path, inspector: Inspector) -> Inspection:
    """Add what the ONNX graph tells that is served, or that an engine was built from."""
    found = find_model(graph)
    source = open_source(found, None, ExportOptions(), (), "")
    if inspector.quick:
        return told
    exported = inspector.attempt(
        "operators, multiply-accumulates, bytes moved",
        lambda: source.export(inspector.run, samples=None, max_opset=26),
    )
    if exported is None:
        return told
    inspector.interface = exported.model.interface
    if not told.inputs:
        told = with_interface(told, exported.model.interface)
    return inspector.counted(told, exported)


def with_config(told: Inspection, config: ModelConfig) -> Inspection:
    """Add what a config.pbtxt says of a model's signature."""
    batch = int(config.max_batch_size)
    inputs, outputs = (tuple(_tensor(tensor, batch) for tensor in side) for side in (config.input, config.output))
    published = told.published
    if published is not None:
        backend = str(config.backend or config.platform) or None
        published = msgspec.structs.replace(published, backend=backend)
    return msgspec.structs.replace(
        told,
        inputs=inputs,
        outputs=outputs,
        max_batch_size=batch,
        dynamic=tuple(_dynamic((*inputs, *outputs), batch)),
        published=published,
    )


def _tensor(tensor: Any, batch: int) -> TensorFacts:
    name = type_name(tensor.data_type)
    dtype = next((each for each in DType if each.triton == name), None)
    dims = [f"{tensor.name}_{axis + bool(batch)}" if dim == _FREE else int(dim) for axis, dim in enumerate(tensor.dims)]
    return TensorFacts(
        name=tensor.name, dtype=dtype.value if dtype else name, dims=("batch", *dims) if batch else tuple(dims)
    )


def _dynamic(tensors: tuple[TensorFacts, ...], batch: int) -> Iterator[DynamicDim]:
    places: dict[str, list[str]] = {}
    for tensor in tensors:
        for axis, dim in enumerate(tensor.dims or ()):
            if isinstance(dim, str):
                places.setdefault(dim, []).append(f"{tensor.name}[{axis}]")
    for name, where in places.items():
        bounds = (1, batch) if name == "batch" and batch else (None, None)
        yield DynamicDim(name=name, places=tuple(where), low=bounds[0], high=bounds[1])


def _chosen(path: Path) -> tuple[Path, Version]:
    if (path / RECORDS).is_dir() or (path / MANIFEST).is_file():
        pending = not (path / RECORDS).is_dir()
        model = path.parent.parent if pending and path.parent.name == PENDING else path.parent
        return model, Version(number=int(path.name) if path.name.isdigit() else 0, folder=path, pending=pending)
    _, models = find_models(path)
    if len(models) > 1:
        raise InputError(
            f"{path} holds {len(models)} models: {', '.join(model.name for model in models[:5])}",
            hint="name the one meant: REPOSITORY/NAME",
            code="inspect.several-models",
        )
    versions = versions_of(models[0])
    if not versions:
        raise InputError(f"{models[0]} has no version", hint="publish one: convkit convert", code="inspect.no-version")
    return models[0], max(versions, key=lambda version: version.number)


def _report(records: Path) -> Report | None:
    with contextlib.suppress(OSError, InputError):
        return read_report((records / REPORT).read_bytes(), where=str(records / REPORT))
    return None


def _header(path: Path) -> bytes:
    with contextlib.suppress(OSError), path.open("rb") as stream:
        return stream.read(_VERSION_AT.stop)
    return b""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}", hint="let this user read it", code="repository.unreadable"
        ) from error
