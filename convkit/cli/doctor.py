"""`convkit doctor`."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from convkit.report.checkup import Checkup


def command(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> int:
    """Show what this machine can do, what to install for the rest, and what is known to go wrong here."""
    del debug  # read by the application, before anything else
    import msgspec

    from convkit.doctoring import examine

    found = examine()
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n")
    else:
        _show(found)
    return found.exit_code


def _show(found: Checkup) -> None:
    from convkit.report.checkup_sheet import sections, verdict
    from convkit.report.terminal import sections_to_terminal

    width, color = shutil.get_terminal_size((100, 24)).columns, sys.stdout.isatty()
    laid_out = sections_to_terminal(sections(found), width=width, color=color)
    sys.stdout.write(f"{laid_out.lstrip()}\n{verdict(found)}\n")
