"""What got worse and what got better, in sentences made from a report's numbers."""

from __future__ import annotations

from collections.abc import Iterator

from convkit.measure.accuracy import TaskAccuracy
from convkit.measure.compare import OutputDifference
from convkit.measure.ratio import MIN_ROUNDS
from convkit.measure.waiting import doubt
from convkit.report import units
from convkit.report.document import Accuracy, Check, Report, Role, Subject
from convkit.report.latency import Comparison, Finding
from convkit.spec.accuracy import TOP1

_LARGER_FROM = 1.01
"""Files this many times as large are called larger; less is a header's worth."""


_UNSURE_FROM = 3
"""An interval whose ends lie this many times apart says no more than that it is at least the nearer one."""


def worsened(report: Report) -> tuple[str, ...]:
    """Say what is worse in the final model than before, worst first.

    Slower (where the measurement is conclusive; first against the baseline, then against the source), outputs that
    missed their tolerance, accuracy that was lost, a larger file. Outputs that a low precision moved within what was
    asked for are no bad news: `moved` says how far.
    """
    return (*_slower(report), *_wrong(report), *_less_accurate(report), *_larger(report))


def moved(report: Report) -> tuple[str, ...]:
    """Say how far a low precision moved the final model's outputs, where that is within what was asked for."""
    return tuple(_less_exact(report))


def improved(report: Report) -> tuple[str, ...]:
    """Say what is better in the final model than before: faster where that is conclusive, smaller, fewer operators."""
    return (*_faster(report), *_smaller(report), *_simpler(report))


def compared(report: Report, comparison: Comparison) -> str:
    """Say in one sentence what a comparison found, with its interval."""
    before, after = _p50(report, comparison.before), _p50(report, comparison.after)
    medians = f"; p50 {after} against {before}" if before and after else ""
    value, low, high = comparison.speedup, comparison.low, comparison.high
    if value < 1:
        value, low, high, words = 1 / value, 1 / high, 1 / low, "takes {} times as long as"
    else:
        words = "is {} times as fast as"
    how_much = f"at least {units.ratio(low)}" if low > 1 and high > low * _UNSURE_FROM else units.ratio(value)
    interval = f"95% interval {units.ratio(low)} to {units.ratio(high)}"
    return f"{comparison.after} {words.format(how_much)} {comparison.before} ({interval}{medians})"


def speedup(comparison: Comparison) -> str:
    """Return how many times as fast the second model is; of an interval that is all too wide, its nearer end."""
    low, high = comparison.low, comparison.high
    if high <= low * _UNSURE_FROM or low <= 1 <= high:
        return f"{units.ratio(comparison.speedup)} ×"
    return f"≥ {units.ratio(low)} ×" if low > 1 else f"≤ {units.ratio(high)} ×"


def finding(comparison: Comparison) -> str:
    """Say in a word or two what a comparison found."""
    if comparison.rounds < MIN_ROUNDS:
        return "too few rounds"
    if comparison.finding is Finding.SAME:
        return f"less than {100 * comparison.smallest:.3g} %"
    return "SLOWER" if comparison.finding is Finding.SLOWER else comparison.finding.value


def busy(*waited: float | None) -> str:
    """Say how long what was timed waited for processors that others had; nothing where that is too little to count.

    Args:
        waited: shares of time, 0 to 1, of each that was timed.
    """
    share = max(map(doubt, waited), default=0.0)
    if not share:
        return ""
    return f"the machine was busy: timed calls waited {100 * share:.2g} % of their time for a processor"


def _p50(report: Report, label: str) -> str:
    latency = next((subject.latency for subject in report.subjects if subject.label == label), None)
    return units.milliseconds(latency.p50_ms) if latency else ""


def _conclusive(report: Report) -> Iterator[tuple[Subject, Comparison]]:
    """Go through the conclusive comparisons of the final model, the baseline before the source."""
    final = report.subject(Role.FINAL)
    if final is None:
        return
    for role in (Role.BASELINE, Role.SOURCE):
        before = report.subject(role)
        for comparison in report.comparisons:
            between = (comparison.before, comparison.after)
            if before is not None and between == (before.label, final.label) and comparison.conclusive:
                yield final, comparison


def _slower(report: Report) -> Iterator[str]:
    for final, comparison in _conclusive(report):
        if comparison.speedup < 1:
            word = "SLOWER, emulated on this CPU" if final.emulated else "SLOWER"
            yield f"{word}: {compared(report, comparison)}."


def _faster(report: Report) -> Iterator[str]:
    for final, comparison in _conclusive(report):
        if comparison.speedup > 1:
            word = "Faster, emulated on this CPU" if final.emulated else "Faster"
            yield f"{word}: {compared(report, comparison)}."


def _wrong(report: Report) -> Iterator[str]:
    for check in report.checks:
        if not check.passed:
            missed = [output for output in check.outputs if not output.passed] or list(check.outputs)
            yield f"WRONG: {_furthest(check, missed)}."


def _less_accurate(report: Report) -> Iterator[str]:
    accuracy, final = report.accuracy, report.subject(Role.FINAL)
    if accuracy is None or final is None:
        return
    source = report.source.framework if report.source else "the source"
    word = "LESS ACCURATE, emulated on this CPU" if accuracy.emulated else "LESS ACCURATE"
    found: list[tuple[str, str, Accuracy | TaskAccuracy]] = [(accuracy.metric, accuracy.metric, accuracy)]
    found += [(TOP1, f"{TOP1} of the output '{task.output}'", task) for task in accuracy.tasks]
    for metric, what, each in found:
        if each.drop is not None and each.drop > 0:
            lost, before, after = (units.accuracy(value, metric) for value in (each.drop, each.source, each.final))
            yield (
                f"{word}: {what} of {final.label} is {after}, of {source} {before}, on "
                f"{units.count(each.samples)} samples; {lost} is lost."
            )


def _less_exact(report: Report) -> Iterator[str]:
    final = report.subject(Role.FINAL)
    for check in report.checks:
        is_final = final is not None and check.subject == final.label
        moved = [output for output in check.outputs if output.max_abs != 0]
        if is_final and check.passed and moved and report.precision != "none":
            yield f"Less exact, within what was asked for: {_furthest(check, moved)}."


def _furthest(check: Check, outputs: list[OutputDifference]) -> str:
    worst = min(outputs, key=_closeness)
    ratio = units.decibel(worst.sqnr_db, max_abs=worst.max_abs)
    others = f"; of {len(check.outputs)} outputs it is the furthest off" if len(check.outputs) > 1 else ""
    return (
        f"output '{worst.name}' of {check.subject} differs from {check.against} by up to "
        f"{units.difference(worst.max_abs)} (SQNR {ratio}; asked: {check.tolerance}){others}"
    )


def _closeness(output: OutputDifference) -> tuple[bool, float, float]:
    """Order outputs from the worst: differences that are not finite, then the least SQNR, then the largest gap."""
    if output.max_abs is None:
        return (False, 0.0, 0.0)
    return (True, float("inf") if output.sqnr_db is None else output.sqnr_db, -output.max_abs)


def _sizes(report: Report) -> Iterator[tuple[Subject, int, Subject, int]]:
    final = report.subject(Role.FINAL)
    for role in (Role.BASELINE, Role.SOURCE):
        before = report.subject(role)
        if final is not None and before is not None and final.file_bytes and before.file_bytes:
            yield final, final.file_bytes, before, before.file_bytes


def _larger(report: Report) -> Iterator[str]:
    for final, now, before, then in _sizes(report):
        if now > then * _LARGER_FROM:
            yield (
                f"LARGER: {final.label} is {units.size(now)}, {units.ratio(now / then)} times the "
                f"{units.size(then)} of {before.label}."
            )


def _smaller(report: Report) -> Iterator[str]:
    for final, now, before, then in _sizes(report):
        if now * _LARGER_FROM < then:
            yield (
                f"Smaller: {final.label} is {units.size(now)}, {units.significant(100 * now / then)}% of the "
                f"{units.size(then)} of {before.label}."
            )


def _simpler(report: Report) -> Iterator[str]:
    if report.simplification is not None:
        before, after = (sum(counts.values()) for counts in (report.simplification.before, report.simplification.after))
        if after < before:
            yield f"Simpler: {after:,} operators instead of {before:,} as exported."
