"""How a command that failed says so: two lines on standard error, or one JSON object on standard output."""

from __future__ import annotations

import sys
import textwrap

from convkit.errors import ConvkitError, UsageError


def show_error(error: ConvkitError, *, as_json: bool) -> None:
    """Tell what failed and how to mend it."""
    if as_json:
        from convkit.report.document import Report, failed, to_json

        sys.stdout.write(to_json(error.document.head() if isinstance(error.document, Report) else failed(error)))
    where = f" ({error.stage})" if error.stage else ""
    sys.stderr.write(_styled(f"error{where}: ", "31;1") + error.message + "\n")
    sys.stderr.write(_styled("  hint: ", "36") + error.hint + "\n")
    if error.report:
        sys.stderr.write(textwrap.indent(f"report of this run: {error.report}\n", "  "))


def show_usage_error(error: BaseException, *, as_json: bool) -> None:
    """Tell about an option that typer itself refuses."""
    tell = getattr(error, "format_message", None)
    text = str(tell() if tell else error).replace("Value error, ", "")
    usage = UsageError(text, hint="convkit COMMAND --help lists the options", code="usage.option")
    show_error(usage, as_json=as_json)


def show_stopped(stopped: ConvkitError, *, as_json: bool) -> int:
    """Tell that a signal has ended the command, and return its exit status."""
    if as_json:
        from convkit.report.document import failed, to_json

        sys.stdout.write(to_json(failed(stopped)))
    sys.stderr.write(f"\nconvkit: {stopped.message}; {stopped.hint}\n")
    return stopped.exit_status


def _styled(text: str, code: str) -> str:
    return f"\033[{code}m{text}\033[0m" if sys.stderr.isatty() else text
