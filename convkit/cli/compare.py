"""`convkit compare`."""

from __future__ import annotations

import shutil
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convkit.errors import UsageError

if TYPE_CHECKING:
    from convkit.comparing import Comparison


class Format(Enum):
    """How a comparison is written."""

    TERMINAL = "terminal"
    JSON = "json"
    MARKDOWN = "md"


_Path = Annotated[Path, typer.Argument(help="A report.json, a version's folder, a model, or a repository.")]


def command(
    before: _Path,
    after: _Path,
    fail_on_regression: Annotated[
        bool, typer.Option("--fail-on-regression", help="Exit status 5 where anything got worse.")
    ] = False,
    form: Annotated[Format | None, typer.Option("--format", help="How to show it. [terminal]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> int:
    """Compare two releases by their reports: size, operators, the outputs' numbers, latency."""
    del debug  # read by the application, before anything else
    from convkit.comparing import compare

    if as_json and form not in (None, Format.JSON):
        raise UsageError("--json and another --format", hint="say one of them", code="usage.format")
    found = compare(before, after, fail_on_regression=fail_on_regression)
    sys.stdout.write(_written(found, Format.JSON if as_json else form or Format.TERMINAL))
    if found.error is not None:
        sys.stderr.write(f"error: {found.error.message}\n  hint: {found.error.hint}\n")
    return found.exit_code


def _written(found: Comparison, form: Format) -> str:
    if form is Format.JSON:
        import msgspec

        return msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n"
    from convkit.report.changes_sheet import sections
    from convkit.report.sheet import plain

    notes = [f"only in the earlier release: {plain(name)}" for name in found.missing]
    notes += [f"only in the later release: {plain(name)}" for name in found.added]
    laid_out = tuple(sections(found.models))
    verdict = "\n".join(plain(line) for line in found.regressions) or "Nothing got worse."
    if form is Format.MARKDOWN:
        from convkit.report.markdown import escape, sections_to_markdown

        head = "\n\n".join(f"**{escape(line)}**" for line in (*verdict.splitlines(), *notes))
        return head + "\n\n" + sections_to_markdown(laid_out)
    from convkit.report.terminal import sections_to_terminal

    width, color = shutil.get_terminal_size((100, 24)).columns, sys.stdout.isatty()
    return "\n".join([*verdict.splitlines(), *notes, sections_to_terminal(laid_out, width=width, color=color)])
