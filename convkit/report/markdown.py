"""The report as GitHub's Markdown, to stand in a pull request."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator

from convkit.report.document import Report
from convkit.report.section import Section, Table
from convkit.report.sheet import sheet

_SPECIAL = re.compile(r"[\\`*_{}\[\]#|~$]")
_LIST_MARK = re.compile(r"^(\d*)([-+.)])(?=[\s-]|$)")
_MENTION = re.compile(r"@(?=\w)")


def to_markdown(report: Report) -> str:
    """Write a report as Markdown: bad news first, details folded. Nothing in a name becomes markup or a mention."""
    laid_out = sheet(report)
    blocks: list[str] = []
    if bad := (*laid_out.failed, *laid_out.worse):
        blocks.append("\n>\n".join(f"> **{escape(line)}**" for line in bad))
    blocks.append(f"## {escape(laid_out.title)}")
    blocks.append(escape(laid_out.subtitle))
    if said := (*laid_out.better, *laid_out.neither):
        blocks.append("\n".join(f"- {escape(line)}" for line in said))
    for section in laid_out.sections:
        blocks.extend(_section(section))
    return "\n\n".join(blocks) + "\n"


def escape(text: str) -> str:
    """Return a text that Markdown shows as it is, in a table's cell too; an @ mentions nobody."""
    text = _SPECIAL.sub(r"\\\g<0>", html.escape(text, quote=False))
    return _MENTION.sub("@<!-- -->", _LIST_MARK.sub(r"\1\\\2", text))


def sections_to_markdown(sections: Iterable[Section]) -> str:
    """Write sections alone as Markdown."""
    return "\n\n".join(block for section in sections for block in _section(section)) + "\n"


def _section(section: Section) -> Iterator[str]:
    if section.detail:
        yield f"<details><summary>{_MENTION.sub('@<!-- -->', html.escape(section.title))}</summary>"
    else:
        yield f"### {escape(section.title)}"
    if section.lines:
        mark = "- " if len(section.lines) > 1 else ""
        yield "\n".join(mark + escape(line) for line in section.lines)
    if section.table is not None:
        yield _table(section.table)
    if section.command:
        fence = "`" * (3 + max((len(run) for run in re.findall("`+", section.command)), default=0))
        yield f"{fence}sh\n{section.command}\n{fence}"
    if section.detail:
        yield "</details>"


def _table(table: Table) -> str:
    if not table.columns:
        return "\n".join(f"- **{escape(name)}**: {escape(value)}" for name, value in table.rows)
    rule = ["---" if side == "l" else "---:" for side in table.align]
    lines = ["| " + " | ".join(map(escape, row)) + " |" for row in (table.columns, *table.rows)]
    lines.insert(1, "| " + " | ".join(rule) + " |")
    return "\n".join(lines)
