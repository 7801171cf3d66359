"""An ONNX file as it is, for whoever wants to know what is wrong with it: nothing in it is checked or changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from convkit.errors import InputError, MetadataError
from convkit.graph.model import MODEL_FILE, Model
from convkit.graph.present import interface_of
from convkit.pipeline.artifact import Artifact, gather, new_folder
from convkit.pipeline.copying import copy_file
from convkit.pipeline.step import step
from convkit.sources.hand_on import face_of
from convkit.sources.onnx import parse_unchecked
from convkit.spec.metadata import Metadata
from convkit.spec.options import ExportOptions
from convkit.spec.tensor import Interface, TensorSpec

if TYPE_CHECKING:
    import onnx


@step(version=1, stage="source", title="Read the ONNX file", needs="onnx")
def take_unchecked(source: Artifact, *, file: str, metadata: Metadata | None, options: ExportOptions) -> Model:
    """Take an ONNX file with its external data as a model, its tensors under the graph's own names.

    Inputs and outputs that no server takes are left out of the interface.

    Raises:
        InputError: it is no ONNX file.
        MetadataError: config.txt's names, types or dims are not the graph's.
    """
    proto = parse_unchecked(source.file(file), weights=False)
    folder = new_folder("unchecked")
    for name in source.files:
        place = folder / (MODEL_FILE if name == file else name)
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("xb") as stream:
            copy_file(source.file(name), stream)
    return Model(files=gather(folder), interface=_interface(proto, metadata, options))


def _interface(proto: onnx.ModelProto, metadata: Metadata | None, options: ExportOptions) -> Interface:
    try:
        face = face_of(proto, metadata, options)
    except MetadataError:
        raise
    except InputError:  # of one of them: what is wrong with it is found by a rule
        return _those_that_can_be(proto)

    def named(specs: tuple[TensorSpec, ...], names: tuple[str, ...]) -> tuple[TensorSpec, ...]:
        pairs = zip(specs, names, strict=True)
        return tuple(msgspec.structs.replace(spec, name=name, alias=None) for spec, name in pairs)

    return msgspec.structs.replace(
        face.interface,
        inputs=named(face.interface.inputs, face.inputs),
        outputs=named(face.interface.outputs, face.outputs),
    )


def _those_that_can_be(proto: onnx.ModelProto) -> Interface:
    copy = type(proto)()
    copy.graph.initializer.extend(proto.graph.initializer)
    found: dict[str, list[TensorSpec]] = {"input": [], "output": []}
    for side, values in (("input", proto.graph.input), ("output", proto.graph.output)):
        for value in values:
            del copy.graph.input[:], copy.graph.output[:]
            copy.graph.input.append(value)
            copy.graph.output.append(value)
            try:
                found[side] += interface_of(copy).inputs
            except InputError:
                continue
    return Interface(inputs=tuple(found["input"]), outputs=tuple(found["output"]))
