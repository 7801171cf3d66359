"""Reports that were written before: finding them, and showing them in another form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from convkit.errors import InputError
from convkit.pipeline.artifact import read_record
from convkit.report.document import Report, read_report
from convkit.report.render import Format, render_all
from convkit.serving.check_layout import find_models, versions_of
from convkit.serving.layout import is_model
from convkit.serving.publish import RECORDS

REPORT = "report.json"
_HINT = "name a report.json, a version's folder, a model, or a model repository that convkit has written"


def report(
    path: Path, form: Format = Format.TERMINAL, *, width: int = 80, color: bool = False, details: bool = True
) -> str:
    """Show the report of a conversion, or those of a repository's models, as text that ends with a newline.

    Args:
        path: a report.json, a version's folder, a model (its latest version, pending ones too), or a repository (the
            latest version of each model).
        form: how it is written; several reports make one document.
        width: columns of the terminal, at least 60; the other forms take no notice of this and of the following.
        color: whether the terminal's form may hold colour sequences.
        details: whether the terminal's form shows operators, steps, source and machine.

    Raises:
        InputError: there is no report, or one that cannot be read.
    """
    reports = list(read_reports(path).values())
    return render_all(reports, form, width=width, color=color, details=details)


def read_reports(path: Path) -> dict[str, Report]:
    """Read the reports that a path stands for, as `report` finds them: by the model's name, in the names' order.

    Models of a repository that convkit did not make have none, and are left out.

    Raises:
        InputError: there is no report at all, or one that cannot be read.
    """
    return {document.name or file.parent.name: document for file, document in find_reports(path)}


def find_reports(path: Path) -> Iterator[tuple[Path, Report]]:
    """Go through the reports that a path stands for, each with its file.

    Raises:
        InputError: there is no report at all, or one that cannot be read.
    """
    for file in _files(path):
        yield file, read_report(_bytes_of(file), where=str(file))


def _bytes_of(file: Path) -> bytes:
    try:
        return read_record(file)
    except OSError as error:
        raise InputError(
            f"{file} cannot be read: {error.strerror}", hint="let this user read it", code="report.unreadable"
        ) from error


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    for file in (path / RECORDS / REPORT, path / REPORT):
        if file.is_file():
            return [file]
    if not path.is_dir():
        raise InputError(f"{path} does not exist", hint=_HINT, code="report.missing")
    latest = [_latest(model) for model in find_models(path)[1]]
    files = [file for file in latest if file is not None]
    if not files:
        what = "the latest version has" if is_model(path) else "its models have"
        raise InputError(f"{path}: {what} no {REPORT}", hint=_HINT, code="report.missing")
    return files


def _latest(model: Path) -> Path | None:
    """Return the report of a model's version with the highest number; None where that has none."""
    version = max(versions_of(model), key=lambda version: version.number, default=None)
    file = version.records / REPORT if version else None
    return file if file is not None and file.is_file() else None
