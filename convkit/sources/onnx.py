"""ONNX files as a source: checked, given their wire names, and judged by ONNX Runtime without optimizations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import msgspec

from convkit.errors import InputError, MetadataError, StepError
from convkit.graph.census import take_census
from convkit.graph.model import Tensors, save_model, save_tensors
from convkit.graph.names import subgraphs
from convkit.graph.present import MAX_IR_VERSION, agreed_interface, interface_of, present, wanted_interface
from convkit.graph.samples import make_cases
from convkit.graph.session import kept_session, open_session, run_session
from convkit.pipeline import events
from convkit.pipeline.artifact import Artifact
from convkit.pipeline.step import observation, step
from convkit.pipeline.stopwatch import Timing, time_calls
from convkit.sources.exported import Exported
from convkit.spec.metadata import Metadata, TensorMetadata
from convkit.spec.options import ExportOptions
from convkit.spec.tensor import Interface, TensorSpec

if TYPE_CHECKING:
    import onnx

_OLDEST_OPSET = 13  # per-channel QuantizeLinear; below it quantizers and TensorRT lose features
_CONVERTED_OPSET = 18


class ExternalFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Files beside an ONNX file that hold its weights, relative to its folder."""

    names: tuple[str, ...]


@step(version=1, stage="source", title="Look for external data", needs="onnx")
def find_external_data(source: Artifact) -> ExternalFiles:
    """List the files that an ONNX file keeps weights in.

    Raises:
        InputError: the file is no ONNX model, or names a file outside its own folder.
    """
    proto = _parse(source.file())
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


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for graph in subgraphs(proto.graph):
        yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def _parse(path: Path) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        proto = onnx.load(str(path), load_external_data=False)
    except (DecodeError, OSError) as error:
        raise _unreadable(path, str(error)) from error
    if not proto.graph.node and not proto.graph.output:
        raise _unreadable(path, "it has no graph")
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

    original = _checked(source.file(file))
    declared = interface_of(original, max_batch_size=options.max_batch_size)
    wanted = _each_with_a_name_of_its_own(declared)
    inputs, outputs = (tuple(spec.name for spec in specs) for specs in (declared.inputs, declared.outputs))
    if metadata is not None:
        wanted = wanted_interface(metadata, options.tensor_names, options.max_batch_size)
        inputs, outputs = _match(metadata, declared)
    wanted = agreed_interface(original, wanted, inputs=inputs, outputs=outputs)
    cases = make_cases(wanted, samples)
    session = open_session(_readable(source, file, original), plain=True)
    answers = []
    for case in cases:
        fed = {name: case[spec.name] for name, spec in zip(inputs, wanted.inputs, strict=True)}
        got = run_session(session, outputs, fed)
        answers.append({spec.name: got[name] for name, spec in zip(outputs, wanted.outputs, strict=True)})
    proto, interface = present(
        _within_opsets(original, options.opset, max_opset), wanted, inputs=inputs, outputs=outputs
    )
    return Exported(
        model=save_model(proto, interface),
        samples=save_tensors(cases),
        references=save_tensors(answers),
        framework=f"onnxruntime {onnxruntime.__version__}",
        exporter=f"read with onnx {onnx.__version__}",
        parameters=take_census(proto).parameters,
        renamed={spec.name: name for spec, name in zip(wanted.inputs, inputs, strict=True) if spec.name != name},
    )


def _checked(path: Path) -> onnx.ModelProto:
    import onnx

    proto = _parse(path)
    try:
        if any(not value.type.tensor_type.HasField("shape") for value in proto.graph.output):
            proto = onnx.shape_inference.infer_shapes(proto)  # some exporters leave it to the reader
            onnx.checker.check_model(proto)
        else:
            onnx.checker.check_model(str(path))
        onnx.load_external_data_for_model(proto, str(path.parent))
    except (onnx.checker.ValidationError, ValueError, OSError, RuntimeError, TypeError, MemoryError) as error:
        raise InputError(
            f"{path.name} is no valid ONNX model: {' '.join(str(error).split())}",
            hint="the exporter that wrote it must be mended, or its external data brought along",
            code="source.invalid",
        ) from error
    return proto


_runnable: dict[str, Path] = {}


def _readable(source: Artifact, file: str, proto: onnx.ModelProto | None = None) -> Path:
    """Return the file itself, or where its IR version is newer than anything in it needs, a copy with an older one."""
    if source.digest not in _runnable:
        proto = proto or _checked(source.file(file))
        path = source.file(file)
        if proto.ir_version > MAX_IR_VERSION:
            proto.ir_version = MAX_IR_VERSION
            path = save_model(proto, Interface(inputs=(), outputs=())).path
        _runnable[source.digest] = path
    return _runnable[source.digest]


def _each_with_a_name_of_its_own(declared: Interface) -> Interface:
    """Give an output that is an input, too, another name: on the wire the two would be one."""
    taken = {spec.name for spec in (*declared.inputs, *declared.outputs)}
    outputs = []
    for spec in declared.outputs:
        name = spec.name
        if any(name == given.name for given in declared.inputs):
            while name in taken:
                name += "_output"
            events.warn("source.renamed-output", f"the output '{spec.name}' is an input, too: it is called '{name}'")
        outputs.append(msgspec.structs.replace(spec, name=name))
    return msgspec.structs.replace(declared, outputs=tuple(outputs))


def _match(metadata: Metadata, declared: Interface) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Find the graph's tensor for each of config.txt's: by node_name, with or without ``:0``, then by name."""
    found = []
    for side, tensors, specs in (
        ("input", metadata.inputs, declared.inputs),
        ("output", metadata.outputs, declared.outputs),
    ):
        there = {spec.name for spec in specs}
        named = [_named(tensor, there) for tensor in tensors]
        names = [name for name in named if name is not None]
        if len(names) < len(tensors) and _agree(tensors, specs):
            names = [spec.name for spec in specs]
            pairs = ", ".join(f"'{tensor.node_name}' is '{name}'" for tensor, name in zip(tensors, names, strict=True))
            events.warn("metadata.matched-by-order", f"the {side}s of config.txt were matched by their order: {pairs}")
        elif len(names) < len(tensors):
            unknown = tensors[named.index(None)].node_name
            raise MetadataError(
                f"config.txt: {side} '{unknown}' is not in the model",
                hint=f"the model's {side}s are: {'; '.join(map(str, specs))}",
                code="metadata.no-such-tensor",
            )
        if len(set(names)) < len(names):
            raise MetadataError(
                f"config.txt: two {side}s name the same tensor: {', '.join(tensor.node_name for tensor in tensors)}",
                hint=f"the model's {side}s are: {'; '.join(map(str, specs))}",
                code="metadata.same-tensor",
            )
        if side == "input" and len(names) != len(specs):
            missing = there - set(names)
            raise MetadataError(
                f"config.txt leaves out the input {', '.join(sorted(missing))}",
                hint="list every input; the model cannot run without it",
                code="metadata.missing-input",
            )
        found.append(tuple(names))
    return found[0], found[1]


def _named(tensor: TensorMetadata, there: set[str]) -> str | None:
    candidates = (tensor.node_name, tensor.node_name.removesuffix(":0"), f"{tensor.node_name}:0", tensor.name)
    return next((candidate for candidate in candidates if candidate in there), None)


def _agree(tensors: Sequence[TensorMetadata], specs: Sequence[TensorSpec]) -> bool:
    """Tell whether counts, types and shapes are such that the order says which is which."""
    return len(tensors) == len(specs) and all(
        tensor.dtype is spec.dtype
        and len(tensor.dims) == len(spec.dims)
        and all(want in (-1, has) or isinstance(has, str) for want, has in zip(tensor.dims, spec.dims, strict=True))
        for tensor, spec in zip(tensors, specs, strict=True)
    )


def _within_opsets(proto: onnx.ModelProto, asked: int | None, highest: int) -> onnx.ModelProto:
    """Convert the graph to an opset that the server reads, where onnx can."""
    import onnx
    import onnx.inliner
    from onnx import version_converter

    has = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)
    wanted = asked or (highest if has > highest else _CONVERTED_OPSET if 0 < has < _OLDEST_OPSET else has)
    if has in (0, wanted):
        return proto
    try:
        if proto.functions:  # the converter loses them
            proto = onnx.inliner.inline_local_functions(proto)
        converted: onnx.ModelProto = version_converter.convert_version(proto, wanted)
        onnx.checker.check_model(converted)
        if _face(converted) != _face(proto):  # the converter has lost a dimension of Scan's
            raise ValueError("the converter gives it other inputs or outputs")  # noqa: TRY301 - told as any failure
    except Exception as error:
        if not asked and has < _OLDEST_OPSET:
            events.warn("source.old-opset", f"opset {has} could not be converted to {wanted}; it is kept")
            return proto
        reason = " ".join(str(error).split()).rpartition("` failed: ")[2]  # behind the place in onnx's own source
        raise StepError(
            f"opset {has} cannot be converted to {wanted}: {reason}",
            hint="export again with an opset that the server reads, or name a newer server with --triton",
            code="source.opset",
        ) from error
    events.warn("source.opset-converted", f"opset {has} was converted to {wanted}")
    return converted


def _face(proto: onnx.ModelProto) -> list[tuple[str, int, int]]:
    """Return name, element type and rank of every input and output."""
    return [
        (value.name, value.type.tensor_type.elem_type, len(value.type.tensor_type.shape.dim))
        for value in (*proto.graph.input, *proto.graph.output)
    ]


@observation(version=1, stage="measure", title="Time the ONNX source", needs="onnx")
def time_onnx_source(
    source: Artifact, *, file: str, inputs: Tensors, renamed: dict[str, str], seconds: float
) -> Timing:
    """Time the file as it came, in ONNX Runtime with its optimizations. `renamed`: wire name to the file's own."""
    session = kept_session(_readable(source, file), key=source.digest)
    case = {renamed.get(name, name): array for name, array in next(iter(inputs)).items()}
    return time_calls(lambda: session.run(None, case), seconds)
