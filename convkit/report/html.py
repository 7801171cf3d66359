"""The report as one HTML page that needs nothing else: no script, no font, no network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from convkit.report.bars import bars
from convkit.report.document import Report
from convkit.report.sheet import sheet, tone

if TYPE_CHECKING:
    from markupsafe import Markup

_TEMPLATES = Path(__file__).parent / "templates"


def to_html(report: Report) -> str:
    """Write a report as an HTML page. Every text is escaped."""
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
    return environment.get_template("report.html.j2").render(sheet=sheet(report), drawings=bars(report), report=report)


def _breakable(text: str) -> Markup:
    """Escape a text, and allow lines to break within a long name where one would break it by hand."""
    from markupsafe import Markup, escape

    pieces = re.split(r"(?<=[/_.:])(?=\w)|(?<=[a-z])(?=[A-Z])", text)
    return Markup("<wbr>").join(escape(piece) for piece in pieces)
