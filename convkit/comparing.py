"""Comparing releases by the reports that lie beside them."""

from __future__ import annotations

from pathlib import Path

import msgspec

from convkit.errors import CheckError
from convkit.report.changes import ModelChanges, compare_reports
from convkit.report.changes_sheet import shown
from convkit.report.document import Failure, Status, failed
from convkit.reporting import read_reports


class Comparison(msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="convkit.comparison/1"):
    """What `convkit compare --json` prints."""

    status: Status
    exit_code: int
    models: tuple[ModelChanges, ...]
    """Models that both releases have."""
    missing: tuple[str, ...] = ()
    """Models that only the earlier release has; each counts as a regression."""
    added: tuple[str, ...] = ()
    """Models that only the later release has."""
    error: Failure | None = None

    @property
    def regressions(self) -> tuple[str, ...]:
        """Return what got worse, a sentence each."""
        return (
            *(
                f"{model.name}: {figure.name} got worse: {shown(figure)}"
                for model in self.models
                for figure in model.worse
            ),
            *(f"{name} is missing from the later release" for name in self.missing),
        )


def compare(before: Path, after: Path, *, fail_on_regression: bool = False) -> Comparison:
    """Compare two releases: size, operators, the outputs' numbers, latency.

    Latencies are compared only where both were measured on the same machine; they were not measured in alternation, so
    a difference must be above 3 % with intervals that do not overlap.

    Args:
        before, after: a report.json, a version's folder, a model or a repository each (`convkit.reporting.report`). Two
            single reports are compared whatever their models are called, several by name.
        fail_on_regression: anything that got worse makes the comparison a failed one, with exit status 5.

    Raises:
        InputError: there is no report, or one that cannot be read.
    """
    old, new = read_reports(before), read_reports(after)
    if len(old) == len(new) == 1:
        old = dict(zip(new, old.values(), strict=True))
    found = Comparison(
        status=Status.OK,
        exit_code=0,
        models=tuple(compare_reports(name, old[name], new[name]) for name in old if name in new),
        missing=tuple(name for name in old if name not in new),
        added=tuple(name for name in new if name not in old),
    )
    if not (fail_on_regression and found.regressions):
        return found
    error = CheckError(
        "\n".join(found.regressions),
        hint="let it pass by leaving out --fail-on-regression; 'convkit report' tells more of each release",
        code="compare.regression",
    )
    head = failed(error)
    return msgspec.structs.replace(found, status=head.status, exit_code=head.exit_code, error=head.error)
