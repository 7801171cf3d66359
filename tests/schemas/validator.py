"""As much of JSON Schema as convkit's schemas use; a keyword that is not known here is an error."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

ANNOTATIONS = {"$schema", "$defs", "title", "description", "default"}

TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "integer": lambda v: not isinstance(v, bool) and (isinstance(v, int) or (isinstance(v, float) and v.is_integer())),
}


class Validator:
    """Holds values against one schema."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.root = schema

    def accepts(self, value: Any) -> bool:
        return self._holds(value, self.root)

    def _holds(self, value: Any, schema: dict[str, Any]) -> bool:
        return all(self._check(keyword, wanted, value, schema) for keyword, wanted in schema.items())

    def _check(self, keyword: str, wanted: Any, value: Any, schema: dict[str, Any]) -> bool:
        number = TYPES["number"](value)
        match keyword:
            case _ if keyword in ANNOTATIONS:
                return True
            case "$ref":
                return self._holds(value, self.root["$defs"][wanted.removeprefix("#/$defs/")])
            case "type":
                return TYPES[wanted](value)
            case "anyOf":
                return any(self._holds(value, each) for each in wanted)
            case "enum":
                return any(value == each and type(value) is type(each) for each in wanted)
            case "const":
                return bool(value == wanted) and not isinstance(value, bool)
            case "minimum":
                return not number or value >= wanted
            case "maximum":
                return not number or value <= wanted
            case "exclusiveMinimum":
                return not number or value > wanted
            case "pattern":
                return not isinstance(value, str) or re.search(wanted, value) is not None
            case "format":
                assert wanted == "date-time"
                return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None
            case "minLength":
                return not isinstance(value, str) or len(value) >= wanted
            case "maxLength":
                return not isinstance(value, str) or len(value) <= wanted
            case "minItems":
                return not isinstance(value, list) or len(value) >= wanted
            case "maxItems":
                return not isinstance(value, list) or len(value) <= wanted
            case "items":
                return not isinstance(value, list) or all(self._holds(each, wanted) for each in value)
            case "required":
                return not isinstance(value, dict) or set(wanted) <= set(value)
            case "propertyNames":
                return not isinstance(value, dict) or all(self._holds(name, wanted) for name in value)
            case "properties":
                known = set(wanted) & set(value) if isinstance(value, dict) else set()
                return all(self._holds(value[name], wanted[name]) for name in known)
            case "additionalProperties":
                others = set(value) - set(schema.get("properties", {})) if isinstance(value, dict) else set()
                return all(wanted if isinstance(wanted, bool) else self._holds(value[name], wanted) for name in others)
            case _:
                raise ValueError(f"this validator does not know '{keyword}'")
