"""Texts inside an ONNX file, which the format wants in UTF-8 and protobuf reads whatever they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx


def broken_text(proto: onnx.ModelProto) -> str | None:
    """Return the name of a field whose text is no UTF-8, such as ``NodeProto.op_type``; None where all are.

    Weights' own data, which may be large, are not looked at.
    """
    return next(_broken(proto), None)


def _broken(message: Any) -> Iterator[str]:
    kind = message.DESCRIPTOR
    if kind.name == "TensorProto":
        found = [(kind.fields_by_name[name], getattr(message, name)) for name in ("name", "external_data")]
    else:
        found = message.ListFields()
    for field, value in found:
        if field.type == field.TYPE_STRING:
            if not all(isinstance(text, str) for text in (value if field.is_repeated else [value])):
                yield f"{kind.name}.{field.name}"
        elif field.message_type is not None:
            for inner in value if field.is_repeated else [value]:
                yield from _broken(inner)
