"""A request as the recipe that asks for the same."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from convkit.errors import UsageError
from convkit.pipeline.cache import write_atomically
from convkit.request import PATHS, Request, is_path, texts_of
from convkit.spec.meanings import meanings
from convkit.spec.wording import printable

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST = 100


def write_recipe(request: Request, path: Path, *, command: str = "") -> None:
    """Write the recipe of a request: every key that is not what it is by default, and what each means.

    Args:
        request: what was asked for.
        path: the file; one that is there must say the same.
        command: the command line that asked for it, for the first line.

    Raises:
        UsageError: the file is there and says something else, or its folder is not.
    """
    text = recipe_of(request, path.parent, command=command)
    if path.exists() and not (path.is_file() and path.read_bytes() == text.encode()):
        raise UsageError(
            f"--write-recipe {path}: it is there already, and says something else",
            hint="name another file, or remove it first",
            code="recipe.exists",
        )
    if not path.parent.is_dir():
        raise UsageError(
            f"--write-recipe {path}: there is no folder {path.parent}", hint="make it first", code="recipe.no-folder"
        )
    write_atomically(path, text.encode())


def recipe_of(request: Request, folder: Path, *, command: str = "") -> str:
    """Return the text of a recipe in `folder` that asks for the same."""
    table = msgspec.to_builtins(request)
    default = msgspec.to_builtins(Request(model=""))
    said = meanings(type(request))
    lines = [f"# {printable(command, longest=1000)}", ""] if command else []
    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    lines += _keys(plain, default, said, "", folder)
    for name, inner in table.items():
        if isinstance(inner, dict):
            kind = type(getattr(request, _attribute(request, name)))
            keys = list(_keys(inner, default.get(name, {}), meanings(kind), name, folder))
            lines += ["", f"[{_key(name)}]", *keys] if keys else []
    return "\n".join(lines).lstrip("\n") + "\n"


def _attribute(request: Request, name: str) -> str:
    encoded = dict(zip(request.__struct_encode_fields__, request.__struct_fields__, strict=True))
    return encoded[name]


def _keys(
    table: Mapping[str, Any], default: Mapping[str, Any], said: Mapping[str, str], name: str, folder: Path
) -> Iterator[str]:
    for key, value in table.items():
        if value is None or (key in default and value == default[key]):
            continue
        if key in said:
            yield from textwrap.wrap(
                said[key].replace("``", "`"), _LONGEST, initial_indent="# ", subsequent_indent="# "
            )
        dotted = f"{name}.{key}".removeprefix(".")
        if dotted in PATHS and (texts := texts_of(value)):
            there = [
                os.path.relpath(t, folder) if is_path(dotted, t) and not Path(t).is_absolute() else t for t in texts
            ]
            value = there[0] if isinstance(value, str) else there
        yield f"{_key(key)} = {toml(value)}"


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else toml(name)


def toml(value: Any) -> str:
    """Return a value as TOML; ``${NAME}`` in a text is no variable there."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            quoted = _quoted(value)
            return re.sub(r"\$(?=\{[A-Za-z_][A-Za-z0-9_]*\})", "$$", quoted)
        case int():
            return str(value)
        case float():
            return repr(value)
        case Mapping():
            return "{ " + ", ".join(f"{_key(key)} = {toml(inner)}" for key, inner in value.items()) + " }"
        case _:
            return "[" + ", ".join(map(toml, value)) + "]"


def _quoted(text: str) -> str:
    try:
        return msgspec.json.encode(text).decode().replace("\x7f", "\\u007f")
    except UnicodeEncodeError as error:
        raise UsageError(
            f"--write-recipe: '{printable(text)}' is no Unicode, which a recipe is",
            hint="rename the file",
            code="recipe.no-unicode",
        ) from error
