"""Functions of Python's standard library, each as two texts: its docstring's first sentence, and its body."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from sample_models.standard_library import PACKAGES, sources

WORDS = 2048
"""Numbers that a word may have; 0 is none."""
SUMMARY, BODY = 16, 64
"""Words that are kept of either text."""
SHORTEST_SUMMARY, SHORTEST_BODY = 4, 8
FURTHER = ("collections", "ctypes", "curses", "dbm", "distutils", "encodings", "html", "idlelib", "lib2to3", "sqlite3")
FURTHER = (*PACKAGES, *FURTHER, "tkinter", "urllib", "wsgiref", "xmlrpc")
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+")


class Texts(NamedTuple):
    """`summary` [n, 16] and `body` [n, 64], int32: the numbers of words, 0 behind the end; each row one function's."""

    summary: NDArray[np.int32]
    body: NDArray[np.int32]


class Pairs(NamedTuple):
    """As `Texts`; the body is the same function's where `labels` [n], int64, are 1, and another's where they are 0."""

    summary: NDArray[np.int32]
    body: NDArray[np.int32]
    labels: NDArray[np.int64]


def split() -> tuple[Texts, Texts]:
    """The functions of (training, held-out); every fifth module is held out, and no text is twice in either."""
    files = [file for file in sources(FURTHER) if not {"tests", "data", "idle_test"} & set(file.parts)]
    seen: set[str] = set()
    held = _texts(files[::5], seen)
    return _texts([file for number, file in enumerate(files) if number % 5], seen), held


def pairs(texts: Texts, rng: np.random.Generator) -> Pairs:
    """Each summary twice: with its own body, and with that of another function drawn at random; shuffled."""
    number = len(texts.summary)
    others = (np.arange(number) + rng.integers(1, number, number)) % number
    order = rng.permutation(2 * number)
    summary = np.concatenate([texts.summary, texts.summary])[order]
    body = np.concatenate([texts.body, texts.body[others]])[order]
    return Pairs(summary, body, (order < number).astype(np.int64))


def numbers(text: str, length: int) -> list[int]:
    """The numbers of a text's first words; `HTTPServer_2` is two. Six letters of each count."""
    words = [word.lower()[:6] for word in WORD.findall(text)][:length]
    return [crc32(word.encode("ascii")) % (WORDS - 1) + 1 for word in words]


def _texts(files: list[Path], seen: set[str]) -> Texts:
    summaries, bodies = [], []
    for file in files:
        for summary, body in read(file):
            first, second = numbers(summary, SUMMARY), numbers(body, BODY)
            fresh = not {summary, body} & seen
            seen.update((summary, body))
            if fresh and len(first) >= SHORTEST_SUMMARY and len(second) >= SHORTEST_BODY:
                summaries.append(first)
                bodies.append(second)
    return Texts(_padded(summaries, SUMMARY), _padded(bodies, BODY))


def _padded(rows: list[list[int]], length: int) -> NDArray[np.int32]:
    return np.array([row + [0] * (length - len(row)) for row in rows], np.int32)


def read(file: Path) -> Iterator[tuple[str, str]]:
    """The first sentence and the body, without docstring and comments, of every function of a file that has both."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and (document := ast.get_docstring(node)):
            sentence = re.split(r"\.\s|\n\s*\n", document, maxsplit=1)[0]
            yield sentence, "\n".join(map(ast.unparse, node.body[1:]))
