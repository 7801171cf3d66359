"""Recipes: a TOML file that holds any option, and one typed decoding for recipe, environment and command line."""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from convkit.errors import InputError, UsageError
from convkit.spec.json_syntax import MAX_BYTES
from convkit.spec.locate import KeyPath, toml_line
from convkit.spec.wording import did_you_mean, key_path, shown

T = TypeVar("T")
Table = dict[str, Any]

_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?P<where>.*)`)?$", re.DOTALL)
_UNKNOWN_FIELD = re.compile(r"unknown field `(?P<field>[^`]*)`")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_MOST_OPEN = 32
_MANY_PARTS = re.compile(rf"(?<![\w.\"'-])(?:[\w\"'-]++\s*+\.\s*+){{{_MOST_OPEN}}}")
"""A dotted key of so many parts: the time that tomllib takes grows with the square of their number."""
_ANY = "..."
"""What msgspec puts for the key of a mapping."""
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text in quotes",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}
_TYPES = re.compile(rf"`((?:{'|'.join([*_WORDS, 'null'])})(?: \| (?:{'|'.join([*_WORDS, 'null'])}))*)`")
_SYNTAX_PLACE = re.compile(r"^(?P<what>.*) \(at line (?P<line>\d+), column (?P<column>\d+)\)$", re.DOTALL)


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """A recipe's text and what it says."""

    path: Path
    text: str
    table: Table
    name: str
    """What messages call it: the file's name, for one that is extended its path from there."""


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """A table of keys that wins over those before it."""

    table: Table
    recipe: Recipe | None = None
    """The recipe that says so; None for what stands in none."""
    at: KeyPath = ()
    """Where in the recipe the table stands; () for the whole of it."""


def read_recipe(path: Path, *, name: str | None = None) -> Recipe:
    """Read one recipe as it stands; `convkit.spec.inheritance` follows what it extends.

    Raises:
        InputError: the file is missing, not UTF-8, or no TOML; the message names the line.
    """
    name = name or path.name
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise InputError(
                f"--recipe {path} is larger than 256 KiB, which no recipe is",
                hint="a recipe is a TOML file of a few lines",
                code="recipe.unreadable",
            )
        text = content.decode().replace("\r\n", "\n")
        if _MANY_PARTS.search(text):
            raise _nested(name)
        table = tomllib.loads(text)
    except FileNotFoundError as error:
        raise InputError(f"--recipe {path} does not exist", hint="check the path", code="recipe.missing") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--recipe {path} cannot be read: {error}",
            hint="a recipe is a TOML file in UTF-8",
            code="recipe.unreadable",
        ) from error
    except (ValueError, RecursionError) as error:  # tomllib's own is a ValueError, as that of a number too long
        at = _SYNTAX_PLACE.match(str(error))
        raise InputError(
            f"{name}, line {at['line']}, column {at['column']}: {at['what']}" if at else f"{name}: {error}",
            hint='a recipe is TOML: key = "value" under [table] headings',
            code="recipe.syntax",
        ) from error
    if _is_deep(table):
        raise _nested(name)
    return Recipe(path=path, text=text, table=table, name=name)


def _nested(name: str) -> InputError:
    return InputError(
        f"{name}: more than {_MOST_OPEN} tables and lists lie in each other",
        hint="a recipe is two deep: tables, and the keys in them",
        code="recipe.nesting",
    )


def _is_deep(table: Table) -> bool:
    level: list[Any] = [table]
    for _ in range(_MOST_OPEN):
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list)
        ]
    return bool(level)


def merge(*tables: Table) -> Table:
    """Lay tables over each other, key by key; the later ones win."""
    merged: Table = {}
    for table in tables:
        for key, value in table.items():
            below = merged.get(key)
            merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def decode(kind: type[T], layers: Sequence[Layer], *, option_for: Callable[[str], str | None]) -> T:
    """Decode what recipes, environment and command line say together.

    Args:
        kind: the structure to make.
        layers: the weakest first.
        option_for: gives the command-line option that sets a dotted key, if there is one.

    Raises:
        InputError: the mistake stands in a recipe.
        UsageError: it stands anywhere else.
    """
    merged = merge(*(layer.table for layer in layers))
    try:
        return msgspec.convert(merged, type=kind, strict=True)
    except msgspec.ValidationError as error:
        match = _AT.match(str(error))
        what, where = (match["what"], match["where"] or "$") if match else (str(error), "$")
        path = _with_keys(
            tuple(key or (index if index == _ANY else int(index)) for key, index in _STEP.findall(where)), merged
        )
        unknown = _UNKNOWN_FIELD.search(what)
        if unknown:
            path = (*path, unknown["field"])
            what, hint = f"there is no key '{path[-1]}'", _nearest_key(kind, path)
        else:
            what, hint = _in_plain_words(what, kind, path, _value_at(merged, path))
        raise _complaint(path, what, hint, _origin(layers, path), option_for) from error


@contextlib.contextmanager
def explaining(dotted: str, layers: Sequence[Layer], *, option_for: Callable[[str], str | None]) -> Iterator[None]:
    """Let a refusal of one key's value say where that value stands; for what types alone cannot tell.

    Args:
        dotted: the key; the others are those of `decode`.

    Raises:
        InputError: for a UsageError raised inside, when the value stands in a recipe.
        UsageError: when it stands anywhere else.
    """
    path: KeyPath = tuple(dotted.split("."))
    try:
        yield
    except UsageError as error:
        origin = _origin(layers, path)
        raise _complaint(path, error.message, error.hint, origin, option_for, code=error.code) from error


def _origin(layers: Sequence[Layer], path: KeyPath) -> Layer | None:
    """Return the layer whose value at a path wins."""
    return next((layer for layer in reversed(layers) if _holds(layer.table, path)), None)


def _complaint(
    path: KeyPath,
    what: str,
    hint: str,
    origin: Layer | None,
    option_for: Callable[[str], str | None],
    *,
    code: str | None = None,
) -> InputError | UsageError:
    """Name the place of a mistake: the recipe's line where a recipe made it, else the option."""
    if origin is None or origin.recipe is None:
        option = option_for(".".join(map(str, path))) or key_path(path)
        return UsageError(f"{option}: {what}", hint=hint, code=code or "usage.value")
    place = place_of(origin.recipe, path, at=origin.at)
    return InputError(f"{place}: {what}", hint=hint, code=code or "recipe.value")


def place_of(recipe: Recipe, path: KeyPath, *, at: KeyPath = ()) -> str:
    """Return how messages name a key: file, line, and the key itself, seen from the table that stands at `at`."""
    line = toml_line(recipe.text, (*at, *path))
    where = f"{recipe.name}, line {line}" if line else recipe.name
    return f"{where}: {key_path(path)}" if path else where


def _nearest_key(kind: type[Any], path: KeyPath) -> str:
    refused = getattr(getattr(_type_at(kind, path[:-1]), "cls", None), "REFUSED", {})
    if path[-1] in refused:
        return str(refused[path[-1]])
    known = _fields(kind, path[:-1])
    return did_you_mean(str(path[-1]), known).rstrip() or f"known keys: {', '.join(known)}"


def _in_plain_words(what: str, kind: type[Any], path: KeyPath, value: Any) -> tuple[str, str]:
    choices = _choices(kind, path)
    if what.startswith("Invalid enum value") and choices:
        given = what.removeprefix("Invalid enum value").strip()
        return f"{given} is none of the choices", f"choose one of {', '.join(choices)}"
    if missing := re.search(r"missing required field `([^`]*)`", what):
        return f"{missing[1]} is missing", "give it on the command line or in the recipe"
    words = _TYPES.sub(
        lambda match: " or ".join(_WORDS[word] for word in match[1].split(" | ") if word != "null"), what
    )
    words = words[:1].lower() + words[1:]
    if ", got " not in words and value is not None:
        words += f", got {shown(value)}"
    return words, f"choose one of {', '.join(choices)}" if choices else "give a value of that kind"


def _with_keys(path: KeyPath, merged: Table) -> KeyPath:
    """Put the key in for every `_ANY` of a path where only one can be meant, else end the path there."""
    while _ANY in path:
        at = path.index(_ANY)
        table = _value_at(merged, path[:at])
        meant = [key for key in table if _holds(table[key], path[at + 1 :])] if isinstance(table, dict) else []
        path = (*path[:at], meant[0], *path[at + 1 :]) if len(meant) == 1 else path[:at]
    return path


def _value_at(table: Any, path: KeyPath) -> Any:
    """Return what stands at a path; None where nothing does."""
    if not _holds(table, path):
        return None
    for part in path:
        table = table[part]
    return table


def _holds(table: Any, path: KeyPath) -> bool:
    for part in path:
        if not isinstance(table, dict | list):
            return False
        try:
            table = table[part]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def _type_at(kind: Any, path: KeyPath) -> Any:
    """Return msgspec's description of the type at a path, seen through unions with None."""
    info: Any = msgspec.inspect.type_info(kind)
    for part in path:
        info = _concrete(info)
        if isinstance(info, msgspec.inspect.StructType):
            info = next((field.type for field in info.fields if field.encode_name == part), None)
        elif isinstance(info, msgspec.inspect.VarTupleType | msgspec.inspect.ListType):
            info = info.item_type
        elif isinstance(info, msgspec.inspect.DictType):
            info = info.value_type
        else:
            return None
        if info is None:
            return None
    return _concrete(info)


def _concrete(info: Any) -> Any:
    if isinstance(info, msgspec.inspect.UnionType):
        return next((t for t in info.types if not isinstance(t, msgspec.inspect.NoneType)), info)
    return info


def _fields(kind: Any, path: KeyPath) -> list[str]:
    info = _type_at(kind, path)
    return [field.encode_name for field in info.fields] if isinstance(info, msgspec.inspect.StructType) else []


def _choices(kind: Any, path: KeyPath) -> list[str]:
    info = _type_at(kind, path)
    if isinstance(info, msgspec.inspect.EnumType):
        return [str(member.value) for member in info.cls]
    if isinstance(info, msgspec.inspect.LiteralType):
        return [str(value) for value in info.values]
    return []


def parse_setting(text: str) -> Table:
    """Turn ``table.key=value`` into a table; the value is TOML, or a text as it stands.

    Raises:
        UsageError: it has no ``=`` or no key.
    """
    key, equals, value = text.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise UsageError(
            f"--set {text}: it should read TABLE.KEY=VALUE",
            hint="for example --set triton.instances=2",
            code="usage.set",
        )
    try:
        parsed = tomllib.loads(f"value = {value.strip()}")["value"]
    except (ValueError, RecursionError):
        parsed = value.strip()
    for part in reversed(parts):
        parsed = {part: parsed}
    return dict(parsed)
