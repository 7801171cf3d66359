"""Where the real server is missing, its tests are skipped, and the summary says so where nobody can overlook it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from triton_server.server import unavailable

# Where a shell started the tests in the background, SIGINT is ignored, here and in every process that a test starts;
# then a test that interrupts one would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("triton")]
    reason = unavailable() if marked else None
    if reason:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=f"no Triton server: {reason}"))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Say it last, below pytest's own summary."""
    yield
    reports = terminalreporter.stats.get("skipped", [])
    skipped = [report for report in reports if "no Triton server" in str(report.longrepr)]
    if skipped:
        terminalreporter.section("NO TRITON SERVER", sep="!", red=True, bold=True)
        terminalreporter.write_line(f"{len(skipped)} tests of the real Triton server were SKIPPED: {unavailable()}")
        terminalreporter.write_line("`make test` makes its environment; CONVKIT_TRITON_ENV names one made elsewhere.")
