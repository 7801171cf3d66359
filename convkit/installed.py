"""What is installed, and whether it satisfies what is asked for: by the metadata of distributions, nothing is imported.

Requirements, markers and versions: https://packaging.python.org/en/latest/specifications/dependency-specifiers/ and
version-specifiers. Of a version the numbers of its release are compared; what stands behind them (rc1, +cpu) is not.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Iterator

import msgspec

_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[([^\]]*)\])?\s*\(?([^;)]*)\)?\s*(?:;\s*(.*))?")
_CLAUSE = re.compile(r"\s*(===|==|~=|!=|<=|>=|<|>)\s*([^\s,]+)\s*")
_MARKER = re.compile(r"\(|\)|'[^']*'|\"[^\"]*\"|[A-Za-z_.]+|===|==|~=|!=|<=|>=|<|>")
OTHERS = {
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime-openvino"),
    "tensorflow-cpu": ("tensorflow", "tensorflow-gpu", "tf-nightly"),
    "tensorrt": ("tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu13-bindings", "tensorrt-cu12-bindings"),
    "tensorrt-rtx-cu13": ("tensorrt-rtx", "tensorrt-rtx-cu12"),
}
"""Distributions that bring the same modules as one that an extra names."""


class Requirement(msgspec.Struct, frozen=True, kw_only=True):
    """What a distribution asks for."""

    name: str
    extras: tuple[str, ...] = ()
    clauses: str = ""
    """Such as ``<7,>=6.33.5``."""
    marker: str = ""

    def holds(self, extra: str = "") -> bool:
        """Tell whether it is asked for here, with an extra of the distribution or without."""
        return not self.marker or _Marker(self.marker, extra).evaluate()

    def takes(self, version: str) -> bool:
        """Tell whether a version satisfies it."""
        return all(_satisfies(version, operator, wanted) for operator, wanted in _CLAUSE.findall(self.clauses))

    def __str__(self) -> str:
        clauses = ",".join(operator + version for operator, version in _CLAUSE.findall(self.clauses))
        return f"{self.name} {clauses}" if clauses else self.name


@functools.cache
def installed_version(name: str) -> str | None:
    """Return a distribution's version; None where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except (importlib.metadata.PackageNotFoundError, ValueError, TypeError):  # absent; no name; a broken folder
        return None


@functools.cache
def requirements_of(name: str) -> tuple[Requirement, ...]:
    """Return what an installed distribution asks for; nothing where it is not installed."""
    try:
        texts = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return ()
    return tuple(found for text in texts if (found := parse_requirement(text)) is not None)


def parse_requirement(text: str) -> Requirement | None:
    """Read a requirement such as ``numpy>=1.26; python_version < "3.13"``; None where it is none."""
    match = _REQUIREMENT.fullmatch(text)
    if match is None:
        return None
    name, extras, clauses, marker = match.groups()
    named = tuple(extra.strip() for extra in (extras or "").split(",") if extra.strip())
    return Requirement(name=name, extras=named, clauses=clauses.strip(), marker=(marker or "").strip())


def wanted_by_extra(extra: str) -> tuple[Requirement, ...]:
    """Return what an extra of convkit's brings, extras that it builds on included."""
    found: dict[str, Requirement] = {}
    for requirement in requirements_of("convkit"):
        if not requirement.marker or not requirement.holds(extra):
            continue
        if requirement.name == "convkit":
            found |= {each.name: each for inner in requirement.extras for each in wanted_by_extra(inner)}
        else:
            found[requirement.name] = requirement
    if not found and not requirements_of("convkit"):  # its source lies here without being installed
        from convkit.sources.open import EXTRAS

        found = {module: Requirement(name=module) for module in EXTRAS.get(extra, ())}
    return tuple(found.values())


def who_brings(name: str) -> tuple[str, str] | None:
    """Return the distribution that is installed of those that bring the same modules, and its version."""
    for each in (name, *OTHERS.get(name, ())):
        if (version := installed_version(each)) is not None:
            return each, version
    return None


class Unmet(msgspec.Struct, frozen=True, kw_only=True):
    """A requirement of an installed distribution that another installed one does not satisfy."""

    by: str
    """Who asks, with the version."""
    wanted: str
    found: str | None
    """The version that is installed; None where nothing is."""


def unmet(names: Iterator[str] | tuple[str, ...]) -> Iterator[Unmet]:
    """Yield what installed distributions ask for and others do not satisfy, without their extras."""
    for name in names:
        version = installed_version(name)
        for requirement in requirements_of(name) if version is not None else ():
            if not requirement.holds():
                continue
            found = installed_version(requirement.name)
            if found is None or not requirement.takes(found):
                yield Unmet(by=f"{name} {version}", wanted=str(requirement), found=found)


def release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version's release, without zeros at its end."""
    match = re.match(r"v?(?:\d+!)?(\d+(?:\.\d+)*)", version.strip())
    numbers = [int(part) for part in match[1].split(".")] if match else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _satisfies(version: str, operator: str, wanted: str) -> bool:
    found, asked = release(version), release(wanted)
    if wanted.endswith(".*"):
        prefix = tuple(int(part) for part in wanted[:-2].split(".") if part.isdigit())
        same = (*found, *(0,) * len(prefix))[: len(prefix)] == prefix
        return same if operator == "==" else not same
    match operator:
        case "==" | "===":
            return found == asked
        case "!=":
            return found != asked
        case "<=":
            return found <= asked
        case ">=":
            return found >= asked
        case "<":
            return found < asked
        case ">":
            return found > asked
        case _:  # ~=
            prefix = tuple(int(part) for part in re.findall(r"\d+", wanted))[:-1]
            return found >= asked and (*found, *(0,) * len(prefix))[: len(prefix)] == prefix


class _Marker:
    """A condition on where something is installed."""

    def __init__(self, text: str, extra: str) -> None:
        self.tokens = _MARKER.findall(text)
        self.at = 0
        self.known = {
            "extra": extra,
            "python_version": ".".join(platform.python_version_tuple()[:2]),
            "python_full_version": platform.python_version(),
            "os_name": os.name,
            "sys_platform": sys.platform,
            "platform_system": platform.system(),
            "platform_machine": platform.machine(),
            "platform_python_implementation": platform.python_implementation(),
            "implementation_name": sys.implementation.name,
        }

    def evaluate(self) -> bool:
        """Return whether it holds; one that cannot be read does not."""
        try:
            return self._either()
        except IndexError:
            return False

    def _either(self) -> bool:
        result = self._both()
        while self._next() == "or":
            self.at += 1
            result = self._both() or result
        return result

    def _both(self) -> bool:
        result = self._one()
        while self._next() == "and":
            self.at += 1
            result = self._one() and result
        return result

    def _one(self) -> bool:
        if self._next() == "(":
            self.at += 1
            result = self._either()
            self.at += 1
            return result
        left, operator = self._value(), self._take()
        if operator == "not":
            self._take()
            return left not in self._value()
        right = self._value()
        if operator == "in":
            return left in right
        if release(left) and release(right):
            return _satisfies(left, operator, right)
        return left == right if operator in ("==", "===") else operator == "!=" and left != right

    def _value(self) -> str:
        token = self._take()
        return token[1:-1] if token[0] in "'\"" else self.known.get(token, "")

    def _take(self) -> str:
        token: str = self.tokens[self.at]
        self.at += 1
        return token

    def _next(self) -> str | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None
