"""`convkit compare`."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convkit.cli.shared_options import CustomOps
from convkit.cli.watch import watcher
from convkit.errors import UsageError

if TYPE_CHECKING:
    from convkit.comparing import Comparison
    from convkit.comparing_models import ModelComparison
    from convkit.report.section import Section


class Format(Enum):
    """How a comparison is written."""

    TERMINAL = "terminal"
    JSON = "json"
    MARKDOWN = "md"


_Path = Annotated[
    Path, typer.Argument(help="A report.json, a version's folder, a model or repository; or a source model.")
]


def command(
    before: _Path,
    after: _Path,
    fail_on_regression: Annotated[
        bool, typer.Option("--fail-on-regression", help="Of reports: exit status 5 where anything got worse.")
    ] = False,
    tensors: Annotated[
        bool, typer.Option("--tensors", help="Run what was published, rather than compare its reports.")
    ] = False,
    bisect: Annotated[
        bool, typer.Option("--bisect", help="Find the first node that differs, and write it as a model.")
    ] = False,
    write: Annotated[Path | None, typer.Option(metavar="FILE.onnx", help="Where to. [NODE.onnx]")] = None,
    samples: Annotated[Path | None, typer.Option(metavar="FILE.npz", help="Inputs for both models.")] = None,
    max_error: Annotated[float | None, typer.Option(min=0, help="Largest absolute difference allowed.")] = None,
    min_sqnr: Annotated[float | None, typer.Option(help="Least signal-to-noise ratio allowed, dB.")] = None,
    trust: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[=sha256:DIGEST]", help="Run the code beside the models; with a digest, that file alone."
        ),
    ] = None,
    custom_ops: CustomOps = None,
    time_limit: Annotated[
        str | None, typer.Option(metavar="TIME", help="Longest time of one step. [any; one run of a model: 10m]")
    ] = None,
    form: Annotated[Format | None, typer.Option("--format", help="How to show it. [terminal]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Warnings and errors only, beside the result.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> int:
    """Compare two releases by their reports, or two models tensor by tensor."""
    del debug  # read by the application, before anything else
    from convkit.model_paths import has_report

    if as_json and form not in (None, Format.JSON):
        raise UsageError("--json and another --format", hint="say one of them", code="usage.format")
    if write is not None and not bisect:
        raise UsageError("--write says where --bisect writes to", hint="add --bisect", code="usage.together")
    shape = Format.JSON if as_json else form or Format.TERMINAL
    running = tensors or bisect or samples is not None or not (has_report(before) and has_report(after))
    found: Comparison | ModelComparison
    if running:
        _refuse({"--fail-on-regression": fail_on_regression}, "two models: it judges reports")
        from convkit.comparing_models import compare_models
        from convkit.spec.options import CheckOptions, LimitOptions

        with watcher(quiet=quiet or as_json) as observer:
            found = compare_models(
                before,
                after,
                samples=samples,
                trust=tuple(trust or ()),
                custom_ops=tuple(custom_ops or ()),
                check=CheckOptions(max_error=max_error, min_sqnr=min_sqnr),
                bisecting=bisect,
                write=write,
                limits=LimitOptions(time=time_limit),
                observer=observer,
            )
        written = _models(found, shape)
    else:
        options: dict[str, object] = {
            "--max-error": max_error,
            "--min-sqnr": min_sqnr,
            "--trust": trust,
            "--custom-ops": custom_ops,
            "--time-limit": time_limit,
        }
        _refuse(options, "two reports: add --tensors to run the models")
        from convkit.comparing import compare

        found = compare(before, after, fail_on_regression=fail_on_regression)
        written = _releases(found, shape)
    sys.stdout.write(written)
    if found.error is not None:
        sys.stderr.write(f"error: {found.error.message}\n  hint: {found.error.hint}\n")
    return found.exit_code


def _refuse(options: dict[str, object], what: str) -> None:
    for option, value in options.items():
        if value not in (None, False):
            raise UsageError(f"{option} does not go with {what}", hint="leave it out", code="usage.together")


def _releases(found: Comparison, form: Format) -> str:
    if form is Format.JSON:
        return _json(found)
    from convkit.report.changes_sheet import sections
    from convkit.report.section import plain

    notes = [f"only in the earlier release: {plain(name)}" for name in found.missing]
    notes += [f"only in the later release: {plain(name)}" for name in found.added]
    verdict = [plain(line) for line in found.regressions] or ["Nothing got worse."]
    return _laid_out([*verdict, *notes], tuple(sections(found.models)), form)


def _models(found: ModelComparison, form: Format) -> str:
    if form is Format.JSON:
        return _json(found)
    from convkit.report.section import plain
    from convkit.report.tensors_sheet import parting_sections, tensor_section

    sets = f"{found.cases} set{'s' * (found.cases != 1)} of inputs"
    sections: tuple[Section, ...] = ()
    verdict = [f"{'FAILED' if found.error else 'Passed'} on {sets}; asked: {found.tolerance}."]
    if (search := found.search) is not None:
        verdict.append(f"{search.tensors} tensors lie on the way to the outputs; {search.runs} runs of both models.")
        if search.outputs_agree:
            verdict.append("All outputs agree" + ("; a difference inside dies out." if search.found else "."))
        if search.found is not None:
            sections = tuple(parting_sections(search.found, (str(search.model), str(search.data))))
    else:
        verdict += [f"{found.only_before} tensors are in the earlier graph alone."] if found.only_before else []
        verdict += [f"{found.only_after} tensors are in the later graph alone."] if found.only_after else []
        sections = (tensor_section(found.tensors, found.starts, full=form is Format.MARKDOWN),)
    return _laid_out([plain(line) for line in verdict], sections, form)


def _laid_out(lines: list[str], sections: tuple[Section, ...], form: Format) -> str:
    if form is Format.MARKDOWN:
        from convkit.report.markdown import escape, sections_to_markdown

        return "\n\n".join(f"**{escape(line)}**" for line in lines) + "\n\n" + sections_to_markdown(sections)
    import shutil

    from convkit.report.terminal import sections_to_terminal

    width, color = shutil.get_terminal_size((100, 24)).columns, sys.stdout.isatty()
    return "\n".join([*lines, sections_to_terminal(sections, width=width, color=color)])


def _json(found: Comparison | ModelComparison) -> str:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n"
