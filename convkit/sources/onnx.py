"""ONNX files as a source: checked, given their wire names, and judged by ONNX Runtime without optimizations."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from convkit.errors import InputError, StepError
from convkit.graph.external import load_beside, save_with_data
from convkit.graph.model import Model, Tensors
from convkit.graph.names import subgraphs
from convkit.graph.present import MAX_IR_VERSION
from convkit.graph.samples import make_cases
from convkit.graph.session import kept_session, open_session, run_session
from convkit.graph.set_aside import set_weights_aside
from convkit.graph.text import broken_text
from convkit.graph.wire import WireError, read_without_weights
from convkit.pipeline import early, events
from convkit.pipeline.artifact import Artifact, digest_bytes, gather, new_folder
from convkit.pipeline.copying import copy_file
from convkit.pipeline.step import observation, step
from convkit.pipeline.stopwatch import Timing, time_calls
from convkit.sources.answers import Questions, answer_all
from convkit.sources.exported import Exported
from convkit.sources.hand_on import Written, face_of, hand_on, write_graph
from convkit.sources.onnx_opset import CONVERTED_OPSET, opset_of, within_opsets
from convkit.spec.metadata import Metadata
from convkit.spec.options import ExportOptions
from convkit.spec.tensor import Interface

if TYPE_CHECKING:
    import onnx

_OLDEST_RUN = 7  # ONNX Runtime's own words: it guarantees support from here on


class ExternalFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Files beside an ONNX file that hold its weights, relative to its folder."""

    names: tuple[str, ...]


@step(version=1, stage="source", title="Look for external data", needs="onnx")
def find_external_data(source: Artifact) -> ExternalFiles:
    """List the files that an ONNX file keeps weights in.

    Raises:
        InputError: the file is no ONNX model, or names a file outside its own folder.
    """
    proto = parse_unchecked(source.file(), weights=False)
    names = set()
    for tensor in _tensors(proto):
        for entry in tensor.external_data:
            if entry.key == "location":
                location = PurePosixPath(entry.value)
                if location.is_absolute() or ".." in location.parts or "\\" in entry.value:
                    raise InputError(
                        f"{source.file().name}: the weights of '{tensor.name}' are said to lie in {entry.value}",
                        hint="external data must lie in the model's own folder",
                        code="source.external-data",
                    )
                names.add(entry.value)
    return ExternalFiles(names=tuple(sorted(names)))


class Light(msgspec.Struct, frozen=True, kw_only=True):
    """An ONNX file of the same name, its large weights in a file beside it."""

    files: Artifact


@step(version=1, stage="source", title="Move the weights beside the graph", needs="onnx")
def take_weights_out(source: Artifact, *, file: str) -> Light:
    """Write an ONNX file anew with its weights beside it, so that nothing that reads it has them in memory.

    Files that it keeps weights in already come along.
    """
    folder = new_folder("light")
    others = [name for name in source.files if name != file]
    for name in others:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("xb") as stream:
            copy_file(source.file(name), stream)
    data_file = f"{file}.data"
    while any(PurePosixPath(name).parts[0] == data_file for name in others):
        data_file += "_"
    set_weights_aside(source.file(file), folder / file, data_file)
    return Light(files=gather(folder))


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for graph in subgraphs(proto.graph):
        yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def parse_unchecked(path: Path, *, weights: bool = True) -> onnx.ModelProto:
    """Read a file without its external data; only that it is a model is checked.

    Without `weights`, the data of initializers are left out.

    Raises:
        InputError: it is none.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        proto = onnx.load(str(path), load_external_data=False) if weights else read_without_weights(path)
    except (DecodeError, WireError, OSError) as error:
        raise _unreadable(path, str(error)) from error
    if not proto.graph.node and not proto.graph.output:
        raise _unreadable(path, "it has no graph")
    if (field := broken_text(proto)) is not None:
        raise _unreadable(path, f"a {field} in it is no UTF-8")
    return proto


def _unreadable(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path.name} is no ONNX model: {reason}", hint="check that the file is whole", code="source.unreadable"
    )


@step(version=1, stage="source", title="Read the ONNX model", needs="onnx")
def import_onnx(
    source: Artifact,
    *,
    file: str,
    metadata: Metadata | None,
    options: ExportOptions,
    samples: Artifact | None,
    max_opset: int,
) -> Exported:
    """Take an ONNX file with its external data, and record what it answers without any optimization.

    Raises:
        InputError: it is no valid model, or has inputs or outputs that servers do not take.
        MetadataError: config.txt's names, types or dims are not the graph's.
    """
    import onnx
    import onnxruntime

    runtime, reader = f"onnxruntime {onnxruntime.__version__}", f"read with onnx {onnx.__version__}"
    graph: _Graph | None = early.take_up(_named(source, file, metadata, options, max_opset))
    if graph is not None:
        face = graph.written.face
        cases = make_cases(face.interface, samples)
        opened = open_session(graph.runnable, plain=True)
        answers = [face.answered(case, lambda fed, outputs: run_session(opened, outputs, fed)) for case in cases]
        return graph.written.exported(cases, answers, framework=runtime, exporter=reader)

    original = _checked(source.file(file))
    session = functools.cache(lambda: open_session(_readable(source, file, original), plain=True))

    def finish(proto: onnx.ModelProto) -> onnx.ModelProto:
        session.cache_clear()  # what is still to be done needs its memory
        return within_opsets(proto, options.opset, max_opset)

    return hand_on(
        original,
        lambda case, outputs: run_session(session(), outputs, case),
        metadata=metadata,
        options=options,
        samples=samples,
        framework=runtime,
        exporter=reader,
        finish=finish,
        data=source.file(file).parent,
    )


class _Graph(NamedTuple):
    """The graph that is handed on, and the file that ONNX Runtime answers by."""

    written: Written
    runnable: Path


@step(version=1, stage="source", title="Read the ONNX model's graph", needs="onnx")
def read_graph(
    source: Artifact, *, file: str, metadata: Metadata | None, options: ExportOptions, max_opset: int
) -> Model:
    """Return the graph that `import_onnx` hands on; that one then takes up what was done here.

    Raises:
        InputError, MetadataError: see `import_onnx`.
    """
    key = _named(source, file, metadata, options, max_opset)
    return early.keep(key, lambda: _graph(source, file, metadata, options, max_opset)).written.model


def _graph(source: Artifact, file: str, metadata: Metadata | None, options: ExportOptions, max_opset: int) -> _Graph:
    original = _checked(source.file(file))
    face = face_of(original, metadata, options)
    runnable = _readable(source, file, original)
    proto = within_opsets(original, options.opset, max_opset)
    return _Graph(write_graph(proto, face, source.file(file).parent), runnable)


def _named(source: Artifact, file: str, metadata: Metadata | None, options: ExportOptions, max_opset: int) -> str:
    return digest_bytes(msgspec.json.encode([source.digest, file, metadata, options, max_opset]))


@step(version=1, stage="source", title="Read the ONNX model's inputs", needs="onnx")
def read_face(source: Artifact, *, file: str, options: ExportOptions) -> Interface:
    """Return what an ONNX file itself says of its inputs and outputs."""
    return face_of(parse_unchecked(source.file(file), weights=False), None, options).interface


@step(version=1, stage="measure", title="Ask ONNX Runtime", needs="onnx")
def answer_onnx(
    source: Artifact, *, file: str, metadata: Metadata | None, options: ExportOptions, questions: Questions
) -> Tensors:
    """Run the file as it came, without any optimization, over evaluation data; see `convkit.sources.answers`."""
    original = _checked(source.file(file))
    face = face_of(original, metadata, options)
    session = open_session(_readable(source, file, original), plain=True)
    return answer_all(
        questions,
        lambda case: face.answered(case, lambda fed, outputs: run_session(session, outputs, fed)),
    )


def _checked(path: Path) -> onnx.ModelProto:
    import onnx

    proto = parse_unchecked(path)
    try:
        if any(not value.type.tensor_type.HasField("shape") for value in proto.graph.output):
            proto = onnx.shape_inference.infer_shapes(proto)  # some exporters leave it to the reader
            onnx.checker.check_model(proto)
        else:
            onnx.checker.check_model(str(path))
        load_beside(proto, path.parent)
    except (
        *(onnx.checker.ValidationError, onnx.shape_inference.InferenceError),
        *(ValueError, OSError, RuntimeError, TypeError, MemoryError),
    ) as error:
        raise InputError(
            f"{path.name} is no valid ONNX model: {' '.join(str(error).split())}",
            hint="the exporter that wrote it must be mended, or its external data brought along",
            code="source.invalid",
        ) from error
    return proto


_runnable: dict[str, Path] = {}


def _readable(source: Artifact, file: str, proto: onnx.ModelProto | None = None) -> Path:
    """Return the file itself, or where ONNX Runtime cannot read it for its age, a copy that says the same.

    A file whose IR version is newer than anything in it needs gets an older one; one with an opset that ONNX Runtime no
    longer runs gets a newer one.
    """
    if source.digest not in _runnable or not _runnable[source.digest].is_file():  # a copy is some run's scratch
        proto = proto or _checked(source.file(file))
        path = source.file(file)
        nothing = Interface(inputs=(), outputs=())
        if proto.ir_version > MAX_IR_VERSION:
            proto.ir_version = MAX_IR_VERSION
            path = save_with_data(proto, nothing, path.parent).path
        elif 0 < opset_of(proto) < _OLDEST_RUN and not _opens(path):
            path = save_with_data(within_opsets(proto, None, CONVERTED_OPSET), nothing, path.parent).path
            events.warn(
                "source.answers-of-newer-opset",
                f"ONNX Runtime no longer runs this graph in opset {opset_of(proto)}: the answers that results are held "
                f"against are those of the graph converted to opset {CONVERTED_OPSET}",
            )
        _runnable[source.digest] = path
    return _runnable[source.digest]


def _opens(path: Path) -> bool:
    try:
        open_session(path, plain=True)
    except StepError:
        return False
    return True


@observation(version=1, stage="measure", title="Time the ONNX source", needs="onnx")
def time_onnx_source(
    source: Artifact, *, file: str, inputs: Tensors, renamed: dict[str, str], seconds: float
) -> Timing:
    """Time the file as it came, in ONNX Runtime with its optimizations. `renamed`: wire name to the file's own."""
    case = {renamed.get(name, name): array for name, array in next(iter(inputs)).items()}
    session = kept_session(_readable(source, file), key=source.digest, case=case)
    return time_calls(lambda: session.run(None, case), seconds)
