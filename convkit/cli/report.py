"""`convkit report`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from convkit.errors import InputError, UsageError
from convkit.report.render import Format


def command(
    path: Annotated[
        Path, typer.Argument(help="A report.json, a version's folder, a model, or a repository: the latest of each.")
    ],
    form: Annotated[Format | None, typer.Option("--format", help="How to show it. [terminal]")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there.")] = None,
    brief: Annotated[bool, typer.Option("--brief", help="On the terminal: what most want to know.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Show the report of a conversion, or of every model of a repository."""
    del debug  # read by the application, before anything else
    from convkit.reporting import report

    if as_json and form not in (None, Format.JSON):
        raise UsageError(
            f"--json and --format {form.value if form else ''}", hint="say one of them", code="usage.format"
        )
    chosen = Format.JSON if as_json else form or Format.TERMINAL
    width = shutil.get_terminal_size((100, 24)).columns
    text = report(path, chosen, width=width, color=output is None and sys.stdout.isatty(), details=not brief)
    if output is None:
        sys.stdout.write(text)
        return
    from convkit.pipeline.cache import write_atomically

    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, text.encode())
    except OSError as error:
        raise InputError(
            f"--output {output} cannot be written: {error.strerror}",
            hint="name a file in a folder that can be written",
            code="report.unwritable",
        ) from error
