"""Recipes: a TOML file that holds any option, and one typed decoding for recipe, environment and command line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from convkit.errors import InputError, UsageError
from convkit.spec.locate import toml_line
from convkit.spec.wording import did_you_mean

T = TypeVar("T")
Table = dict[str, Any]
Path_ = tuple[str | int, ...]

_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?P<where>.*)`)?$", re.DOTALL)
_UNKNOWN_FIELD = re.compile(r"unknown field `(?P<field>[^`]*)`")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """A recipe's text and what it says."""

    path: Path
    text: str
    table: Table


def read_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        InputError: the file is missing, not UTF-8, or no TOML; the message names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return Recipe(path=path, text=text, table=tomllib.loads(text))
    except FileNotFoundError as error:
        raise InputError(f"--recipe {path} does not exist", hint="check the path", code="recipe.missing") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--recipe {path} cannot be read: {error}",
            hint="a recipe is a TOML file in UTF-8",
            code="recipe.unreadable",
        ) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(
            f"{path.name}: {error}",
            hint='a recipe is TOML: key = "value" under [table] headings',
            code="recipe.syntax",
        ) from error


def merge(*tables: Table) -> Table:
    """Lay tables over each other, key by key; the later ones win."""
    merged: Table = {}
    for table in tables:
        for key, value in table.items():
            below = merged.get(key)
            merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def decode(
    kind: type[T], layers: Mapping[str, Table], *, recipe: Recipe | None, option_for: Callable[[str], str | None]
) -> T:
    """Decode what recipe, environment and command line say together.

    Args:
        kind: the structure to make.
        layers: tables by where they come from, the weakest first.
        recipe: the recipe among them, for line numbers.
        option_for: gives the command-line option that sets a dotted key, if there is one.

    Raises:
        InputError: the mistake stands in the recipe.
        UsageError: it stands anywhere else.
    """
    try:
        return msgspec.convert(merge(*layers.values()), type=kind, strict=True)
    except msgspec.ValidationError as error:
        match = _AT.match(str(error))
        what, where = (match["what"], match["where"] or "$") if match else (str(error), "$")
        path: Path_ = tuple(int(i) if i and i.isdigit() else k for k, i in _STEP.findall(where) if k or i.isdigit())
        unknown = _UNKNOWN_FIELD.search(what)
        if unknown:
            path = (*path, unknown["field"])
        raise _mistake(what, path, unknown is not None, kind, layers, recipe, option_for) from error


def _mistake(
    what: str,
    path: Path_,
    is_unknown: bool,
    kind: type[Any],
    layers: Mapping[str, Table],
    recipe: Recipe | None,
    option_for: Callable[[str], str | None],
) -> InputError | UsageError:
    dotted = ".".join(map(str, path))
    origin = next((name for name, table in reversed(list(layers.items())) if _holds(table, path)), "")
    if is_unknown:
        known = _fields(kind, path[:-1])
        what = f"there is no key '{path[-1]}'"
        hint = did_you_mean(str(path[-1]), known) or f"known keys: {', '.join(known)}"
    else:
        what, hint = _in_plain_words(what, kind, path)
    if recipe is not None and origin == str(recipe.path):
        line = toml_line(recipe.text, path)
        place = f"{recipe.path.name}, line {line}" if line else recipe.path.name
        return InputError(f"{place}: {dotted}: {what}", hint=hint, code="recipe.value")
    option = option_for(dotted) or dotted
    return UsageError(f"{option}: {what}", hint=hint, code="usage.value")


def _in_plain_words(what: str, kind: type[Any], path: Path_) -> tuple[str, str]:
    choices = _choices(kind, path)
    if what.startswith("Invalid enum value") and choices:
        given = what.removeprefix("Invalid enum value").strip()
        return f"{given} is none of the choices", f"choose one of {', '.join(choices)}"
    if missing := re.search(r"missing required field `([^`]*)`", what):
        return f"{missing[1]} is missing", "give it on the command line or in the recipe"
    words = (
        what.replace("`int`", "a whole number").replace("`str`", "a text in quotes").replace("`bool`", "true or false")
    )
    words = words.replace("`float`", "a number").replace("`array`", "a list").replace("`object`", "a table")
    return words, f"choose one of {', '.join(choices)}" if choices else "give a value of that kind"


def _holds(table: Any, path: Path_) -> bool:
    for part in path:
        if not isinstance(table, dict | list):
            return False
        try:
            table = table[part]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def _type_at(kind: Any, path: Path_) -> Any:
    """Return msgspec's description of the type at a path, seen through unions with None."""
    info: Any = msgspec.inspect.type_info(kind)
    for part in path:
        info = _concrete(info)
        if isinstance(info, msgspec.inspect.StructType):
            info = next((field.type for field in info.fields if field.encode_name == part), None)
        elif isinstance(info, msgspec.inspect.VarTupleType | msgspec.inspect.ListType):
            info = info.item_type
        else:
            return None
        if info is None:
            return None
    return _concrete(info)


def _concrete(info: Any) -> Any:
    if isinstance(info, msgspec.inspect.UnionType):
        return next((t for t in info.types if not isinstance(t, msgspec.inspect.NoneType)), info)
    return info


def _fields(kind: Any, path: Path_) -> list[str]:
    info = _type_at(kind, path)
    return [field.encode_name for field in info.fields] if isinstance(info, msgspec.inspect.StructType) else []


def _choices(kind: Any, path: Path_) -> list[str]:
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
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    for part in reversed(parts):
        parsed = {part: parsed}
    return dict(parsed)
