"""What each field of a structure means: the sentence below it in the source."""

from __future__ import annotations

import ast
import inspect
import textwrap

import msgspec


def meanings(kind: type[msgspec.Struct]) -> dict[str, str]:
    """Return, by the name that a field has in a document, the docstring that stands below it; inherited ones too.

    A field whose type is an enumeration and that has none of its own means what the enumeration says of itself. Where
    the source is not at hand, nothing is returned.
    """
    said: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if issubclass(base, msgspec.Struct) and base is not msgspec.Struct:
            said |= _docstrings(base)
    found = {}
    for field in msgspec.inspect.type_info(kind).fields:  # type: ignore[attr-defined]
        text = said.get(field.name)
        if text is None and isinstance(field.type, msgspec.inspect.EnumType):
            text = inspect.getdoc(field.type.cls)
        if text:
            found[field.encode_name] = " ".join(text.split())
    return found


def _docstrings(kind: type) -> dict[str, str]:
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    except (OSError, TypeError):
        return {}
    assert isinstance(body, ast.ClassDef)
    said = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                said[name] = text
    return said
