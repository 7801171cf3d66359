"""Where the real server is missing, its tests are skipped, and the summary says so where nobody can overlook it.

What a user's shell or a CI says about terminals is left out of all tests, and these may be shared out among processes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from distribution import long_ones_first, processes, scheduler
from hypothesis import HealthCheck, settings
from triton_server.server import unavailable

from convkit.pipeline.artifact import use_scratch

# Where a shell started the tests in the background, SIGINT is ignored, here and in every process that a test starts;
# then a test that interrupts one would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is; and what fails once fails again, for whoever looks into it.
# New examples: pytest --hypothesis-profile=default; many more of them: make fuzz.
settings.register_profile("any load", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any load")

WIDTH_AND_COLOURS = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "PY_COLORS", "GITHUB_ACTIONS")


def pytest_sessionstart() -> None:
    """Forget how wide and colourful output is to be: a test that means it says so itself."""
    for name in WIDTH_AND_COLOURS:
        os.environ.pop(name, None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        long_ones_first(items)
    marked = [item for item in items if item.get_closest_marker("triton")]
    reason = unavailable() if marked else None
    if reason:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=f"no Triton server: {reason}"))


@pytest.fixture(scope="session", autouse=True)
def _scratch_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Steps that are called as plain functions leave no files in the system's temporary folder."""
    use_scratch(tmp_path_factory.mktemp("scratch"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    return processes()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return scheduler(config, log)


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
