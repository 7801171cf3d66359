"""The commands, the errors that leave them, and the exit status."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import traceback
from typing import Any

import typer

from convkit.cli.failure import show_error, show_stopped, show_usage_error
from convkit.errors import ConvkitError, ExitStatus, InterruptedRunError, MissingError, TerminatedRunError

COMMANDS: dict[str, tuple[str, str]] = {
    "convert": ("convkit.cli.convert", "Convert, check, measure and publish a model."),
    "cache": ("convkit.cli.cache", "What is remembered, and making room."),
    "build": ("convkit.cli.build", "Build the engines still pending, where a GPU is."),
    "report": ("convkit.cli.report", "Show the report of a conversion, or of every model of a repository."),
    "compare": ("convkit.cli.compare", "What changed between two releases; where two models part."),
    "inspect": ("convkit.cli.inspect", "What a model takes, gives, costs and would run."),
    "check": ("convkit.cli.check", "Check whether a target takes a model; or check a repository."),
    "doctor": ("convkit.cli.doctor", "What this machine can do, and what to install for the rest."),
    "serve": ("convkit.cli.serve", "Start a Triton server on a repository, and say how to ask it."),
    "schema": ("convkit.cli.schema", "Print the JSON Schema of what convkit reads and writes."),
}
"""Every command: the module that defines it, and what it does. A module is imported only when its command runs."""


_TYPER_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
"""What typer raises for an option that it refuses; it gives the class no public name."""


class Stopped(BaseException):
    """Ctrl-C or SIGTERM has arrived; typer has an answer of its own to KeyboardInterrupt."""


class Interrupted(Stopped):
    """SIGINT has arrived."""


class Terminated(Stopped):
    """SIGTERM has arrived."""


_GOES_ON = "finished steps are remembered, the same command goes on from there"
_STOPPED_BY: dict[int, type[Stopped]] = {signal.SIGINT: Interrupted, signal.SIGTERM: Terminated}


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit status."""
    arguments = [_with_value(argument) for argument in arguments]
    as_json, debug = "--json" in arguments, "--debug" in arguments
    for number in _STOPPED_BY:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and shells without job control want it
            signal.signal(number, _stop)
    try:
        outcome = _application(arguments)(arguments, standalone_mode=False, prog_name="convkit")
        sys.stdout.flush()
        return int(outcome or ExitStatus.DONE)
    except ConvkitError as error:
        return _failed(error, debug=debug, as_json=as_json)
    except typer.Exit as ended:
        return ended.exit_code
    except (Interrupted, typer.Abort):
        return show_stopped(
            InterruptedRunError("interrupted", hint=_GOES_ON, code="convkit.interrupted"), as_json=as_json
        )
    except Terminated:
        return show_stopped(TerminatedRunError("terminated", hint=_GOES_ON, code="convkit.terminated"), as_json=as_json)
    except _TYPER_USAGE_ERROR as error:
        show_usage_error(error, as_json=as_json)
        return ExitStatus.USAGE
    except (BrokenPipeError, SystemExit):  # whoever read the output has read enough; typer exits where it notices
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.DONE
    except Exception as error:  # noqa: BLE001 - the last resort: a bug, said in one line
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _failed(_no_space(error), debug=debug, as_json=as_json)
        if isinstance(error, OSError) and error.errno in (errno.EIO, errno.ESTALE):
            return _failed(_failing_disk(error), debug=debug, as_json=as_json)
        return _failed(_bug(error), debug=True, as_json=as_json)


def _no_space(error: OSError) -> ConvkitError:
    where = error.filename or "what is written to: the cache, the repository, or where standard output goes"
    full = MissingError(f"no space left in {where}", hint="free some space and run the command again", code="disk.full")
    full.__cause__ = error
    return full


def _failing_disk(error: OSError) -> ConvkitError:
    where = error.filename or "what is read or written"
    failing = MissingError(
        f"the disk failed: {error.strerror}: {where}",
        hint="see to the disk or the mount, and run the command again",
        code="disk.failed",
    )
    failing.__cause__ = error
    return failing


def _with_value(argument: str) -> str:
    return "--trust=yes" if argument == "--trust" else argument  # --trust[=sha256:DIGEST]


def _application(arguments: list[str]) -> Any:
    """Make the typer application: with the command asked for alone, or with every name where none is."""
    app = typer.Typer(
        name="convkit",
        help="Convert a trained model into something a server can run, and prove what was done.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def options(
        version: bool = typer.Option(False, "--version", help="Show convkit's version."),
    ) -> None:
        """Convert a trained model into something a server can run, and prove what was done."""
        if version:
            from convkit import __version__

            typer.echo(f"convkit {__version__}")
            raise typer.Exit

    asked = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, (module, summary) in COMMANDS.items():
        if name == asked and hasattr(loaded := importlib.import_module(module), "application"):
            app.add_typer(loaded.application, name=name, help=summary)
        elif name == asked:
            app.command(name, help=summary, no_args_is_help=False)(loaded.command)
        else:
            app.command(name, help=summary)(_elsewhere)
    return typer.main.get_command(app)


def _elsewhere() -> None:
    """Stand in for a command that was not asked for."""


def _failed(error: ConvkitError, *, debug: bool, as_json: bool) -> int:
    if debug:
        traceback.print_exception(error)
    try:
        show_error(error, as_json=as_json)
    except OSError:  # standard output itself is what cannot be written
        show_error(error, as_json=False)
    return error.exit_status


def _bug(error: Exception) -> ConvkitError:
    bug = ConvkitError(
        f"a bug in convkit: {type(error).__name__}: {error}",
        hint="please report it with the command and the lines above; nothing was published",
        code="convkit.bug",
    )
    bug.__cause__ = error
    return bug


def _stop(number: int, _: object) -> None:
    raise _STOPPED_BY[number]
