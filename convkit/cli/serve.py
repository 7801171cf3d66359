"""`convkit serve`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convkit.errors import ExitStatus

if TYPE_CHECKING:
    from convkit.hosting import Serving


def command(
    repository: Annotated[Path, typer.Argument(help="A model repository, or one model in it: REPOSITORY/NAME.")],
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen; 0.0.0.0: everywhere.")] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of HTTP; 0: any that is free.")] = 8000,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of gRPC; 0: any that is free.")] = 8001,
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the metrics; 0: any free.")] = 8002,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on standard output as soon as it is ready.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the server's log on standard error.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> int:
    """Start a Triton server on a repository, and say how to ask it. Ctrl-C ends it."""
    del debug  # read by the application, before anything else
    import msgspec

    from convkit.cli.app import Interrupted, Terminated
    from convkit.hosting import host as hosted
    from convkit.serving.server import Listen

    ready = False
    try:
        with hosted(repository, Listen(host, http_port, grpc_port, metrics_port)) as (server, serving):
            ready = True
            text = msgspec.json.encode(serving).decode() + "\n" if as_json else _told(serving)
            sys.stdout.write(text)
            sys.stdout.flush()
            server.wait(sys.stderr.write if verbose else None)
    except (Interrupted, Terminated) as stopped:
        if not ready:
            raise
        sys.stderr.write("\nconvkit: the server was ended\n")
        return ExitStatus.INTERRUPTED if isinstance(stopped, Interrupted) else ExitStatus.TERMINATED
    return ExitStatus.DONE


def _told(serving: Serving) -> str:
    from convkit.report.section import printable

    lines = [f"Ready: {serving.repository}", f"  HTTP     {serving.http}", f"  gRPC     {serving.grpc}"]
    if serving.metrics:
        lines.append(f"  metrics  {serving.metrics}")
    for model in serving.models:
        lines += ["", f"{model.name}, version {model.version}"]
        lines += [f"  {printable(line)}" for line in (model.client, model.curl) if line]
    for name in serving.pending:
        lines += ["", f"{name} is not served: its engine is still to be built (convkit build)"]
    return "\n".join([*lines, "", "Ctrl-C ends it."]) + "\n"
