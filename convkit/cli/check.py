"""`convkit check`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convkit.cli.shared_options import CustomOps
from convkit.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from convkit.checking import CheckedModel, CheckReport
    from convkit.serving.remark import Remark
    from convkit.spec.recipe import Table


def command(
    path: Annotated[
        Path, typer.Argument(metavar="MODEL|REPOSITORY", help="A model; or a repository, or REPOSITORY/NAME.")
    ],
    to: Annotated[str | None, typer.Option(help="A model: the target that is to take it.")] = None,
    fix: Annotated[bool, typer.Option("--fix", help="A model: mend what can be, into another file.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.onnx", help="Where to. [NAME.mended.onnx]")
    ] = None,
    config: Annotated[str | None, typer.Option(help="A model: its config.txt.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="A model: a TOML file, as for convert.")] = None,
    trust: Annotated[
        list[str] | None,
        typer.Option(metavar="[=sha256:DIGEST]", help="A model: run the code beside it; with a digest, that file."),
    ] = None,
    custom_ops: CustomOps = None,
    triton: Annotated[str | None, typer.Option(help="Triton release that is to serve it, such as 26.07.")] = None,
    tensorrt: Annotated[str | None, typer.Option(help="TensorRT that is to load the engines, such as 10.16.")] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Start a Triton server, and compare its answers with the recorded ones.")
    ] = False,
    verify_key: Annotated[
        Path | None, typer.Option(metavar="PUB.pem", help="Every manifest must be signed with this key's private half.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing where nothing is wrong.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> int:
    """Check whether a target takes a model; or a repository: digests, configurations, releases, a server's answers."""
    del debug  # read by the application, before anything else
    import msgspec

    from convkit.cli.convert import refuse_together

    given: dict[str, object] = {"--to": to, "--fix": fix, "--output": output, "--config": config, "--recipe": recipe}
    given |= {"--trust": trust, "--custom-ops": custom_ops}
    of_repository: dict[str, object] = {"--triton": triton, "--serve": serve, "--verify-key": verify_key}
    if _is_model(path, any(given.values())):
        refuse_together({**of_repository, "--tensorrt": tensorrt}, "a model; it is for a repository")
        if output is not None and not fix:
            raise UsageError("--output says where --fix writes to", hint="add --fix", code="usage.together")
        arguments = {"model": str(path), "to": to, "config": config, "trust": trust}
        table: Table = {key: value for key, value in arguments.items() if value is not None}
        if custom_ops:
            table["export"] = {"custom_ops": custom_ops}
        return _check_model(table, recipe, fix=fix, output=output, as_json=as_json, quiet=quiet)

    from convkit.checking import CheckStatus, check

    report = check(path, triton=triton, tensorrt=tensorrt, serve=serve, key=verify_key)
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n")
    elif not quiet or report.status is CheckStatus.FAILED:
        _show(report)
    return report.exit_code


def _is_model(path: Path, asked_as_one: bool) -> bool:
    """Tell whether a path is a model to convert; what is neither that nor a repository is one where it is said to be.

    Raises:
        UsageError: it is a repository, and an option for models is given.
    """
    from convkit.preflighting import is_source

    if is_source(path):
        return True
    from convkit.model_paths import is_published

    if asked_as_one and is_published(path):
        raise UsageError(
            f"{path} is a model repository, and an option for models is given",
            hint="name the model that is to be converted, or leave the option out",
            code="usage.together",
        )
    return asked_as_one


def _check_model(
    arguments: Table, recipe: Path | None, *, fix: bool, output: Path | None, as_json: bool, quiet: bool
) -> int:
    import msgspec

    from convkit.cli.preflight import show
    from convkit.cli.watch import watcher
    from convkit.preflighting import check_model
    from convkit.request import make_request

    request = make_request(arguments, recipe=recipe)
    with watcher(quiet=True) as observer:
        result = check_model(request, fix=fix, output=output, observer=observer)
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(result), indent=2).decode() + "\n")
    elif not quiet or result.exit_code:
        show(result)
    return result.exit_code


def _show(report: CheckReport) -> None:
    from rich.console import Console

    color = sys.stdout.isatty()
    console = Console(
        width=shutil.get_terminal_size((100, 24)).columns,
        no_color=not color,
        highlight=False,
        markup=False,
        emoji=False,
    )
    _show_table(console, report)
    remarks = sorted(report.remarks, key=lambda remark: _ORDER.index(remark.severity.value))
    for remark in remarks:
        _show_remark(console, remark)
    counts = [sum(remark.severity.value == name for remark in remarks) for name in _ORDER]
    verdict = "nothing is wrong" if not counts[0] else f"{counts[0]} {'error' if counts[0] == 1 else 'errors'}"
    summary = f"{report.repository}: {verdict}; {_count(counts[1], 'warning')}, {_count(counts[2], 'note')}"
    console.print(summary, soft_wrap=True)


_ORDER = ("error", "warning", "note")
_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


def _show_table(console: Console, report: CheckReport) -> None:
    from rich import box
    from rich.table import Table

    served = any(version.served for model in report.models for version in model.versions)
    table = Table(box=box.SIMPLE_HEAD)
    for title in ("Model", "Version", "Files", *(["Served"] if served else []), "Verdict"):
        table.add_column(title, justify="right" if title in ("Version", "Files") else "left")
    for model in report.models:
        verdict = _verdict(model)
        style = "bold red" if "error" in verdict else "green"
        for number, version in enumerate(model.versions):
            files = str(version.files) if version.recorded else "no manifest"
            row = [
                model.name if number == 0 else "",
                f"{version.version}{' (pending)' if version.pending else ''}",
                files,
                *([version.served or ""] if served else []),
            ]
            table.add_row(*row, _styled(verdict if number == 0 else "", style))
        if not model.versions:
            table.add_row(model.name, "none", "", *([""] if served else []), _styled(verdict, style))
    console.print(table)


def _verdict(model: CheckedModel) -> str:
    counts = {name: sum(remark.severity.value == name for remark in model.findings) for name in _ORDER}
    return ", ".join(_count(count, name) for name, count in counts.items() if count) or "good"


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"


def _styled(text: str, style: str) -> Text:
    from rich.text import Text

    return Text(text, style=style)


def _show_remark(console: Console, remark: Remark) -> None:
    from rich.text import Text

    head = Text()
    head.append(f"{remark.severity.value}: ", style=_STYLES[remark.severity.value])
    head.append(f"{remark.message} [{remark.code}]")
    console.print(head, soft_wrap=True)
    console.print(f"  {remark.hint}", soft_wrap=True)
