"""`convkit inspect`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convkit.cli.shared_options import CustomOps
from convkit.errors import UsageError

if TYPE_CHECKING:
    from convkit.report.inspection import Inspection


def command(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model of any source, an engine, a version, or a repository.")
    ],
    quick: Annotated[bool, typer.Option("--quick", help="Export nothing: what the files themselves tell.")] = False,
    no_roofline: Annotated[
        bool, typer.Option("--no-roofline", help="Leave out what bounds it here; nothing is measured.")
    ] = False,
    write: Annotated[bool, typer.Option("--write", help="Draft a config.txt beside the model.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Draft it there. [beside MODEL]")
    ] = None,
    config: Annotated[str | None, typer.Option(help="Its config.txt. [beside or inside MODEL]")] = None,
    trust: Annotated[
        list[str] | None,
        typer.Option(metavar="[=sha256:DIGEST]", help="Run the code beside it; with a digest, that file alone."),
    ] = None,
    model_def: Annotated[
        str | None, typer.Option(metavar="FILE.py:factory", help="What builds the network of a state dict.")
    ] = None,
    state_key: Annotated[str | None, typer.Option(help="Where in a checkpoint the weights are.")] = None,
    signature: Annotated[str | None, typer.Option(help="The signature of a SavedModel.")] = None,
    custom_ops: CustomOps = None,
    samples: Annotated[
        str | None, typer.Option(metavar="FILE.npz", help="Inputs for the call that is counted.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Warnings and errors only, beside the result.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> int:
    """Show what a model takes, gives, costs, and would run; draft its config.txt. Nothing untrusted runs."""
    del debug  # read by the application, before anything else
    if output is not None and not write:
        raise UsageError("--output says where --write writes to", hint="add --write", code="usage.together")
    import msgspec

    from convkit.cli.watch import watcher
    from convkit.inspecting import inspect_model
    from convkit.request import make_request

    export: dict[str, object] = {"model_def": model_def, "state_key": state_key, "signature": signature}
    export |= {"samples": samples, "custom_ops": custom_ops}
    given = {"model": model, "config": config, "trust": trust, "export": {k: v for k, v in export.items() if v}}
    request = make_request({key: value for key, value in given.items() if value}, recipe=None)
    with watcher(quiet=quiet or as_json) as observer:
        told = inspect_model(
            request, quick=quick, roofline=not no_roofline, write=write, output=output, observer=observer
        )
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(told), indent=2).decode() + "\n")
    else:
        _show(told)
    return told.exit_code


def _show(told: Inspection) -> None:
    from convkit.report.inspection_sheet import sections
    from convkit.report.terminal import sections_to_terminal

    width, color = shutil.get_terminal_size((100, 24)).columns, sys.stdout.isatty()
    sys.stdout.write(sections_to_terminal(sections(told), width=width, color=color).lstrip("\n"))
