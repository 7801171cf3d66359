"""The rules by which one release is compared with the one before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from convkit.comparing import Comparison, compare
from convkit.errors import InputError
from convkit.report.changes import Change, Figure, compare_reports
from convkit.report.document import Engine, Report, to_json
from convkit.report.latency import Latency
from tests.report.samples import faster_report


def with_final(report: Report, **changes: Any) -> Report:
    """Return a report whose final model has other figures."""
    *others, final = report.subjects
    return msgspec.structs.replace(report, subjects=(*others, msgspec.structs.replace(final, **changes)))


def figures(before: Report, after: Report) -> dict[str, Figure]:
    return {figure.name: figure for figure in compare_reports("m", before, after).figures}


def change_of(name: str, before: Report, after: Report) -> Change:
    return figures(before, after)[name].change


def test_a_release_is_no_different_from_itself() -> None:
    found = figures(faster_report(), faster_report())

    assert {figure.change for figure in found.values()} == {Change.SAME}
    assert set(found) > {"size", "operators", "latency", "numbers: probs"}


@pytest.mark.parametrize(
    ("after", "change"), [(1009, Change.SAME), (1011, Change.WORSE), (991, Change.SAME), (980, Change.BETTER)]
)
def test_a_file_is_larger_from_one_percent_on(after: int, change: Change) -> None:
    base = faster_report()

    assert change_of("size", with_final(base, file_bytes=1000), with_final(base, file_bytes=after)) is change


def test_the_size_of_a_built_engine_says_nothing_of_one_still_to_be_built() -> None:
    pending = msgspec.structs.replace(faster_report(), engine=Engine.DEFERRED)
    built = msgspec.structs.replace(faster_report(), engine=Engine.BUILT)

    assert change_of("size", pending, built) is Change.NOT_COMPARABLE


def latency(low: float, p50: float, high: float, *, batch: int = 1) -> Latency:
    return Latency(
        p50_ms=p50, p90_ms=p50, p99_ms=p50, mean_ms=p50, low_ms=low, high_ms=high, calls=99, rounds=8, batch=batch
    )


@pytest.mark.parametrize(
    ("after", "change"),
    [
        (latency(10.8, 11.0, 11.2), Change.WORSE),
        (latency(8.8, 9.0, 9.2), Change.BETTER),
        (latency(10.05, 11.0, 12.0), Change.SAME),
        (latency(10.11, 10.2, 10.29), Change.SAME),
        (latency(10.8, 11.0, 11.2, batch=8), Change.NOT_COMPARABLE),
        (None, Change.NOT_COMPARABLE),
    ],
    ids=["slower", "faster", "overlapping", "apart by 2 %", "another batch", "not measured"],
)
def test_a_latency_has_changed_only_beyond_doubt(after: Latency | None, change: Change) -> None:
    base = faster_report()
    before = with_final(base, latency=latency(9.9, 10.0, 10.1))

    assert change_of("latency", before, with_final(base, latency=after)) is change


@pytest.mark.parametrize(
    ("facts", "named"),
    [({"cpu": "another"}, "another"), ({"cores": 64}, "cores 2 and 64"), ({"memory_bytes": 2**30}, "memory")],
)
def test_latencies_of_different_machines_are_not_compared(facts: dict[str, Any], named: str) -> None:
    before = faster_report()
    elsewhere = msgspec.structs.replace(before, machine=msgspec.structs.replace(before.machine, **facts))
    after = with_final(elsewhere, latency=latency(900, 1000, 1100))

    found = figures(before, after)["latency"]

    assert found.change is Change.NOT_COMPARABLE
    assert named in found.why


def test_a_latency_on_one_machine_says_that_it_was_not_measured_in_alternation() -> None:
    assert "not in alternation" in figures(faster_report(), faster_report())["latency"].why


def with_probs(**changes: Any) -> Report:
    """Return a report whose final output `probs` has other figures."""
    report = faster_report()
    *others, check = report.checks
    probs, *rest = check.outputs
    outputs = (msgspec.structs.replace(probs, **changes), *rest)
    return msgspec.structs.replace(report, checks=(*others, msgspec.structs.replace(check, outputs=outputs)))


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ({"sqnr_db": 26.0}, {"sqnr_db": 22.0}, Change.WORSE),
        ({"sqnr_db": 26.0}, {"sqnr_db": 24.0}, Change.SAME),
        ({"sqnr_db": 26.0}, {"sqnr_db": 31.0}, Change.BETTER),
        ({"sqnr_db": 131.0}, {"sqnr_db": 95.0}, Change.SAME),
        ({"sqnr_db": None, "max_abs": 0.0}, {"sqnr_db": 40.0}, Change.WORSE),
        ({"sqnr_db": None, "max_abs": 0.0}, {"sqnr_db": None, "max_abs": 0.0}, Change.SAME),
        ({"sqnr_db": 26.0}, {"sqnr_db": None, "max_abs": None}, Change.WORSE),
        ({"sqnr_db": 26.0}, {"sqnr_db": 26.0, "passed": False}, Change.WORSE),
    ],
)
def test_numbers_are_compared_by_their_noise(before: dict[str, Any], after: dict[str, Any], change: Change) -> None:
    assert change_of("numbers: probs", with_probs(**before), with_probs(**after)) is change


def test_an_output_that_only_one_release_has_is_named() -> None:
    found = figures(faster_report(), with_probs(name="classes"))

    assert found["numbers: probs"].change is Change.NOT_COMPARABLE
    assert "later release does not have" in found["numbers: probs"].why
    assert "only the later release" in found["numbers: classes"].why


def test_operators_are_counted_and_those_that_moved_are_named() -> None:
    base = faster_report()
    more = with_final(base, nodes=510, operators={**(base.subjects[-1].operators or {}), "Conv": 54})
    other = with_final(base, operators={**(base.subjects[-1].operators or {}), "Conv": 52, "Gemm": 2})

    assert figures(base, more)["operators"].change is Change.WORSE
    assert figures(base, more)["operators"].why == "Conv 53 → 54"
    assert figures(more, base)["operators"].change is Change.BETTER
    assert figures(base, other)["operators"].change is Change.DIFFERENT


def test_operators_of_another_precision_are_different_and_not_worse() -> None:
    fp32 = msgspec.structs.replace(with_final(faster_report(), nodes=100), precision="none")

    assert change_of("operators", fp32, faster_report()) is Change.DIFFERENT


def write(folder: Path, **reports: Report) -> Path:
    """Write a repository of reports by their models' names."""
    for name, report in reports.items():
        records = folder / name / "1" / "convkit"
        records.mkdir(parents=True)
        (records / "report.json").write_text(to_json(msgspec.structs.replace(report, name=name)), encoding="utf-8")
    return folder


def test_models_are_paired_by_name_and_a_lost_one_is_a_regression(tmp_path: Path) -> None:
    before = write(tmp_path / "before", a=faster_report(), b=faster_report())
    after = write(tmp_path / "after", b=faster_report(), c=faster_report())

    found = compare(before, after)

    assert [model.name for model in found.models] == ["b"]
    assert (found.missing, found.added) == (("a",), ("c",))
    assert found.regressions == ("a is missing from the later release",)


def test_two_single_reports_are_compared_whatever_they_are_called(tmp_path: Path) -> None:
    before = write(tmp_path / "before", resnet=faster_report())
    after = write(tmp_path / "after", resnet_next=faster_report())

    found = compare(before, after / "resnet_next")

    assert [model.name for model in found.models] == ["resnet_next"]
    assert found.missing == ()


def test_a_regression_fails_only_where_that_was_asked_for(tmp_path: Path) -> None:
    before = write(tmp_path / "before", m=faster_report())
    after = write(tmp_path / "after", m=with_final(faster_report(), file_bytes=10**9))

    told, refused = (compare(before, after, fail_on_regression=asked) for asked in (False, True))

    assert (told.exit_code, told.error) == (0, None)
    assert told.regressions == ("m: size got worse: 24.7 MiB → 954 MiB",)
    assert refused.exit_code == 5
    assert refused.error is not None
    assert refused.error.message == told.regressions[0]
    assert msgspec.json.decode(msgspec.json.encode(refused), type=Comparison) == refused


def test_a_path_without_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing"):
        compare(write(tmp_path / "before", m=faster_report()), tmp_path / "nothing")
