"""Reports in every form. All show the same facts."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from convkit.report.document import Report, Reports, to_json


class Format(Enum):
    """How a report is written."""

    TERMINAL = "terminal"
    JSON = "json"
    HTML = "html"
    MARKDOWN = "md"
    JUNIT = "junit"


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
        case Format.JUNIT:
            from convkit.report.junit import to_junit

            return to_junit([report])
        case Format.JSON:
            return to_json(report)


def render_all(
    reports: Sequence[Report], form: Format, *, width: int = 80, color: bool = False, details: bool = True
) -> str:
    """Write several reports as one document; a single one as `render` writes it. The arguments are the same.

    JSON: one object of the schema convkit.reports/1. HTML: one page. JUnit: a suite for each. Else below each other.
    """
    if len(reports) == 1:
        return render(reports[0], form, width=width, color=color, details=details)
    match form:
        case Format.JSON:
            return to_json(Reports(reports=tuple(reports)))
        case Format.HTML:
            from convkit.report.html import to_html

            return to_html(*reports)
        case Format.JUNIT:
            from convkit.report.junit import to_junit

            return to_junit(reports)
        case _:
            pages = (render(report, form, width=width, color=color, details=details) for report in reports)
            return "\n".join(pages)
