"""A section of a report as text, laid out once for every renderer."""

from __future__ import annotations

from typing import Literal

import msgspec

from convkit.measure.gates import Verdict

Tone = Literal["bad", "good", ""]


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of cells."""

    columns: tuple[str, ...]
    """Headings; empty for a list of facts, a name and its value in each row."""
    rows: tuple[tuple[str, ...], ...]
    align: str
    """A letter for each column: l for words, which start at the left and may be broken; r for figures."""
    shares: tuple[float, ...] = ()
    """What each row is of a whole, 0 to 1, where that is worth a bar; the first column has it."""


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A heading, sentences and a table below it."""

    key: str
    """A name for the section, fit for an HTML id."""
    title: str
    lines: tuple[str, ...] = ()
    table: Table | None = None
    command: str = ""
    note: str = ""
    """How its figures came about."""
    detail: bool = False
    """For those who want to know more; may be folded away."""


def facts(*pairs: tuple[str, str | None]) -> Table:
    """Return names and values, without those that are not known."""
    return Table(columns=(), rows=tuple((name, value) for name, value in pairs if value), align="ll")


def tone(text: str) -> Tone:
    """Tell whether a cell or line is bad or good news: by its words, which the renderers only colour."""
    if "SLOWER" in text or "FAILED" in text or text in ("WORSE", Verdict.FAILED.value, Verdict.INCONCLUSIVE.value):
        return "bad"
    return "good" if text in ("passed", "faster", "better") else ""


def plain(text: str) -> str:
    """Return a text on one line, with what cannot be printed (or turns the writing direction) as escapes."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Return a text with what cannot be printed, line breaks too, as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def plain_section(section: Section) -> Section:
    """Return a section whose texts are plain."""
    table = section.table
    if table is not None:
        table = msgspec.structs.replace(
            table,
            columns=tuple(map(plain, table.columns)),
            rows=tuple(tuple(map(plain, row)) for row in table.rows),
        )
    return msgspec.structs.replace(
        section,
        title=plain(section.title),
        lines=tuple(map(plain, section.lines)),
        table=table,
        command=printable(section.command),
        note=plain(section.note),
    )
