"""A report that was measured beside others says why it is not sure, and claims nothing that waiting may have made."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from convkit.remeasuring import _is_unsure
from convkit.report.changes import Change, ModelChanges, compare_reports
from convkit.report.document import Report, Role
from convkit.report.latency import Comparison, Finding
from convkit.report.render import Format, render
from tests.report.samples import FP32, INT8, faster_report, latency, with_verdict

BUSY = "The machine was busy: timed calls waited 34 % of their time for a processor"


def compared(finding: Finding, *, waited: float | None) -> Comparison:
    return Comparison(
        before=FP32, after=INT8, speedup=1.0, low=0.99, high=1.01, rounds=20, finding=finding,
        before_waited=0.01, after_waited=waited,
    )  # fmt: skip


def shown(form: Format, *comparisons: Comparison) -> str:
    written = render(with_verdict(faster_report(), comparisons=comparisons), form, **WIDE.get(form, {}))
    return " ".join(written.split())


WIDE: dict[Format, dict[str, Any]] = {Format.TERMINAL: {"width": 400}}


@pytest.mark.parametrize("form", [Format.TERMINAL, Format.MARKDOWN, Format.HTML])
def test_it_says_once_why_comparisons_are_inconclusive_and_what_to_do(form: Format) -> None:
    unsure = compared(Finding.INCONCLUSIVE, waited=0.34)
    text = shown(form, unsure, unsure)

    assert text.count(BUSY) == 1
    assert "measure with --measure full while nothing else runs" in text


@pytest.mark.parametrize(
    ("finding", "waited"),
    [(Finding.SAME, 0.34), (Finding.INCONCLUSIVE, 0.01), (Finding.INCONCLUSIVE, None)],
    ids=["conclusive", "idle", "not known"],
)
def test_nothing_is_laid_to_others_that_they_did_not_do(finding: Finding, waited: float | None) -> None:
    assert "was busy" not in shown(Format.MARKDOWN, compared(finding, waited=waited))


def with_latency(p50: float, **changes: Any) -> Report:
    """Return a report whose final model has an interval of 1.5 % below and 2 % above its median, in ms."""
    report = faster_report()
    return replace(
        report,
        subjects=tuple(
            replace(each, latency=replace(latency(p50), **changes)) if each.role is Role.FINAL else each
            for each in report.subjects
        ),
    )


def test_the_report_has_how_long_was_waited() -> None:
    assert "up to 12.3 % of the time of timed calls" in render(with_latency(10.0, waited=0.1234), Format.MARKDOWN)


def changed(before: Report, after: Report) -> tuple[ModelChanges, Change, str]:
    changes = compare_reports("m", before, after)
    figure = next(figure for figure in changes.figures if figure.name == "latency")
    return changes, figure.change, figure.why


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ((10.0, None), (12.0, 0.3), Change.SAME),
        ((10.0, None), (20.0, 0.3), Change.WORSE),
        ((12.0, 0.3), (10.0, None), Change.SAME),
        ((20.0, 0.3), (10.0, None), Change.BETTER),
        ((10.0, 0.3), (12.0, None), Change.WORSE),  # by itself the old one was no slower
        ((12.0, None), (10.0, 0.3), Change.BETTER),
    ],
)
def test_releases_differ_by_more_than_waiting_may_have_made(
    before: tuple[float, float | None], after: tuple[float, float | None], change: Change
) -> None:
    _, found, why = changed(with_latency(before[0], waited=before[1]), with_latency(after[0], waited=after[1]))

    assert found is change
    assert "the machine was busy: timed calls waited 30 % of their time" in why


@pytest.mark.parametrize(
    ("now_ms", "waited", "unsure"), [(12.0, 0.3, True), (10.0, 0.3, True), (10.0, 0.01, False), (40.0, 0.3, False)]
)
def test_a_latency_that_holds_only_because_of_waiting_is_inconclusive(
    now_ms: float, waited: float, unsure: bool
) -> None:
    now = with_latency(now_ms, waited=waited)
    changes, _, _ = changed(with_latency(10.0), now)

    assert _is_unsure(changes, now) is unsure
