"""Two models held against each other, as sections of text for every renderer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from convkit.measure.bisect import Parting
from convkit.measure.compare import OutputDifference
from convkit.measure.tensors import TensorDifference
from convkit.report import units
from convkit.report.section import Section, Table, plain_section

SHOWN = 30
"""Rows of the table where not all are asked for; outputs are always in it."""


def tensor_section(tensors: Sequence[TensorDifference], starts: TensorDifference | None, *, full: bool) -> Section:
    """Lay out tensors that come worst first."""
    rows = [tensor for number, tensor in enumerate(tensors) if full or number < SHOWN or tensor.is_output]
    left = len(tensors) - len(rows)
    lines = [f"The difference starts at '{starts.name}', {_maker(starts)}."] if starts and starts.operator else []
    lines += [f"{left} more tensors differ less; --json has all."] if left else []
    return plain_section(
        Section(
            key="tensors",
            title="Tensors, worst first",
            lines=tuple(lines),
            table=Table(
                columns=("tensor", "operator", "order", *_COLUMNS, ""),
                rows=tuple(
                    (
                        tensor.name + (" (output)" if tensor.is_output else ""),
                        tensor.operator,
                        str(tensor.position + 1),
                        *_figures(tensor),
                        "passed" if tensor.passed else "FAILED",
                    )
                    for tensor in rows
                ),
                align="llrrrrrl",
            ),
        )
    )


def parting_sections(found: Parting, files: tuple[str, str]) -> Iterator[Section]:
    """Lay out where two models part."""
    facts = (
        ("node", f"{found.node} ({found.operator})"),
        ("output", found.difference.name),
        ("held against", found.against),
        ("inputs that agree", ", ".join(found.inputs)),
        ("nodes in the file", ", ".join(found.nodes)),
        ("model", files[0]),
        ("inputs, expected output", files[1]),
        *zip(_COLUMNS, _figures(found.difference), strict=True),
    )
    yield plain_section(
        Section(key="parting", title="Where the models part", table=Table(columns=(), rows=facts, align="ll"))
    )


_COLUMNS = ("max abs", "max rel", "cosine", "SQNR")


def _figures(difference: OutputDifference) -> tuple[str, str, str, str]:
    return (
        units.difference(difference.max_abs),
        units.difference(difference.max_rel),
        units.cosine(difference.cosine),
        units.decibel(difference.sqnr_db, max_abs=difference.max_abs),
    )


def _maker(tensor: TensorDifference) -> str:
    return f"made by the node '{tensor.node}' ({tensor.operator}), number {tensor.position + 1} in topological order"
