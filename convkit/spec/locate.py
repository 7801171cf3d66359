"""Where a key stands in a JSON or TOML text: the line that an error about it names.

Nothing here judges the text. Any text at all is taken, broken ones included, and nothing is raised.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

KeyPath = tuple[str | int, ...]
"""The way to a value: keys of objects and indices of lists, from the outside in; () is the whole document."""

_DEEPEST = 16
"""Paths end at this depth: what lies deeper has no place of its own, so that a hostile text stays cheap."""


class Token(NamedTuple):
    """A piece of text that is not white space."""

    kind: str  # string, unclosed, quoted (single quotes), comment, mark, word, newline (TOML), other
    text: str
    line: int  # from 1
    at: int  # index of its first character in the text


# A string that is not closed ends with its line, a comment that is not closed with the text.
_STRING = r'"[^"\\\n]*(?:\\[^\n][^"\\\n]*)*'
_JSON_TOKEN = re.compile(
    rf"""(?P<space>[ \t\r\n]+)
    | (?P<comment>//[^\n]*|\#[^\n]*|/\*.*?(?:\*/|\Z))
    | (?P<string>{_STRING}")
    | (?P<unclosed>{_STRING})
    | (?P<quoted>'[^'\\\n]*(?:\\[^\n][^'\\\n]*)*'?)
    | (?P<mark>[{{}}\[\]:,])
    | (?P<word>[^\s{{}}\[\]:,"'\#/]+)
    | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_TOML_TOKEN = re.compile(
    rf"""(?P<newline>\n)
    | (?P<space>\s+?)
    | (?P<comment>\#[^\n]*)
    | (?P<string>\"""(?:[^\\]|\\.)*?(?:\"""|\Z)|'''.*?(?:'''|\Z)|{_STRING}"?|'[^'\n]*'?)
    | (?P<mark>[{{}}\[\]=,.])
    | (?P<word>[^\s{{}}\[\]=,."'\#]+)
    | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)


def _tokens(pattern: re.Pattern[str], text: str) -> Iterator[Token]:
    line = 1
    for match in pattern.finditer(text):
        piece = match.group()
        if match.lastgroup != "space":
            yield Token(match.lastgroup or "other", piece, line, match.start())
        line += piece.count("\n")


def json_tokens(text: str) -> Iterator[Token]:
    """Cut any text into the pieces a JSON reader would see, and those it would stumble over."""
    return _tokens(_JSON_TOKEN, text)


def json_entries(text: str) -> Iterator[tuple[KeyPath, int]]:
    """Go through the keys and list items of a JSON text, in order, a repeated key each time it comes.

    Yields:
        the path and its line: of the key in an object, of the first character in a list.
    """
    tokens = [token for token in json_tokens(text) if token.kind != "comment"]
    if tokens:
        yield (), tokens[0].line
        yield from _entries(tokens, _Frame(path=(), key=(), assigned=True), assign=":")


def json_line(text: str, path: KeyPath) -> int | None:
    """Return the line where `path` begins; where it is missing, that of the nearest thing around it that is there.

    None only for an empty text.
    """
    return _nearest(json_entries(text), path)


def toml_entries(text: str) -> Iterator[tuple[KeyPath, int]]:
    """Go through the tables, keys and list items of a TOML text, in order."""
    table: KeyPath = ()
    lists: Counter[KeyPath] = Counter()  # the tables seen so far in each array of tables
    for statement in _statements(text):
        if statement[0].text == "[":
            table, names = (), [token for token in statement if token.kind in ("word", "string")]
            is_list = len(statement) > 1 and statement[1].text == "[" and statement[1].at == statement[0].at + 1
            for number, token in enumerate(names, start=1):
                table = _extended(table, _name(token))
                yield table, token.line
                if is_list and number == len(names):
                    lists[table] += 1
                if table in lists:
                    table = (*table, lists[table] - 1)
            yield table, statement[0].line
        else:
            yield from _entries(statement, _Frame(path=table, key=table), assign="=")


def toml_line(text: str, path: KeyPath) -> int | None:
    """Return the line where `path` begins; where it is missing, that of the nearest thing around it that is there.

    None where not even its first key is in the text.
    """
    return _nearest(toml_entries(text), path)


def _nearest(entries: Iterator[tuple[KeyPath, int]], path: KeyPath) -> int | None:
    found: dict[KeyPath, int] = {}
    for entry, line in entries:
        if entry == path[: len(entry)]:
            found.setdefault(entry, line)
    return found[max(found, key=len)] if found else None


def _statements(text: str) -> Iterator[list[Token]]:
    """Cut a TOML text at the line ends that no bracket spans."""
    statement: list[Token] = []
    depth = 0
    for token in _tokens(_TOML_TOKEN, text):
        if token.kind == "mark":
            depth += (token.text in "[{") - (token.text in "]}")
        if token.kind == "newline" and depth <= 0 and statement:
            yield statement
            statement, depth = [], 0
        elif token.kind not in ("newline", "comment"):
            statement.append(token)
    if statement:
        yield statement


@dataclass
class _Frame:
    """An object or list that is open at this point of the text."""

    path: KeyPath
    key: KeyPath  # of the member being read
    index: int | None = None  # of the item being read; None in an object
    assigned: bool = False  # the key is complete: what comes is its value
    begun: bool = False  # the value has begun

    def go_on(self) -> None:
        """Get ready for the member or item after a comma."""
        self.index = None if self.index is None else self.index + 1
        self.key, self.assigned, self.begun = self.path, False, False


def _entries(tokens: list[Token], frame: _Frame, *, assign: str) -> Iterator[tuple[KeyPath, int]]:
    frames = [frame]
    for token in tokens:
        frame = frames[-1]
        if token.kind == "mark" and token.text in "}]":
            if len(frames) > 1:
                frames.pop()
        elif token.kind == "mark" and token.text == ",":
            frame.go_on()
        elif token.kind == "mark" and token.text == assign:
            frame.assigned = True
        elif frame.index is None and not frame.assigned:
            if token.kind in ("string", "word"):
                key = _extended(frame.key, _name(token))
                if key != frame.key:
                    yield key, token.line
                frame.key = key
        elif not frame.begun:
            frame.begun = True
            if frame.index is not None:
                frame.key = _extended(frame.path, frame.index)
                if frame.key != frame.path:
                    yield frame.key, token.line
            if token.kind == "mark" and token.text in "{[":
                frames.append(_Frame(path=frame.key, key=frame.key, index=0 if token.text == "[" else None))


def _extended(path: KeyPath, part: str | int) -> KeyPath:
    return (*path, part) if len(path) < _DEEPEST else path


def _name(token: Token) -> str:
    if token.text.startswith('"'):
        try:
            return msgspec.json.decode(token.text, type=str)
        except (msgspec.DecodeError, UnicodeEncodeError):
            return token.text.strip('"')
    return token.text.strip("'")
