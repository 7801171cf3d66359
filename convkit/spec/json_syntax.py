"""Read JSON that a person wrote: every slip of syntax is explained with its line and what would be right."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from convkit.errors import MetadataError
from convkit.spec.locate import KeyPath, Token, json_entries, json_tokens
from convkit.spec.wording import key_path, printable

MAX_BYTES = 1 << 18

_MOST_OPEN = 200  # brackets open at once: more is refused before the decoder's own limit is reached
_BRACKETS = {"{": "}", "[": "]"}
_NOT_FINITE = re.compile(r"[-+]?(nan|inf|infinity)", re.IGNORECASE)
_OTHER_LANGUAGES = {"True": "true", "False": "false", "None": "null", "undefined": "null"}
_LOOKALIKES = {
    "\uff0c": ",", "\uff1b": ",", "\uff1a": ":", "\uff0d": "-", "\u2212": "-", "\u00a0": " ", "\u3000": " ",
    "\u201c": '"', "\u201d": '"', "\u2018": '"', "\u2019": '"', "\uff02": '"',
    "\uff3b": "[", "\uff3d": "]", "\uff5b": "{", "\uff5d": "}", "\u3010": "[", "\u3011": "]",
}  # fmt: skip


class _Slip(NamedTuple):
    """What is wrong at one place of the text, and what would be right."""

    at: int  # index in the text
    problem: str
    hint: str
    code: str = "metadata.syntax"


def decode_text(content: str | bytes, *, where: str) -> str:
    """Return the text of a configuration file's content.

    Raises:
        MetadataError: larger than 256 KiB, not UTF-8, or with a byte order mark.
    """
    if len(content) > MAX_BYTES:
        raise MetadataError(
            f"{where} is larger than 256 KiB, which no config.txt is",
            hint="name the model's config.txt: a usual one has less than a hundred lines",
            code="metadata.file",
        )
    if isinstance(content, bytes):
        content = _from_utf8(content, where)
    elif lone := re.search("[\ud800-\udfff]", content):
        raise MetadataError(
            f"{where}, line {_line(content, lone.start())}: {lone.group()!a} is half a character",
            hint="save the file as UTF-8",
            code="metadata.encoding",
        )
    if content.startswith("\ufeff"):
        raise MetadataError(
            f"{where}, line 1: the file begins with a byte order mark (BOM), which JSON does not have",
            hint=rf"save it as UTF-8 without BOM, or run: sed -i '1s/^\xEF\xBB\xBF//' {shlex.quote(where)}",
            code="metadata.bom",
        )
    return content


def decode_json(text: str, *, where: str) -> object:
    """Return the value of a JSON text: dict, list, str, int, float, bool or None, nested.

    Raises:
        MetadataError: not JSON, more than 200 brackets deep, or a key stands twice in an object.
    """
    tokens = list(json_tokens(text))
    if deepest := _too_deep(tokens):
        raise _refusal(deepest, text, where)
    try:
        value: object = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        slip = next(_slips(tokens), None) or _decoder_slip(text, error)
        raise _refusal(slip, text, where) from error
    _refuse_repeated_keys(text, where)
    return value


def _from_utf8(content: bytes, where: str) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content[:4]:
        raise MetadataError(
            f"{where}, line 1: the file is UTF-16 or UTF-32, not UTF-8",
            hint=f"save it as UTF-8, for example with: iconv -f UTF-16 -t UTF-8 {shlex.quote(where)}",
            code="metadata.encoding",
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise MetadataError(
            f"{where}, line {line}: the byte 0x{content[error.start]:02x} is not UTF-8",
            hint=f"save the file as UTF-8; if it is GBK: iconv -f GBK -t UTF-8 {shlex.quote(where)}",
            code="metadata.encoding",
        ) from error


def _refusal(slip: _Slip, text: str, where: str) -> MetadataError:
    start, end = text.rfind("\n", 0, slip.at) + 1, text.find("\n", slip.at)
    line = text[max(start, slip.at - 40) : min(end if end >= 0 else len(text), slip.at + 40)].strip()
    shown = printable(line, longest=80)
    return MetadataError(
        f"{where}, line {_line(text, slip.at)}: {slip.problem}" + (f": `{shown}`" if shown else ""),
        hint=slip.hint,
        code=slip.code,
    )


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _too_deep(tokens: list[Token]) -> _Slip | None:
    depth = 0
    for token in tokens:
        if token.kind == "mark":
            depth += (token.text in "{[") - (token.text in "}]")
        if depth > _MOST_OPEN:
            hint = "a config.txt is four deep: the object, a list, a tensor, its dims"
            return _Slip(token.at, f"more than {_MOST_OPEN} brackets are open", hint, "metadata.nesting")
    return None


def _refuse_repeated_keys(text: str, where: str) -> None:
    first: dict[KeyPath, int] = {}
    for path, line in json_entries(text):
        if path in first:
            raise MetadataError(
                f"{where}, line {line}: {key_path(path)}: this key is already in line {first[path]}",
                hint="keep one of the two",
                code="metadata.duplicate-key",
            )
        first[path] = line


def _slips(tokens: list[Token]) -> Iterator[_Slip]:
    """Go through the usual slips, in the order of the text."""
    if not tokens:
        yield _Slip(0, "the file is empty", 'write {"batch_size": 0, "input": [...], "output": [...]}')
    opened: list[Token] = []
    before: Token | None = None
    for token in tokens:
        if before and not opened and token.kind != "comment":
            yield _Slip(token.at, "the JSON has ended before this", "remove it")
        if slip := _strange_token(token) or (before and _strange_pair(before, token, opened)):
            yield slip
        if token.text in _BRACKETS:
            opened.append(token)
        elif token.text in ("}", "]"):
            mark = opened.pop() if opened else None
            if mark is None:
                yield _Slip(token.at, f"this '{token.text}' closes nothing", "remove it")
            elif (wanted := _BRACKETS[mark.text]) != token.text:
                problem = f"'{token.text}' stands where the '{mark.text}' of line {mark.line} wants '{wanted}'"
                yield _Slip(token.at, problem, f"write '{wanted}', or close first what was opened in between")
        before = token
    if opened:
        mark = opened[-1]
        yield _Slip(mark.at, f"this '{mark.text}' is never closed", f"add the missing '{_BRACKETS[mark.text]}'")


def _strange_token(token: Token) -> _Slip | None:
    """Tell what is wrong with a piece of text that cannot stand in JSON, wherever it is."""
    if token.kind == "mark":
        return None
    if token.kind == "comment":
        return _Slip(token.at, "JSON has no comments", "remove it", "metadata.comment")
    if token.kind == "quoted":
        return _Slip(token.at, "JSON has no single quotes", "write double quotes")
    if token.kind == "unclosed":
        return _Slip(token.at, "a string is not closed on its line", 'add the closing "')
    try:
        msgspec.json.decode(token.text)
    except msgspec.DecodeError as error:
        problem, hint = _strange_string() if token.kind == "string" else _strange_word(token.text, str(error))
        return _Slip(token.at, problem, hint)
    return None


def _strange_string() -> tuple[str, str]:
    return (
        "a string holds a control character, half a character, or a backslash with something that JSON does not know",
        r"JSON knows \" \\ \/ \b \f \n \r \t and \u with four hexadecimal digits",
    )


def _strange_word(text: str, reason: str) -> tuple[str, str]:
    word = f"'{printable(text)}'"
    if strange := next((c for c in text if c in _LOOKALIKES), None):
        plain = _LOOKALIKES[strange]
        return f"{strange!r} only looks like JSON", f"write {'a plain space' if plain == ' ' else plain} in its place"
    if _NOT_FINITE.fullmatch(text):
        return f"JSON has no {text}", "write a finite number, or leave the key out"
    if text in _OTHER_LANGUAGES:
        return f"JSON has no {text}", f"write {_OTHER_LANGUAGES[text]}"
    if "out of range" in reason:
        return f"the number {word} is too large", "write a number that 64 bits hold"
    if re.match(r"[-+.]?\d", text):
        return f"{word} is not a number in JSON", "write it as 224, -1 or 0.5: decimal, no leading 0 or +"
    return f"{word} is not JSON", "put text in double quotes; only numbers, true, false and null stand without"


def _strange_pair(before: Token, token: Token, opened: list[Token]) -> _Slip | None:
    """Tell what is wrong with two pieces that cannot follow each other; `opened` are the brackets around them."""
    value_ended = before.kind in ("string", "word") or before.text in ("}", "]")
    value_begins = token.kind in ("string", "word") or token.text in _BRACKETS
    if before.text == "," and token.text in ("}", "]"):
        problem = f"a comma stands before the closing '{token.text}'"
        return _Slip(before.at, problem, "remove the comma", "metadata.trailing-comma")
    if token.text == "," and (before.text == "," or before.text in _BRACKETS):
        return _Slip(token.at, "nothing stands before this comma", "remove the comma, or add what is missing")
    if value_ended and value_begins and opened:
        missing = "',' or ':'" if opened[-1].text == "{" and before.kind == "string" else "','"
        return _Slip(
            before.at,
            f"{missing} is missing between `{printable(before.text)}` and `{printable(token.text)}`",
            "add it",
        )
    return None


def _decoder_slip(text: str, error: msgspec.DecodeError) -> _Slip:
    """Translate the decoder's own words, for a slip that is none of the usual ones."""
    byte = re.search(r"\(byte (\d+)\)", str(error))
    at = len(text.encode()[: int(byte.group(1))].decode(errors="ignore")) if byte else max(len(text) - 1, 0)
    reason = re.sub(r"^JSON is malformed: | \(byte \d+\)$", "", str(error))
    return _Slip(at, reason, 'an object is {"key": value, "key": value}, a list [value, value]')
