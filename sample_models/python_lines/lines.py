"""Lines of Python's standard library, what kind each is, and what each of its characters is; found by `tokenize`."""

import keyword
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sample_models.standard_library import sources

LENGTH = 64
SHORTEST = 8
KINDS = ("assignment", "comment", "continuation", "definition", "expression", "flow", "import", "text")
TAGS = ("space", "keyword", "name", "number", "operator", "string", "comment")
DEFINITIONS = ("def", "class", "@", "async")
IMPORTS = ("import", "from")
ASSIGNMENTS = frozenset(["=", "+=", "-=", "*=", "/=", "//=", "%=", "**=", "&=", "|=", "^=", ">>=", "<<=", "@=", ":"])
LAYOUT = (tokenize.INDENT, tokenize.DEDENT, tokenize.NEWLINE, tokenize.NL, tokenize.ENDMARKER, tokenize.ENCODING)


class Line(NamedTuple):
    """A line without its indentation, the index of its kind, and the index of each character's tag."""

    text: str
    kind: int
    tags: NDArray[np.int64]


class Lines(NamedTuple):
    """`tokens` and `mask` [n, 64], int64: characters' codes, 0 behind a line's end; 1 where there is a character.

    `kinds` [n] and `tags` [n, 64], int64: indices into KINDS and TAGS; -1 behind a line's end.
    """

    tokens: NDArray[np.int64]
    mask: NDArray[np.int64]
    kinds: NDArray[np.int64]
    tags: NDArray[np.int64]


def split(train: int, held_out: int) -> tuple[Lines, Lines]:
    """As many lines of either part, each kind in equal shares, no line twice; every fifth module is held out."""
    files = sources()
    rng = np.random.default_rng(0)
    seen: set[str] = set()
    held = _chosen(_lines(files[::5], seen), held_out, rng)
    return _chosen(_lines([file for n, file in enumerate(files) if n % 5], seen), train, rng), held


def _lines(files: list[Path], seen: set[str]) -> list[Line]:
    """Every line of the files that is new to `seen`."""
    found = []
    for file in files:
        for line in read(file):
            if line.text not in seen:
                seen.add(line.text)
                found.append(line)
    return found


def _chosen(lines: list[Line], number: int, rng: np.random.Generator) -> Lines:
    by_kind = [[line for line in lines if line.kind == kind] for kind in range(len(KINDS))]
    chosen = [group[n] for group in by_kind for n in rng.permutation(len(group))[: number // len(KINDS)]]
    return encode([chosen[n] for n in rng.permutation(len(chosen))])


def encode(lines: list[Line]) -> Lines:
    tokens = np.zeros((len(lines), LENGTH), np.int64)
    tags = np.full((len(lines), LENGTH), -1, np.int64)
    for row, line in enumerate(lines):
        tokens[row, : len(line.text)] = list(line.text.encode("ascii"))
        tags[row, : len(line.text)] = line.tags
    kinds = np.array([line.kind for line in lines], np.int64)
    return Lines(tokens, (tokens > 0).astype(np.int64), kinds, tags)


def read(file: Path) -> Iterator[Line]:
    """Every line of a source file, of 8 to 64 ASCII characters, whose kind is plain."""
    with tokenize.open(file) as stream:
        source = stream.read().splitlines()
    with file.open("rb") as binary:
        tokens = [token for token in tokenize.tokenize(binary.readline) if token.type not in LAYOUT]
    tags = [np.zeros(len(text), np.int64) for text in source]
    for token in tokens:
        _paint(tags, token)
    kinds = _kinds(tokens)
    for number, text in enumerate(source):
        indent = len(text) - len(text.lstrip())
        bare = text.strip()
        if number in kinds and SHORTEST <= len(bare) <= LENGTH and bare.isascii() and bare.isprintable():
            yield Line(bare, KINDS.index(kinds[number]), tags[number][indent : indent + len(bare)])


def _paint(tags: list[NDArray[np.int64]], token: tokenize.TokenInfo) -> None:
    (first, start), (last, end) = token.start, token.end
    tag = TAGS.index(_tag(token))
    for number in range(first, last + 1):
        tags[number - 1][start if number == first else 0 : end if number == last else None] = tag


def _tag(token: tokenize.TokenInfo) -> str:
    if token.type == tokenize.NAME:
        return "keyword" if keyword.iskeyword(token.string) else "name"
    by_type = {tokenize.NUMBER: "number", tokenize.STRING: "string", tokenize.COMMENT: "comment"}
    return by_type.get(token.type, "operator")


def _kinds(tokens: list[tokenize.TokenInfo]) -> dict[int, str]:
    """The kind of each line, by its number from 0; lines that begin inside of brackets are continuations."""
    kinds: dict[int, str] = {}
    depth = 0
    by_line: dict[int, list[tokenize.TokenInfo]] = {}
    for token in tokens:
        by_line.setdefault(token.start[0], []).append(token)
    ended = 0
    for number, line in by_line.items():
        if number > ended:  # else it begins inside of a string
            kinds[number - 1] = "continuation" if depth else _kind_of_statement(line)
        for token in line:
            depth += (token.string in "([{") - (token.string in ")]}") if token.type == tokenize.OP else 0
            if token.type == tokenize.STRING and token.end[0] > number:
                kinds.update(dict.fromkeys(range(number, token.end[0] - 1), "text"))
        ended = max(ended, line[-1].end[0])
    return kinds


def _kind_of_statement(line: list[tokenize.TokenInfo]) -> str:
    first = line[0].string
    if line[0].type == tokenize.COMMENT:
        return "comment"
    if line[0].type == tokenize.STRING:
        return "text"
    if first in DEFINITIONS:
        return "definition"
    if first in IMPORTS:
        return "import"
    if keyword.iskeyword(first) and first not in ("None", "True", "False", "not", "lambda", "await"):
        return "flow"
    depth = 0
    for token in line:
        if token.type == tokenize.OP:
            depth += (token.string in "([{") - (token.string in ")]}")
            if not depth and token.string in ASSIGNMENTS:
                return "assignment"
    return "expression"
