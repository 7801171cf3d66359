"""What a recipe takes from elsewhere: the recipe that it extends, and the variables that it declares."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from convkit.errors import InputError
from convkit.spec.locate import KeyPath
from convkit.spec.paths import refuse_impossible_path
from convkit.spec.recipe import Recipe, Table, place_of, read_recipe
from convkit.spec.wording import shown

LONGEST_CHAIN = 8
"""Recipes that extend each other, the first included."""

EXTENDS, ENV = "extends", "env"

_VARIABLE = re.compile(r"\$?\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def read_chain(
    path: Path, *, environment: Mapping[str, str] = os.environ, root: Path | None = None
) -> tuple[Recipe, ...]:
    """Read a recipe and those that it extends, the farthest first; in each, declared variables are filled in.

    Args:
        path: the recipe.
        environment: the variables.
        root: the folder from which messages name the files; by default the recipe's own.

    Raises:
        InputError: a recipe cannot be read, extends itself, extends too many, or uses a variable that it does not
            declare or that has no value.
    """
    chain: list[Recipe] = []
    seen: list[Path] = []
    root = root or path.parent
    found, name = path, os.path.relpath(path, root)
    while True:
        seen.append(found.resolve())
        recipe = read_recipe(found, name=name)
        recipe = msgspec.structs.replace(recipe, table=_filled(recipe, environment))
        below = recipe.table.pop(EXTENDS, None)
        chain.insert(0, recipe)
        if below is None:
            return tuple(chain)
        found, name = extended_by(recipe, below, root)
        _refuse_endless(recipe, found, seen)


def extended_by(recipe: Recipe, below: Any, root: Path, *, at: KeyPath = ()) -> tuple[Path, str]:
    """Return the path that `extends`, in the table at `at`, names, and what messages call it.

    Raises:
        InputError: it is no path, or there is no such file.
    """
    if not isinstance(below, str) or not below:
        raise InputError(
            f"{place_of(recipe, (EXTENDS,), at=at)}: expected a path in quotes, got {shown(below)}",
            hint="name one recipe",
            code="recipe.extends",
        )
    found = recipe.path.parent / below
    refuse_impossible_path(str(found), where=place_of(recipe, (EXTENDS,), at=at))
    if not found.is_file():
        problem = "is no file" if found.exists() else "does not exist"
        raise InputError(
            f"{place_of(recipe, (EXTENDS,), at=at)}: {shown(below)} {problem}",
            hint="paths in a recipe are seen from where it lies",
            code="recipe.extends",
        )
    return found, os.path.relpath(found, root)


def _refuse_endless(recipe: Recipe, found: Path, seen: list[Path]) -> None:
    if found.resolve() in seen:
        raise InputError(
            f"{place_of(recipe, (EXTENDS,))}: {' -> '.join(path.name for path in [*seen, found])} is a circle",
            hint="a recipe cannot extend itself: take one of them out",
            code="recipe.extends",
        )
    if len(seen) == LONGEST_CHAIN:
        raise InputError(
            f"{place_of(recipe, (EXTENDS,))}: more than {LONGEST_CHAIN} recipes extend each other",
            hint="put some of them together",
            code="recipe.extends",
        )


def _filled(recipe: Recipe, environment: Mapping[str, str]) -> Table:
    """Return a recipe's table without `env`, each ``${NAME}`` in its texts replaced."""
    table = dict(recipe.table)
    declared = _declared(recipe, table.pop(ENV, None))

    def value_of(name: str, path: KeyPath) -> str:
        if name not in declared:
            raise InputError(
                f"{place_of(recipe, path)}: the variable {name} is not declared",
                hint=f'declare it at the top: env = ["{name}"]; $${{{name}}} stands for the text itself',
                code="recipe.variable",
            )
        value = environment.get(name) or declared[name]
        if value is None:
            raise InputError(
                f"{place_of(recipe, path)}: the variable {name} is not set",
                hint=f'set it in the environment, or give it a default: env = {{ {name} = "..." }}',
                code="recipe.variable",
            )
        return value

    def fill(value: Any, path: KeyPath) -> Any:
        match value:
            case dict():
                return {key: fill(inner, (*path, key)) for key, inner in value.items()}
            case list():
                return [fill(inner, (*path, index)) for index, inner in enumerate(value)]
            case str():
                return _VARIABLE.sub(
                    lambda found: found[0][1:] if found[0].startswith("$$") else value_of(found[1], path), value
                )
            case _:
                return value

    filled: Table = fill(table, ())
    return filled


def _declared(recipe: Recipe, env: Any) -> dict[str, str | None]:
    """Return the variables that a recipe declares, each with its default."""
    match env:
        case None:
            return {}
        case list() if all(isinstance(name, str) for name in env):
            declared: dict[str, str | None] = dict.fromkeys(env)
        case dict() if all(isinstance(default, str) for default in env.values()):
            declared = dict(env)
        case _:
            raise InputError(
                f"{place_of(recipe, (ENV,))}: expected a list of names, or a table of names with default texts",
                hint='env = ["DATA_DIR"], or env = { DATA_DIR = "data" }',
                code="recipe.env",
            )
    wrong = next((name for name in declared if not _VARIABLE_NAME.fullmatch(name)), None)
    if wrong is not None:
        raise InputError(
            f"{place_of(recipe, (ENV,))}: {shown(wrong)} is not a variable's name",
            hint="letters, digits and _ make a name",
            code="recipe.env",
        )
    return declared
