"""How to ask the model, as a section of text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from convkit.report.document import Report
from convkit.report.section import Section


def client_sections(report: Report) -> Iterator[Section]:
    """Lay out the client's program and curl line."""
    if report.client is None:
        return
    folder = f" ({PurePath(report.report).parent})" if report.report else ""
    lines = (
        f"In the folder of the report{folder}, with a Triton server on this machine, python {report.client.script} "
        "sends a recorded sample and prints the answers. The same with curl:",
    )
    yield Section(key="client", title="Ask it", lines=lines, command=report.client.curl, detail=True)
