"""One weight at a time: reading those of a model on the disk and writing those of another, never all in memory.

weights = Weights(model)
writer = ModelWriter(large=...)
for name in weights.names: writer.add(change(weights.tensor(name)))
rewritten = writer.finish(proto, interface)      # the graph, without initializers of its own
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from convkit.errors import InputError
from convkit.graph.model import DATA_FILE, EXTERNAL_ABOVE, MODEL_FILE, Model
from convkit.graph.wire import BYTES, fields, key, mapped, varint
from convkit.pipeline.artifact import gather, new_folder
from convkit.spec.tensor import Interface

if TYPE_CHECKING:
    import numpy as np
    import onnx

SMALL = 1024
"""Bytes up to which a weight stays in the graph's file, whatever the others do: shapes and scalars belong there."""

_ALIGNMENT = 4096
_PIECE = 1 << 22
_PACKED = (8, 21, 22, 23, 25, 26, 27, 28)
"""Types of which elements are no whole bytes, or no numbers: strings, integers and floats of 4 bits and fewer."""


class Weights:
    """The initializers of a model's graph, read from its files when they are asked for."""

    def __init__(self, model: Model) -> None:
        import onnx

        self._path = model.path
        self._data = mapped(model.path)
        self._folder = model.path.parent
        model_graph = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
        initializer = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
        self._places: dict[str, tuple[int, int]] = {}
        for outer in fields(self._data):
            if outer.number != model_graph or outer.wire_type != BYTES:
                continue
            for inner in fields(self._data[outer.body : outer.end]):
                if inner.number == initializer and inner.wire_type == BYTES:
                    place = (outer.body + inner.body, outer.body + inner.end)
                    self._places[_name_of(self._data[slice(*place)])] = place

    @property
    def names(self) -> tuple[str, ...]:
        """Return the initializers' names, in the graph's order."""
        return tuple(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def tensor(self, name: str) -> onnx.TensorProto:
        """Return an initializer with its data, wherever they lie.

        Raises:
            InputError: its external data are not where the model says.
        """
        from onnx import TensorProto
        from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

        start, end = self._places[name]
        tensor = TensorProto.FromString(bytes(self._data[start:end]))
        if uses_external_data(tensor):
            try:
                load_external_data_for_tensor(tensor, str(self._folder))
            except (OSError, ValueError) as error:
                raise _unreadable(name, error) from error
            tensor.ClearField("external_data")
            tensor.data_location = TensorProto.DEFAULT
        return tensor

    def array(self, name: str) -> np.ndarray[Any, Any]:
        """Return an initializer's numbers, in memory once.

        Raises:
            InputError: as `tensor`.
        """
        import numpy as np
        from onnx import TensorProto, helper, numpy_helper

        raw = TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number
        start, end = self._places[name]
        header, place = bytearray(), None
        for field in fields(self._data[start:end]):
            if field.number == raw and field.wire_type == BYTES:
                place = (start + field.body, field.end - field.body)
            else:
                header += self._data[start + field.start : start + field.end]
        tensor = TensorProto.FromString(bytes(header))
        path = self._path
        if tensor.data_location == TensorProto.EXTERNAL:
            where = {entry.key: entry.value for entry in tensor.external_data}
            path = self._folder / where["location"]
            place = (int(where.get("offset", 0)), int(where.get("length", -1)))
        if place is None or tensor.data_type in _PACKED:
            values: np.ndarray[Any, Any] = numpy_helper.to_array(self.tensor(name))
            return values
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        try:
            values = np.fromfile(path, dtype, math.prod(tensor.dims), offset=place[0])
            return values.reshape(tuple(tensor.dims))
        except (OSError, ValueError) as error:
            raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> InputError:
    return InputError(
        f"the weight '{name}' cannot be read from its file: {error}",
        hint="keep the model's external data beside it",
        code="onnx.external-data",
    )


def _name_of(tensor: memoryview) -> str:
    import onnx

    number = onnx.TensorProto.DESCRIPTOR.fields_by_name["name"].number
    for field in fields(tensor):
        if field.number == number and field.wire_type == BYTES:
            return bytes(tensor[field.body : field.end]).decode()
    return ""


class ModelWriter:
    """Writes a model weight by weight. The same weights in the same order give the same bytes.

    Args:
        expected_bytes: roughly what the weights will take; above `EXTERNAL_ABOVE` they go beside the graph.
    """

    def __init__(self, *, expected_bytes: int) -> None:
        self._folder = new_folder("model")
        self._external = expected_bytes > EXTERNAL_ABOVE
        self._spool: BinaryIO = (self._folder / (DATA_FILE if self._external else "weights.spool")).open("w+b")
        self._small: list[bytes] = []

    def add(self, tensor: onnx.TensorProto) -> None:
        """Write a weight, which must hold its data itself."""
        if self._external and len(tensor.raw_data) > SMALL:
            self._small.append(_message(self._put_beside(tensor)))
        elif self._external:
            self._small.append(_message(tensor))
        else:
            self._spool.write(_message(tensor))

    def finish(self, proto: onnx.ModelProto, interface: Interface) -> Model:
        """Write the graph and return the model. Initializers that `proto` still holds are left out."""
        import onnx

        with self._spool:
            rest, graph = onnx.ModelProto(), onnx.GraphProto()
            rest.CopyFrom(proto)
            rest.ClearField("graph")
            graph.CopyFrom(proto.graph)
            graph.ClearField("initializer")
            head = graph.SerializeToString(deterministic=True) + b"".join(self._small)
            spooled = 0 if self._external else self._spool.tell()
            number = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
            with (self._folder / MODEL_FILE).open("wb") as stream:
                stream.write(rest.SerializeToString(deterministic=True))
                stream.write(key(number) + varint(len(head) + spooled) + head)
                if not self._external:
                    self._spool.seek(0)
                    while chunk := self._spool.read(1 << 22):
                        stream.write(chunk)
        if not self._external:
            Path(self._spool.name).unlink()
        return Model(files=gather(self._folder), interface=interface)

    def add_from(self, tensor: onnx.TensorProto, path: Path, offset: int, length: int) -> None:
        """Write a weight whose `raw_data` lie in a file: what is large is never in memory.

        Raises:
            InputError: the file ends before.
        """
        with path.open("rb") as stream:
            if not self._external or length <= SMALL:
                stream.seek(offset)
                tensor.raw_data = stream.read(length)
                self.add(tensor)
                return
            try:
                place = copy_piece(stream, offset, length, self._spool)
            except EOFError as error:
                raise _unreadable(tensor.name, error) from error
            self._small.append(_message(point_to(tensor, DATA_FILE, place, length)))

    def _put_beside(self, tensor: onnx.TensorProto) -> onnx.TensorProto:
        """Write the data into the file beside, and return the tensor that points there."""
        from onnx import TensorProto

        self._spool.write(bytes(-self._spool.tell() % _ALIGNMENT))
        offset, length = self._spool.tell(), len(tensor.raw_data)
        self._spool.write(tensor.raw_data)
        pointer = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        return point_to(pointer, DATA_FILE, offset, length)


def copy_piece(source: BinaryIO, start: int, length: int, target: BinaryIO) -> int:
    """Copy a part of a file to the end of another, where a page can begin; return at which byte that is.

    Raises:
        EOFError: the file ends before.
    """
    target.write(bytes(-target.tell() % _ALIGNMENT))
    offset = target.tell()
    source.seek(start)
    while length:
        piece = source.read(min(length, _PIECE))
        if not piece:
            raise EOFError(f"{Path(source.name).name} ends {length} bytes too early")
        target.write(piece)
        length -= len(piece)
    return offset


def point_to(tensor: onnx.TensorProto, file: str, offset: int, length: int) -> onnx.TensorProto:
    """Let a tensor without data say where these lie; it is changed in place and returned."""
    tensor.data_location = tensor.EXTERNAL
    for name, value in (("location", file), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=name, value=value)
    return tensor


def _message(tensor: onnx.TensorProto) -> bytes:
    import onnx

    number = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
    data = tensor.SerializeToString(deterministic=True)
    return key(number) + varint(len(data)) + bytes(data)
