"""Bytes spoiled at random, whatever they mean; and texts, by the pieces that parsers look at."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

NUMBERS = (0, 1, -1, 7, 127, 128, 255, 256, 2**15, 2**31 - 1, 2**31, -(2**31), 2**32, 2**62, 2**63 - 1, -(2**63), 2**64)
TEXTS = ("", "x", "..", "../../etc/passwd", "/etc/passwd", "a/b", "\0", "\n", "é", "\U0001f9ff", "${HOME}", "a" * 3000)
PIECES = (
    b"",
    b"\0",
    b"\xff" * 8,
    b"[" * 300,
    b"{" * 300,
    b'"',
    b"\\",
    b"\n",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"1e999",
    b"NaN",
)
_TOKEN = re.compile(r"[A-Za-z_]\w*|-?\d+(?:\.\d+)?|\"[^\"\n]*\"|\s+|.", re.DOTALL)


def spoil(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Flip, overwrite, cut, repeat, move or splice; one to a few times."""
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        data = chance.choice(_WAYS)(chance, data, others)
    return data[: 1 << 20]


def _flip(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :] if at < len(data) else data


def _overwrite(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    start, size = _range(chance, data)
    return data[:start] + chance.randbytes(size) + data[start + size :]


def _cut(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    start, size = _range(chance, data)
    return data[:start] + data[start + size :]


def _truncate(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _repeat(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    start, size = _range(chance, data)
    return data[:start] + data[start : start + size] * chance.choice((2, 3, 50)) + data[start + size :]


def _insert(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.choice(PIECES) + data[at:]


def _splice(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = chance.choice(others)
    start, size = _range(chance, other)
    at = chance.randrange(len(data) + 1)
    return data[:at] + other[start : start + size] + data[at + chance.choice((0, size)) :]


_WAYS = (_flip, _flip, _flip, _overwrite, _cut, _truncate, _repeat, _insert, _splice)


def _range(chance: Random, data: bytes) -> tuple[int, int]:
    start = chance.randrange(len(data) + 1)
    return start, min(len(data) - start, chance.choice((1, 1, 2, 4, 8, 16, 64, 1000)))


def spoil_text(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Drop, double, swap and replace tokens: words, numbers, strings, marks."""
    tokens = _TOKEN.findall(data.decode("utf-8", "replace"))
    for _ in range(chance.choice((1, 1, 2, 4))):
        if not tokens:
            break
        at = chance.randrange(len(tokens))
        match chance.randrange(6):
            case 0:
                del tokens[at]
            case 1:
                tokens.insert(at, tokens[at])
            case 2:
                other = chance.randrange(len(tokens))
                tokens[at], tokens[other] = tokens[other], tokens[at]
            case 3:
                tokens[at] = str(chance.choice(NUMBERS))
            case 4:
                tokens[at] = f'"{chance.choice(TEXTS)}"'
            case 5:
                tokens.insert(at, chance.choice([*'{}[]",:=#.-', "true", "null", "nan", "inf", "1e400", "0x", "'''"]))
    return "".join(tokens).encode("utf-8", "replace")
