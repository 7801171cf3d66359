"""Write recipe_keys.md, every key that a recipe may hold, from the structures that decode it.

python docs/make_recipe_keys.py
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec
from msgspec.inspect import EnumType, Field, StructType, type_info

from convkit.request import OPTIONS, Request

PAGE = Path(__file__).resolve().parent / "recipe_keys.md"

HEAD = """\
# Keys of a recipe

Each key can also be given by its option, or as `--set table.key=value`. Written from the source by `make docs`.
"""


def page() -> str:
    """Return the text of recipe_keys.md."""
    lines = [HEAD]
    for names, kind in _tables():
        lines += [f"## {', '.join(f'`[{name}]`' for name in names)}" if names else "## At the top", ""]
        lines += ["| key | option | value | default | |", "|---|---|---|---|---|"]
        lines += _rows(names[0] if names else "", kind)
        lines.append("")
    return "\n".join(lines)


def _tables() -> list[tuple[list[str], StructType]]:
    """Return the names of the tables that one structure decodes, and the structure; the top has no name."""
    request = type_info(Request)
    assert isinstance(request, StructType)
    tables: dict[type, tuple[list[str], StructType]] = {Request: ([], request)}
    for field in request.fields:
        if isinstance(field.type, StructType):
            tables.setdefault(field.type.cls, ([], field.type))[0].append(field.encode_name)
    return list(tables.values())


def _rows(table: str, kind: StructType) -> Iterator[str]:
    said = _docstrings(kind.cls)
    for field in kind.fields:
        if isinstance(field.type, StructType):
            continue
        option = OPTIONS.get(f"{table}.{field.encode_name}".removeprefix("."), "")
        cells = [f"`{field.encode_name}`", option and f"`{option}`", _value(field.type), _default(field)]
        meaning = said.get(field.name) or (inspect.getdoc(field.type.cls) if isinstance(field.type, EnumType) else "")
        yield "| " + " | ".join([*cells, _for_toml(meaning or "")]) + " |"


def _value(info: Any) -> str:
    """Say in TOML's words what a key takes."""
    match info:
        case msgspec.inspect.UnionType():
            return " or ".join(_value(kind) for kind in info.types if not isinstance(kind, msgspec.inspect.NoneType))
        case EnumType():
            return ", ".join(f'`"{member.value}"`' for member in info.cls)
        case msgspec.inspect.LiteralType():
            return ", ".join(f'`"{value}"`' for value in info.values)
        case msgspec.inspect.VarTupleType():
            return f"list of {_value(info.item_type)}"
        case msgspec.inspect.DictType():
            return f"tables of {_value(info.value_type)}"
        case StructType():
            return ", ".join(f"`{field.encode_name}`" for field in info.fields)
        case msgspec.inspect.BoolType():
            return "`true`, `false`"
        case msgspec.inspect.IntType(ge=lowest, le=highest):
            return f"integer{_bounds(lowest, highest)}"
        case msgspec.inspect.FloatType(gt=lowest):
            return "number" + (f" > {lowest:g}" if lowest is not None else "")
        case msgspec.inspect.StrType():
            return "text"
        case _:
            raise TypeError(f"{info}: say what TOML calls that")


def _bounds(lowest: int | None, highest: int | None) -> str:
    if highest is not None:
        return f" {lowest}–{highest}"
    return f" ≥ {lowest}" if lowest is not None else ""


def _default(field: Field) -> str:
    value = field.default
    if field.required or value in (None, (), msgspec.NODEFAULT):
        return ""
    return f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    match value:
        case Enum():
            return f'"{value.value}"'
        case bool():
            return str(value).lower()
        case tuple():
            return f"[{', '.join(map(_toml, value))}]"
        case str():
            return f'"{value}"'
        case _:
            return str(value)


def _docstrings(kind: type) -> dict[str, str]:
    """Return the sentence below each field of a structure."""
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    said = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            said[ast.unparse(field.target)] = str(below.value.value)
    return said


def _for_toml(docstring: str) -> str:
    """Turn a docstring into a table's cell; TOML has no None, a key is left out instead."""
    text = " ".join(docstring.split()).replace("``", "`").replace("|", "\\|")
    return text.replace("None: ", "Left out: ").replace("; Left out", "; left out")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stderr.write(f"docs/{PAGE.name}\n")
