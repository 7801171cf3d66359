"""The report on a terminal: rich tables, at any width from 60 columns on."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec

from convkit.report.document import Report
from convkit.report.lines import wrapped
from convkit.report.section import Section, Table, Tone, tone
from convkit.report.sheet import sheet

if TYPE_CHECKING:
    import rich.table
    from rich.console import Console
    from rich.text import Text

_BAD, _GOOD, _HEADING = "bold red", "green", "bold"
_TONES: dict[Tone, str] = {"bad": _BAD, "good": _GOOD, "": ""}
_NARROWEST = 20
"""Columns that a value has, however long the names beside it are."""
_WORD = re.compile(r"""(?:[^\s'"\\]|'[^']*'|"(?:[^"\\]|\\.)*"|\\.)+""")


_ONLY_IN_DETAIL = frozenset({"how", "again", "holds", "calibration", "time"})
_ROWS_IN_DETAIL = frozenset(
    {"parameters", "weights", "p50, 95% from", "p50, 95% to", "latency mean", "batch", "calls", "rounds"}
)


def to_terminal(report: Report, *, width: int = 80, color: bool = False, details: bool = True) -> str:
    """Write a report as lines of at most `width` columns; only a path or a single word of a command may be longer.

    Without `details` only what most readers want is shown: what got worse, size, speed and the final numbers.
    """
    return _printed(_parts(report, details=details), width=width, color=color)


def sections_to_terminal(sections: Iterable[Section], *, width: int = 80, color: bool = False) -> str:
    """Write sections alone as lines of at most `width` columns; only a path or a word of a command may be longer."""
    return _printed(sections, width=width, color=color)


def _printed(parts: Iterable[Section | Text], *, width: int, color: bool) -> str:
    from rich.console import Console

    page = io.StringIO()
    console = Console(
        file=page,
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        no_color=not color,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    for part in parts:
        if isinstance(part, Section):
            _print_section(console, part)
        else:
            _print_text(console, part)
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines()) + "\n"


def _parts(report: Report, *, details: bool) -> Iterator[Section | Text]:
    from rich.text import Text

    laid_out = sheet(report)
    for line in (*laid_out.failed, *laid_out.worse):
        yield Text(line, style=_BAD)
    if laid_out.failed or laid_out.worse:
        yield Text()
    yield Text(laid_out.title, style=f"{_HEADING} underline")
    yield Text(laid_out.subtitle, style="dim")
    for line in laid_out.better:
        yield Text(line, style=_GOOD)
    for line in laid_out.neither:
        yield Text(line)
    for section in laid_out.sections:
        if details:
            yield section
        elif not section.detail and section.key.partition("-")[0] not in _ONLY_IN_DETAIL:
            yield _brief(section)


def _brief(section: Section) -> Section:
    """Leave out the rows of the before/after table that only a closer look needs."""
    if section.table is None or section.key != "before-after":
        return section
    rows = tuple(row for row in section.table.rows if row[0] not in _ROWS_IN_DETAIL)
    return msgspec.structs.replace(section, table=msgspec.structs.replace(section.table, rows=rows))


def _print_section(console: Console, section: Section) -> None:
    from rich.text import Text

    console.print()
    _print_text(console, Text(section.title, style=_HEADING))
    for line in section.lines:
        _print_text(console, Text(line, style=_TONES[tone(line)]))
    if section.table is not None and section.table.columns:
        console.print(_table(section.table))
    elif section.table is not None:
        _print_facts(console, section.table)
    if section.command:
        console.print(Text("  " + _folded(section.command, console.width - 2)), soft_wrap=True)


def _print_text(console: Console, text: Text) -> None:
    """Print a text of one style."""
    text.plain = wrapped(text.plain, console.width)
    console.print(text, soft_wrap=True)


def _print_facts(console: Console, table: Table) -> None:
    """Print names and their values beside each other: not as rich's table, which would cut a path."""
    from rich.cells import cell_len
    from rich.text import Text

    indent = max((cell_len(name) for name, _ in table.rows), default=0) + 2
    for name, value in table.rows:
        lines = wrapped(value, max(_NARROWEST, console.width - indent)).split("\n")
        drawn = Text().append(name + " " * (indent - cell_len(name)), style="dim")
        drawn.append(("\n" + " " * indent).join(lines), style=_TONES[tone(value)])
        console.print(drawn, soft_wrap=True)


def _table(table: Table) -> rich.table.Table:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for number in range(len(table.align)):
        words = table.align[number] == "l"
        drawn.add_column(
            Text(_stacked(table, number)),
            justify="left" if words else "right",
            no_wrap=not words,
            overflow="fold",
        )
    for row in table.rows:
        drawn.add_row(*(Text(cell, style=_TONES[tone(cell)]) for cell in row))
    return drawn


def _stacked(table: Table, number: int) -> str:
    """Break a heading between its words, to be no wider than the figures below it where its words allow."""
    title = table.columns[number]
    words = title.split()
    longest = max((len(text) for text in (*words, *(row[number] for row in table.rows))), default=0)
    if table.align[number] == "l":
        return title
    return "\n".join(textwrap.wrap(title, longest, break_long_words=False, break_on_hyphens=False))


def _folded(command: str, width: int) -> str:
    """Break a shell command between its words, so that it can still be pasted."""
    lines: list[str] = []
    for word in _WORD.findall(command):
        if lines and len(lines[-1]) + len(word) + 3 <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(f"  {word}" if lines else word)
    return " \\\n  ".join(lines)
