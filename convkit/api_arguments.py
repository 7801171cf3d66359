"""The arguments of convkit's functions: what may be given, and the recipe that it stands for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypedDict

from convkit.errors import UsageError
from convkit.pipeline.cache import Cache
from convkit.request import OPTIONS
from convkit.sources.trust import TRUST_ALL
from convkit.spec.recipe import Table

StrPath = str | os.PathLike[str]
Keys = Mapping[str, Any]
"""A table of a recipe. docs/recipe_keys.md lists the keys of each."""


class Options(TypedDict, total=False):
    """Everything that a recipe may hold, under the same names: top-level keys as they are, each table as a mapping.

    None stands for the default. Paths are relative to the working directory.
    """

    to: str | None
    output: StrPath | None
    config: StrPath | None
    name: str | None
    version: int | Literal["auto"] | None
    replace: bool | None
    trust: bool | str | Sequence[str] | None
    """True: run the code beside the model. A digest (``sha256:...``), or several: run these files alone."""
    framework: str | None
    engine: str | None
    report_dir: StrPath | None
    locked: StrPath | None
    sign: StrPath | None
    export: Keys | None
    simplify: Keys | None
    quantize: Keys | None
    preprocess: Keys | None
    accuracy: Keys | None
    check: Keys | None
    measure: Keys | None
    gates: Keys | None
    limits: Keys | None
    triton: Keys | None
    onnxruntime: Keys | None
    openvino: Keys | None
    tensorrt: Keys | None
    tensorrt_rtx: Keys | None


def opened(cache: Cache | StrPath | None) -> Cache | None:
    """Return the cache, or that of a folder."""
    return Cache(Path(cache)) if isinstance(cache, str | os.PathLike) else cache


def arguments_of(options: Mapping[str, Any]) -> Table:
    """Return keyword arguments as the tables of a recipe.

    Raises:
        UsageError: a value is of a type that no recipe holds.
    """
    given = {key: value for key, value in options.items() if value is not None}
    if given.get("version") == "auto":
        del given["version"]
    match given.get("trust"):
        case bool(trusted):
            given["trust"] = [TRUST_ALL] if trusted else []
        case str(digest):
            given["trust"] = [digest]
    if "tensorrt_rtx" in given:
        given["tensorrt-rtx"] = given.pop("tensorrt_rtx")
    return {key: _plain(value, key) for key, value in given.items()}


def _plain(value: Any, key: str) -> Any:
    match value:
        case Enum():
            return value.value
        case str() | bool():
            return value
        case int() | float():  # and what numpy derives from them
            return float(value) if isinstance(value, float) else int(value)
        case os.PathLike():
            return os.fspath(value)
        case Mapping():
            return {name: _plain(inner, f"{key}.{name}") for name, inner in value.items() if inner is not None}
        case Sequence() if not isinstance(value, bytes | bytearray | memoryview):
            return [_plain(inner, key) for inner in value]
        case _:
            raise UsageError(
                f"{OPTIONS.get(key, key)}: a {type(value).__name__} cannot stand in a recipe",
                hint="give texts, numbers, paths, and lists and mappings of them",
                code="usage.value",
            )
