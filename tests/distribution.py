"""How the tests are shared out among processes, with pytest-xdist: `pytest -n 2`, `pytest -n auto`, `make test`.

A process takes a unit of tests at a time. What shares fixtures of a session lies in one unit, so that these are made
once; what takes long begins early, so that no process waits for another at the end. Without -n all this is idle.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import pytest

MOST = 4
MEMORY_EACH = 3 << 30
"""What a process of tests may need, in bytes: PyTorch and TensorFlow in it, and the workers that it starts."""

SHARING = frozenset(
    {"check", "cli", "custom_ops", "deferred", "e2e", "gates", "inspecting", "serve", "sources", "triton_server"}
)
"""Folders whose conftest.py makes what many of their files use: a cache, published models, a converter."""

FIRST = ("test_failing_disk.py", "e2e", "test_publish.py", "sources", "test_readme.py", "deferred", "gates")
"""Units that fork a thousand times, which is slow once the process has grown; and those that take minutes."""


def unit_of(nodeid: str) -> str:
    """Return the unit of a test: its folder where files share fixtures, else its file."""
    file = PurePath(nodeid.partition("::")[0])
    return str(file.parent if file.parent.name in SHARING else file)


def long_ones_first(items: list[pytest.Item]) -> None:
    """Put the units that take long before the others; the order within a unit stays."""
    place = {name: number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(PurePath(unit_of(item.nodeid)).name, len(place)))


def processes() -> int:
    """Return how many processes `-n auto` starts: as many as the machine has cores and memory for."""
    from convkit.pipeline.allowance import cores, memory

    return max(1, min(MOST, cores(), memory().bytes // MEMORY_EACH))


def scheduler(config: pytest.Config, log: Any) -> Any:
    """Return pytest-xdist's scheduler of scopes, with units for scopes, in the order of the collection."""
    from xdist.scheduler import LoadScopeScheduling

    class ByUnit(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit_of(nodeid)

    config.option.loadscopereorder = False
    return ByUnit(config, log)
