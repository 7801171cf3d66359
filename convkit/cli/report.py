"""`convkit report`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convkit.cli.shared_options import CustomOps
from convkit.cli.watch import watcher
from convkit.errors import InputError, UsageError
from convkit.report.render import Format
from convkit.spec.options import MeasureMode

if TYPE_CHECKING:
    from convkit.remeasuring import Remeasured


def command(
    path: Annotated[
        Path, typer.Argument(help="A report.json, a version's folder, a model, or a repository: the latest of each.")
    ],
    form: Annotated[Format | None, typer.Option("--format", help="How to show it. [terminal]")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there.")] = None,
    brief: Annotated[bool, typer.Option("--brief", help="On the terminal: what most want to know.")] = False,
    again: Annotated[
        bool,
        typer.Option("--remeasure", help="Measure what was published again, and say whether the figures hold."),
    ] = False,
    measure: Annotated[
        MeasureMode | None, typer.Option(help="With --remeasure: how long to measure latency. [quick]")
    ] = None,
    custom_ops: CustomOps = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Warnings and errors only, beside the result.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> int:
    """Show the report of a conversion, or of every model of a repository."""
    del debug  # read by the application, before anything else
    from convkit.reporting import report

    if as_json and form not in (None, Format.JSON):
        raise UsageError(
            f"--json and --format {form.value if form else ''}", hint="say one of them", code="usage.format"
        )
    chosen = Format.JSON if as_json else form or Format.TERMINAL
    if again:
        mode, silent = measure or MeasureMode.QUICK, quiet or chosen is Format.JSON
        return _remeasure(path, chosen, mode, output, tuple(custom_ops or ()), quiet=silent)
    for option, value in {"--measure": measure, "--custom-ops": custom_ops}.items():
        if value:
            raise UsageError(f"{option}: nothing is measured here", hint="add --remeasure", code="usage.together")
    width = shutil.get_terminal_size((100, 24)).columns
    text = report(path, chosen, width=width, color=output is None and sys.stdout.isatty(), details=not brief)
    _write(text, output)
    return 0


def _remeasure(
    path: Path, form: Format, mode: MeasureMode, output: Path | None, custom_ops: tuple[str, ...], *, quiet: bool
) -> int:
    """Measure again, show what came of it, and return the exit status."""
    if form not in (Format.TERMINAL, Format.JSON, Format.MARKDOWN):
        raise UsageError(
            f"--remeasure writes no {form.value}",
            hint="leave --format out, or say json or md",
            code="usage.together",
        )
    from convkit.remeasuring import remeasure

    with watcher(quiet=quiet) as observer:
        found = remeasure(path, mode=mode, custom_ops=custom_ops, observer=observer)
    _write(_laid_out(found, form, color=output is None and sys.stdout.isatty()), output)
    if found.error is not None:
        sys.stderr.write(f"error: {found.error.message}\n  hint: {found.error.hint}\n")
    return found.exit_code


def _laid_out(found: Remeasured, form: Format, *, color: bool) -> str:
    if form is Format.JSON:
        import msgspec

        return msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n"
    from convkit.report.again_sheet import again_sections

    sections = tuple(again_sections(found.models, found.inconclusive, found.notes))
    if form is Format.MARKDOWN:
        from convkit.report.markdown import sections_to_markdown

        return sections_to_markdown(sections)
    from convkit.report.terminal import sections_to_terminal

    return sections_to_terminal(sections, width=shutil.get_terminal_size((100, 24)).columns, color=color)


def _write(text: str, output: Path | None) -> None:
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
