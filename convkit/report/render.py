"""One report, four forms. All show the same facts."""

from __future__ import annotations

from enum import Enum

from convkit.report.document import Report, to_json


class Format(Enum):
    """How a report is written."""

    TERMINAL = "terminal"
    JSON = "json"
    MARKDOWN = "markdown"
    HTML = "html"


def render(report: Report, form: Format, *, width: int = 80, color: bool = False, details: bool = True) -> str:
    """Write a report as text that ends with a newline.

    Args:
        report: what to show.
        form: how.
        width: columns of the terminal, at least 60; the other forms take no notice of this and of the following.
        color: whether the terminal's form may hold colour sequences.
        details: whether the terminal's form shows operators, steps, source and machine.
    """
    match form:
        case Format.TERMINAL:
            from convkit.report.terminal import to_terminal

            return to_terminal(report, width=width, color=color, details=details)
        case Format.MARKDOWN:
            from convkit.report.markdown import to_markdown

            return to_markdown(report)
        case Format.HTML:
            from convkit.report.html import to_html

            return to_html(report)
        case Format.JSON:
            return to_json(report)
