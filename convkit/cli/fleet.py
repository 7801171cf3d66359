"""`convkit convert RECIPE.toml`, where the recipe holds several ``[[model]]`` tables."""

from __future__ import annotations

import sys
from pathlib import Path

from convkit.cli.watch import Lines
from convkit.fleet import Fleet, FleetObserver, convert_fleet, read_fleet
from convkit.pipeline.events import Event, Warned
from convkit.report import units
from convkit.report.document import Report, Result, Role, to_json
from convkit.spec.recipe import Table


def convert_models(path: Path, arguments: Table, *, jobs: int | None, as_json: bool, quiet: bool) -> int:
    """Convert every model of a recipe, show a table of them, and return the worst exit status."""
    requests = read_fleet(path, arguments)
    fleet = convert_fleet(
        requests, jobs=jobs, observer=_watching(quiet=quiet or as_json), command=("convkit", *sys.argv[1:])
    )
    if as_json:
        sys.stdout.write(to_json(fleet.head()))
    elif not quiet:
        sys.stdout.write(table_of(fleet))
    for result in fleet.results:
        if result.error is not None:
            sys.stderr.write(f"error ({result.name}): {result.error.message}\n  hint: {result.error.hint}\n")
    return fleet.exit_code


def _watching(*, quiet: bool) -> FleetObserver:
    """Return an observer that puts the model's name before what is shown of it."""
    lines: dict[str, Lines] = {}

    def observe(name: str, event: Event) -> None:
        if not quiet or isinstance(event, Warned):
            lines.setdefault(name, Lines(f"{name}: ")).show(event)

    return observe


HEADINGS = ("model", "status", "version", "size", "speed-up", "time")


def table_of(fleet: Fleet) -> str:
    """Return a table with a line for each model."""
    rows = [HEADINGS, *map(_row, fleet.results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines) + "\n"


def _row(result: Report | Result) -> tuple[str, ...]:
    code = f"failed: {result.error.code}" if result.error else result.status.value
    return (
        result.name or "",
        f"{code} ({result.exit_code})" if result.error else code,
        "" if result.version is None else str(result.version),
        _size(result),
        _speedup(result),
        units.duration(sum(stage.seconds for stage in result.stages if not stage.cached)),
    )


def _size(result: Report | Result) -> str:
    final = result.subject(Role.FINAL) if isinstance(result, Report) else None
    return "" if final is None or final.file_bytes is None else units.size(final.file_bytes)


def _speedup(result: Report | Result) -> str:
    """Return how many times as fast as the source the final model is, where that was measured."""
    if not isinstance(result, Report):
        return ""
    before, after = result.subject(Role.SOURCE), result.subject(Role.FINAL)
    found = [c for c in result.comparisons if before and after and (c.before, c.after) == (before.label, after.label)]
    return f"{units.ratio(found[0].speedup)} times" if found else ""
