"""The report as one HTML page that needs nothing else: no script, no font, no network."""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from convkit.report.bars import Bars, bars
from convkit.report.document import Report
from convkit.report.scatter import Scatter, scatter
from convkit.report.section import tone
from convkit.report.sheet import Sheet, sheet

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

_TEMPLATES = Path(__file__).parent / "templates"


class _Page(NamedTuple):
    """One report on the page."""

    sheet: Sheet
    drawings: Mapping[str, Sequence[Bars]]
    """By the key of the section that they belong to; those under the empty key stand above all."""
    scatter: Scatter | None
    prefix: str
    """Stands before the ids of its sections, which are unique on the page."""


def to_html(*reports: Report) -> str:
    """Write reports as one HTML page, below each other. Every text is escaped."""
    pages = [
        _Page(
            sheet=sheet(report),
            drawings=_by_section(bars(report)),
            scatter=scatter(report),
            prefix=f"{number}-" if number else "",
        )
        for number, report in enumerate(reports)
    ]
    title = pages[0].sheet.title if len(pages) == 1 else f"{len(pages)} models"
    return page_template().render(pages=pages, title=title)


@functools.cache
def page_template() -> Template:
    """Return the page's template; reading it the first time takes as long as writing some pages."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(tone=tone, breakable=_breakable)
    return environment.get_template("report.html.j2")


def _by_section(groups: Sequence[Bars]) -> dict[str, list[Bars]]:
    found: dict[str, list[Bars]] = defaultdict(list)
    for group in groups:
        found[group.section].append(group)
    return found


def _breakable(text: str) -> Markup:
    """Escape a text, and allow lines to break within a long name where one would break it by hand."""
    from markupsafe import Markup, escape

    pieces = re.split(r"(?<=[/_.:])(?=\w)|(?<=[a-z])(?=[A-Z])", text)
    return Markup("<wbr>").join(escape(piece) for piece in pieces)
