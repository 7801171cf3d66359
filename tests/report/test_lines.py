"""Lines end between words, and never within a path: what is cut can neither be copied nor found again."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from convkit.report.document import Report
from convkit.report.lines import wrapped
from convkit.report.render import Format, render
from convkit.report.section import Section, facts
from convkit.report.terminal import sections_to_terminal
from report.samples import failed_report, faster_report

LONG = "/srv/models/of-a-team-with-a-long-name/releases/2026-11-20/resnet50/3/convkit/report.json"
WORDS = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=90)


@given(st.lists(WORDS, min_size=1).map(" ".join), st.integers(60, 120))
def test_nothing_is_lost_and_only_a_word_with_a_slash_is_wider(text: str, width: int) -> None:
    lines = wrapped(text, width).split("\n")

    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(cell_len(line) <= width or ("/" in line and " " not in line) for line in lines)


@given(st.lists(st.text("abc/", min_size=1, max_size=150).map(lambda text: f"/{text}"), min_size=1))
def test_paths_come_out_whole(paths: list[str]) -> None:
    assert wrapped(" ".join(paths), 60).split() == paths


def test_indentation_and_line_breaks_stay() -> None:
    assert wrapped("\n  two words\nthree", 60) == "\n  two words\nthree"


def test_a_value_beside_a_long_name_is_still_shown() -> None:
    section = Section(key="long", title="Long", table=facts(("n" * 200, "1 to 8"), ("short", "one two " * 20)))

    lines = sections_to_terminal([section], width=60).splitlines()

    assert f"{'n' * 200}  1 to 8" in lines
    assert max(map(len, lines)) <= 202 + 20


@pytest.mark.parametrize("width", [60, 100])
def test_the_paths_of_a_report_are_whole_on_the_terminal(width: int) -> None:
    failed = failed_report()
    assert failed.error is not None
    told = msgspec.structs.replace(failed.error, message=f"the file {LONG} is not what it was")
    reports: tuple[Report, ...] = (
        msgspec.structs.replace(faster_report(), report=LONG, model=LONG.removesuffix("/3/convkit/report.json")),
        msgspec.structs.replace(failed, error=told),
    )

    for report in reports:
        assert LONG in render(report, Format.TERMINAL, width=width).replace("\n", " ").split(" ")
