"""Figures that were measured again, as sections of text for every renderer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from convkit.report.changes import Change, Figure, ModelChanges
from convkit.report.changes_sheet import sections
from convkit.report.section import Section, Table, plain_section

_WORDS = {
    Change.SAME: "holds",
    Change.BETTER: "better now",
    Change.WORSE: "FAILED to hold",
    Change.DIFFERENT: "another now",
    Change.NOT_COMPARABLE: "not told",
}


def again_sections(
    models: Iterable[ModelChanges], inconclusive: Sequence[str], notes: Sequence[str]
) -> Iterator[Section]:
    """Lay out every figure, then and now, and whether it holds; below, what was not measured again."""
    found = tuple(models)
    for model, section in zip(found, sections(found), strict=True):
        table = section.table
        assert table is not None
        unsure = model.name in inconclusive
        rows = tuple(
            (*row[:-1], "inconclusive" if unsure and figure.name == "latency" else _WORDS[figure.change])
            for row, figure in zip(table.rows, model.figures, strict=True)
        )
        version = "" if model.before.version is None else f", version {model.before.version}"
        yield plain_section(
            Section(
                key=section.key,
                title=f"{model.name}{version}: whether the figures hold",
                lines=tuple(_why(figure) for figure in model.figures if figure.why),
                table=Table(
                    columns=("", model.before.created[:10], "now", "change", "finding"), rows=rows, align="lrrrl"
                ),
            )
        )
    if notes:
        yield plain_section(Section(key="left-out", title="Not measured again", lines=tuple(notes)))


def _why(figure: Figure) -> str:
    return f"{figure.name}: {figure.why}."
