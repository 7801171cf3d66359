"""The files that a report is kept as."""

from __future__ import annotations

from convkit.report.document import Report, to_json
from convkit.report.html import to_html
from convkit.report.markdown import to_markdown


def report_files(report: Report) -> dict[str, bytes]:
    """Render a report as the files that lie beside a version: by name, their bytes."""
    return {
        "report.json": to_json(report).encode(),
        "report.md": to_markdown(report).encode(),
        "report.html": to_html(report).encode(),
    }
