"""A comparison of releases as sections of text, for every renderer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from convkit.report import units
from convkit.report.changes import Change, Figure, ModelChanges, Release
from convkit.report.section import Section, Table, plain_section


def sections(models: Iterable[ModelChanges]) -> Iterator[Section]:
    """Lay a comparison out: a section for each model."""
    for model in models:
        yield plain_section(
            Section(
                key=model.name,
                title=f"{model.name}: {_release(model.before)} → {_release(model.after)}",
                table=Table(
                    columns=("", "before", "after", "change", "finding"),
                    rows=tuple(_row(figure) for figure in model.figures),
                    align="lrrrl",
                ),
                lines=tuple(f"{figure.name}: {figure.why}." for figure in model.figures if figure.why),
            )
        )


def shown(figure: Figure) -> str:
    """Say in a few words what became of a figure."""
    why = f" ({figure.why})" if figure.why and figure.change is Change.WORSE and figure.unit == "dB" else ""
    return f"{_value(figure, figure.before)} → {_value(figure, figure.after)}{why}"


def _row(figure: Figure) -> tuple[str, ...]:
    finding = "WORSE" if figure.change is Change.WORSE else figure.change.value
    return figure.name, _value(figure, figure.before), _value(figure, figure.after), _moved(figure), finding


def _moved(figure: Figure) -> str:
    if figure.before is None or figure.after is None or figure.change is Change.NOT_COMPARABLE:
        return units.NOTHING
    if figure.unit == "dB":
        return f"{figure.after - figure.before:+.1f} dB"
    return f"{100 * (figure.after / figure.before - 1):+.1f} %" if figure.before else units.NOTHING


def _value(figure: Figure, value: float | None) -> str:
    if value is None:
        return units.NOTHING
    match figure.unit:
        case "bytes":
            return units.size(int(value))
        case "ms":
            return units.milliseconds(value)
        case "dB":
            return units.decibel(value, max_abs=None)
        case _:
            return units.count(int(value))


def _release(release: Release) -> str:
    version = "" if release.version is None else f"version {release.version}, "
    return f"{version}{release.target} {release.precision}, {release.created[:10]}"
