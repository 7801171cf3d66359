"""JSON and TOML spoiled by their fields: another value, another type, a key too many, one too few."""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Sequence
from random import Random
from typing import Any

from convkit.written import toml
from fuzz.mutate import NUMBERS, TEXTS, spoil_text


def spoil_json(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Change a JSON document's values; spoil its text where it is none."""
    try:
        tree = json.loads(data)
        grafts = [json.loads(other) for other in others]
    except ValueError:
        return spoil_text(chance, data, others)
    return json.dumps(spoil_tree(chance, tree, grafts), indent=chance.choice((None, 1))).encode()


def spoil_toml(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Change a TOML document's values; spoil its text where it is none."""
    try:
        tree = tomllib.loads(data.decode())
        grafts = [tomllib.loads(other.decode()) for other in others]
    except ValueError:
        return spoil_text(chance, data, others)
    spoilt = spoil_tree(chance, tree, grafts)
    if not isinstance(spoilt, dict):
        return spoil_text(chance, data, others)
    lines = [f"{toml(str(key))} = {_toml(value)}" for key, value in spoilt.items()]
    return "\n".join(lines).encode("utf-8", "replace")


def _toml(value: Any) -> str:
    return '"none"' if value is None else toml(_without_none(value))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _without_none(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_none(inner) for inner in value]
    return "none" if value is None else value


def spoil_tree(chance: Random, tree: Any, grafts: Sequence[Any]) -> Any:
    """Return a copy with a few members changed."""
    tree = copy.deepcopy(tree)
    for _ in range(chance.choice((1, 1, 2, 4))):
        places = list(_places(tree))
        if not places:
            return _value(chance, grafts)
        holder, key = chance.choice(places)
        match chance.randrange(6):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[chance.choice((*TEXTS, *map(str, holder)))] = _value(chance, grafts)
            case 2 if isinstance(holder, dict):
                holder[str(key) + chance.choice(("", "s", "_", "."))] = holder.pop(key)
            case 1 | 2:
                holder.insert(key, copy.deepcopy(holder[key]))
            case 3:
                holder[key] = [holder[key]] * chance.choice((0, 1, 2, 40))
            case 4 if isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
                holder[key] = chance.choice((holder[key] + 1, -holder[key], holder[key] * 10**6, str(holder[key])))
            case _:
                holder[key] = _value(chance, grafts)
    return tree


def _places(tree: Any) -> Any:
    members = list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)) if isinstance(tree, list) else []
    for key, inner in members:
        yield tree, key
        yield from _places(inner)


def _value(chance: Random, grafts: Sequence[Any]) -> Any:
    places = list(_places(chance.choice(grafts)))
    grafted = [holder[key] for holder, key in chance.sample(places, 1)] if places else []
    plain = (None, True, False, {}, [], 0.5, -0.0, 1e308, chance.choice(NUMBERS), chance.choice(TEXTS))
    return copy.deepcopy(chance.choice([*plain, *grafted * 4]))
