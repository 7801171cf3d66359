"""`convkit build`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from convkit.cli.handing_over import find_program, hand_over
from convkit.cli.watch import watcher
from convkit.spec.options import LimitOptions, MeasureMode


def command(
    repository: Annotated[Path, typer.Argument(help="A model repository, or one model in it: REPOSITORY/NAME.")],
    server: Annotated[
        list[str] | None, typer.Argument(metavar="[-- CMD...]", help="What to start once every engine stands.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="See to live versions too: their engines for this GPU and this TensorRT.")
    ] = False,
    into: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Make a ready repository here; the first may be read-only.")
    ] = None,
    execute: Annotated[
        str | None, typer.Option("--exec", metavar="CMD", help="Then become this program, such as the server.")
    ] = None,
    sign: Annotated[
        Path | None, typer.Option(metavar="KEY.pem", help="Sign the manifests with this private key.")
    ] = None,
    eval_data: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Evaluation data that were too large to lie beside a pending engine."),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(metavar="FILE.py:FUNCTION", help="The metric of your own that a pending engine is judged by."),
    ] = None,
    measure: Annotated[
        MeasureMode, typer.Option(help="How long to time each engine; none: only where a gate asks for it.")
    ] = MeasureMode.NONE,
    memory_limit: Annotated[
        str | None, typer.Option(metavar="BYTES", help="Most memory of the workers, such as 8GB. [what there is]")
    ] = None,
    time_limit: Annotated[
        str | None, typer.Option(metavar="TIME", help="Longest time of one step, such as 90s or 30m. [any]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Warnings and errors only.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Build the engines that a conversion without a GPU has left pending."""
    del debug  # read by the application, before anything else
    from convkit.building import build
    from convkit.report.document import Report, Status, to_json
    from convkit.report.terminal import to_terminal

    program = find_program(execute, server or [])
    limits = LimitOptions(memory=memory_limit, time=time_limit)
    with watcher(quiet=quiet or as_json) as observer:
        reports = build(
            repository,
            everything=everything,
            into=into,
            observer=observer,
            sign=sign,
            limits=limits,
            eval_data=eval_data,
            metric=metric,
            measure=measure,
        )
    built = [report for report in reports if report.status is not Status.UNCHANGED]
    if as_json:
        from convkit.report.document import Built

        status = Status.OK if built else Status.UNCHANGED
        heads = tuple(report.head() for report in reports)
        sys.stdout.write(to_json(Built(status=status, exit_code=0, results=heads)))
    elif not quiet:
        if not reports:
            live = "; --all sees to live versions too, after an update of TensorRT or on another GPU"
            sys.stdout.write(f"nothing is pending in {repository}{'' if everything else live}\n")

        def show(report: Report) -> str:
            if report.status is Status.UNCHANGED:
                return f"{report.name} version {report.version}: its engine is the one for this GPU and this TensorRT\n"
            width = shutil.get_terminal_size((100, 24)).columns
            return to_terminal(report, width=width, color=sys.stdout.isatty(), details=False)

        sys.stdout.writelines(show(report) for report in reports)
    if program:
        hand_over(program)
