"""Pieces of error messages: values, keys and words as they are shown to the person at the terminal."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def printable(text: str, *, longest: int = 60) -> str:
    """Return a text fit for one line: control characters escaped, the end cut off where it is long."""
    escaped = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: longest + 1])
    return escaped if len(text) <= longest else escaped[: longest - 1] + "…"


def shown(value: object) -> str:
    """Return a JSON or TOML value: numbers and strings as they are, in short; of a container what it is."""
    if isinstance(value, str):
        return f"'{printable(value)}'"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    return "null" if value is None else printable(str(value).lower())


def key_path(path: tuple[str | int, ...]) -> str:
    """Return the way to a value as people write it: ``input[0].dims[1]``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{printable(part)}" for part in path)
    return "".join(parts).removeprefix(".")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question to begin a hint with, when a known word resembles this one; else nothing."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(word[:64].lower(), by_lower, n=1)
    return f"did you mean '{by_lower[close[0]]}'? " if close else ""
