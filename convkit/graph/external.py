"""Weights that stay where they lie while the graph around them is looked at and changed.

A model of more than 2 GB fits into no message. Its graph does, each large weight a pointer into a file; what changes
names, shapes or the opset needs no more than that, and what writes the model copies the weights one after another.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from convkit.graph.census import take_census
from convkit.graph.model import EXTERNAL_ABOVE, Model, save_model
from convkit.graph.names import subgraphs
from convkit.graph.weights import SMALL, ModelWriter
from convkit.spec.paths import is_plain
from convkit.spec.tensor import Interface

if TYPE_CHECKING:
    import onnx


def load_beside(proto: onnx.ModelProto, folder: Path, *, most: int = SMALL) -> None:
    """Read external data from `folder` into the model; of one above `EXTERNAL_ABOVE` only what is no large weight.

    Args:
        proto: the model; changed in place.
        folder: where the files lie that it names.
        most: the bytes of a weight that is not large.

    Raises:
        OSError, ValueError, onnx.checker.ValidationError: they are not where the model says.
    """
    from onnx.external_data_helper import load_external_data_for_model, load_external_data_for_tensor

    if take_census(proto).weight_bytes <= EXTERNAL_ABOVE:
        load_external_data_for_model(proto, str(folder))
        return
    for graph in subgraphs(proto.graph):
        tensors = [tensor for tensor in graph.initializer if graph is not proto.graph or not _is_large(tensor, most)]
        for attribute in (attribute for node in graph.node for attribute in node.attribute):
            tensors += [*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors]
        for tensor in filter(_lies_beside, tensors):
            load_external_data_for_tensor(tensor, str(folder))
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")


def load_light(model: Model, *, most: int = SMALL) -> onnx.ModelProto:
    """Read a model into memory; of one above `EXTERNAL_ABOVE` large weights stay pointers into files of its folder.

    `most` as in `load_beside`.
    """
    import onnx

    proto = onnx.load(str(model.path), load_external_data=False)
    load_beside(proto, model.path.parent, most=most)
    return proto


def save_with_data(proto: onnx.ModelProto, interface: Interface, folder: Path | None) -> Model:
    """Write a model of which large weights may be pointers into files of `folder`; these are copied in pieces."""
    from onnx import TensorProto
    from onnx.external_data_helper import load_external_data_for_tensor

    if folder is None or not any(map(_lies_beside, proto.graph.initializer)):
        return save_model(proto, interface)
    writer = ModelWriter(expected_bytes=take_census(proto).weight_bytes)
    for weight in proto.graph.initializer:
        tensor = TensorProto()
        tensor.CopyFrom(weight)
        place = _place(tensor)
        if _lies_beside(tensor) and place is None:
            load_external_data_for_tensor(tensor, str(folder))
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
        if place is None:
            writer.add(tensor)
        else:
            writer.add_from(tensor, folder / place[0], *place[1:])
    return writer.finish(proto, interface)


def without_large_weights(
    proto: onnx.ModelProto, change: Callable[[onnx.ModelProto], onnx.ModelProto]
) -> onnx.ModelProto:
    """Let `change` work on the graph with weights that lie beside it as inputs, and give the result those weights.

    For what would encode the whole model, or would lose the pointers. Weights keep their names.
    """
    import onnx

    beside = [weight for weight in proto.graph.initializer if _lies_beside(weight)]
    if not beside:
        return change(proto)
    names = {weight.name for weight in beside}
    light = onnx.ModelProto()
    light.CopyFrom(proto)
    kept = [weight for weight in light.graph.initializer if weight.name not in names]
    del light.graph.initializer[:]
    light.graph.initializer.extend(kept)
    listed = {value.name for value in light.graph.input}
    light.graph.input.extend(
        onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
        for weight in beside
        if weight.name not in listed
    )
    changed = change(light)
    inputs = [value for value in changed.graph.input if value.name not in names or value.name in listed]
    del changed.graph.input[:]
    changed.graph.input.extend(inputs)
    changed.graph.initializer.extend(beside)
    return changed


def _place(tensor: onnx.TensorProto) -> tuple[str, int, int] | None:
    """Return the file, offset and length of data that lie beside; None where they do not, or are not all said."""
    where = {entry.key: entry.value for entry in tensor.external_data}
    offset, length = where.get("offset", "0"), where.get("length", "")
    if not _lies_beside(tensor) or not is_plain(where.get("location", "")):
        return None
    return (where["location"], int(offset), int(length)) if offset.isdecimal() and length.isdecimal() else None


def _lies_beside(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location == tensor.EXTERNAL)


def _is_large(tensor: onnx.TensorProto, most: int) -> bool:
    length = next((int(entry.value) for entry in tensor.external_data if entry.key == "length"), None)
    return length is None or length > most
