"""JSON Schemas of what convkit reads and writes: for editors, and for whoever checks before they call."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from convkit.fleet import Fleet
from convkit.hosting import Serving
from convkit.preflighting import Preflight
from convkit.report.checkup import Checkup
from convkit.report.document import Built, Report, Result
from convkit.report.inspection import Inspection
from convkit.request import Request, request_type
from convkit.spec.entry_points import entry_points
from convkit.spec.inheritance import ENV, EXTENDS
from convkit.spec.meanings import meanings
from convkit.spec.metadata import DATA_TYPES, LARGEST_DIM, LONGEST_NAME, MOST_DIMS
from convkit.targets.target import GROUP

Schema = dict[str, Any]

DRAFT = "https://json-schema.org/draft/2020-12/schema"

_PLAIN_TEXT = r"^(?![A-Za-z]:[/\\])(?!/)(?!\s)[^\\\u0000-\u001f\u007f-\u009f\u2028\u2029]+(?<!\s)$"
"""A tensor's name: no path, no control character, no white space at its ends."""


def schema(of: str) -> Schema:
    """Return the JSON Schema of one of `SCHEMAS`, such as ``recipe``."""
    return {"$schema": DRAFT, "title": f"convkit {of}", **SCHEMAS[of]()}


def recipe_schema() -> Schema:
    """Return what a recipe may hold: a `Request`, nothing of it required, `extends`, `env` and ``[[model]]`` tables.

    The schema holds for every text that convkit takes; which values go together, it does not say. The tables of targets
    that others have written are in it where they are installed.

    Raises:
        MissingError: one of those targets cannot be loaded.
    """
    kind = request_type(set(entry_points(GROUP)) - set(Request.__struct_encode_fields__))
    (top,), components = msgspec.json.schema_components((kind,), ref_template="#/$defs/{name}")
    name = top["$ref"].rpartition("/")[2]
    _describe(components, _kinds(kind))
    one = {**components.pop(name)}
    one.pop("required", None)
    one.pop("title", None)
    extends: Schema = {"type": "string", "minLength": 1, "description": "A recipe that this one adds to."}
    keys = {EXTENDS: extends, **one["properties"]}
    model = {**keys, "model": {"type": "string"}}
    env: Schema = {
        "description": "Environment variables that stand as ${NAME} in texts: names, or names with defaults.",
        "anyOf": [
            {"type": "array", "items": {"$ref": "#/$defs/VariableName"}},
            {
                "type": "object",
                "propertyNames": {"$ref": "#/$defs/VariableName"},
                "additionalProperties": {"type": "string"},
            },
        ],
    }
    several: Schema = {
        "description": "Several models; each table holds what a recipe may hold.",
        "type": "array",
        "minItems": 1,
        "items": {"type": "object", "properties": model, "required": ["model"], "additionalProperties": False},
    }
    properties = {ENV: env, **keys, "model": {"anyOf": [keys["model"], several]}}
    components["VariableName"] = {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}
    return {**one, "properties": properties, "$defs": components}


def config_schema() -> Schema:
    """Return what a config.txt may hold. What JSON Schema cannot say, such as ``min_dims <= max_dims``, is left out."""
    name: Schema = {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME, "pattern": _PLAIN_TEXT}
    fixed: Schema = {"type": "integer", "minimum": 1, "maximum": LARGEST_DIM}
    dims: Schema = {"type": "array", "maxItems": MOST_DIMS, "items": {"anyOf": [{"const": -1}, fixed]}}
    profile: Schema = {"type": "array", "maxItems": MOST_DIMS, "items": fixed}
    tensor: Schema = {
        "type": "object",
        "properties": {
            "name": {**name, "description": "What clients may call it, with --tensor-names name."},
            "data_type": {"enum": list(DATA_TYPES)},
            "dims": {**dims, "description": "The whole shape, batch first; -1 where dynamic."},
            "node_name": {**name, "description": "What the model calls it, such as input_1:0."},
            "range": {
                "type": "array",
                "items": {"type": "number"},
                "minItems": 2,
                "maxItems": 2,
                "description": "The lowest and the highest value that random samples take.",
            },
            "min_dims": {**profile, "description": "The smallest shape to prepare for, batch included."},
            "opt_dims": {**profile, "description": "The usual one."},
            "max_dims": {**profile, "description": "The largest one."},
        },
        "required": ["data_type", "dims"],
        "anyOf": [{"required": ["name"]}, {"required": ["node_name"]}],
        "additionalProperties": False,
    }
    tensors: Schema = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/Tensor"}}
    return {
        "type": "object",
        "properties": {
            "batch_size": {
                "type": "integer",
                "minimum": 0,
                "maximum": LARGEST_DIM,
                "description": "0: dims are taken as they are. N: the first dim of every tensor is a batch of 1 to N.",
            },
            "input": tensors,
            "output": tensors,
        },
        "required": ["batch_size", "input", "output"],
        "additionalProperties": False,
        "$defs": {"Tensor": tensor},
    }


def report_schema() -> Schema:
    """Return the schema of report.json."""
    return _described(Report)


def result_schema() -> Schema:
    """Return the schema of what ``--json`` prints: of `convert`, of several models, of `build`."""
    tops, components = msgspec.json.schema_components((Result, Fleet, Built), ref_template="#/$defs/{name}")
    fleet = components["Fleet"]["properties"]["results"]
    fleet["items"] = {"$ref": "#/$defs/Result"}  # of each report, its head
    components = _reachable(list(tops), components)
    _describe(components)
    return {"anyOf": list(tops), "$defs": components}


def preflight_schema() -> Schema:
    """Return the schema of what `convkit check MODEL --json` prints."""
    return _described(Preflight)


def inspection_schema() -> Schema:
    """Return the schema of what `convkit inspect --json` prints."""
    return _described(Inspection)


def checkup_schema() -> Schema:
    """Return the schema of what `convkit doctor --json` prints."""
    return _described(Checkup)


def serving_schema() -> Schema:
    """Return the schema of what `convkit serve --json` prints."""
    return _described(Serving)


SCHEMAS: dict[str, Callable[[], Schema]] = {
    "recipe": recipe_schema,
    "config": config_schema,
    "report": report_schema,
    "result": result_schema,
    "preflight": preflight_schema,
    "inspection": inspection_schema,
    "checkup": checkup_schema,
    "serving": serving_schema,
}
"""Every document that has a schema."""


def _described(kind: type[msgspec.Struct]) -> Schema:
    (top,), components = msgspec.json.schema_components((kind,), ref_template="#/$defs/{name}")
    _describe(components)
    return {**top, "$defs": components}


def _reachable(schemas: list[Schema], components: dict[str, Schema]) -> dict[str, Schema]:
    """Return the components that schemas refer to, directly or not."""
    found: dict[str, Schema] = {}
    open_ends: list[Any] = list(schemas)
    while open_ends:
        match open_ends.pop():
            case {"$ref": str(reference)} if (name := reference.rpartition("/")[2]) not in found:
                found[name] = components[name]
                open_ends.append(components[name])
            case dict() as inner:
                open_ends.extend(inner.values())
            case list() as items:
                open_ends.extend(items)
    return {name: components[name] for name in sorted(found)}


def _describe(components: dict[str, Schema], kinds: Mapping[str, type[msgspec.Struct]] | None = None) -> None:
    """Give every property the sentence that stands below its field in the source; `kinds`: the structures by name."""
    kinds = kinds or _KINDS
    for name, component in components.items():
        if "properties" not in component:
            continue
        kind = kinds.get(name)
        for key, text in (meanings(kind) if kind else {}).items():
            if key in component["properties"]:
                component["properties"][key].setdefault("description", re.sub(r"``?", "", text))


def _kinds(root: type[msgspec.Struct]) -> dict[str, type[msgspec.Struct]]:
    """Return every structure inside one, by its name."""
    found: dict[str, type[msgspec.Struct]] = {}

    def walk(info: Any) -> None:
        if isinstance(info, msgspec.inspect.StructType) and info.cls.__name__ not in found:
            found[info.cls.__name__] = info.cls
            for field in info.fields:
                walk(field.type)
        for attribute in ("types", "item_types"):
            for inner in getattr(info, attribute, ()):
                walk(inner)
        for attribute in ("item_type", "value_type"):
            if hasattr(info, attribute):
                walk(getattr(info, attribute))

    walk(msgspec.inspect.type_info(root))
    return found


_DOCUMENTS = (Request, Report, Result, Fleet, Built, Preflight, Inspection, Checkup, Serving)
_KINDS = {name: kind for document in _DOCUMENTS for name, kind in _kinds(document).items()}
