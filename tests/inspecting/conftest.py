"""One cache and one set of workers for all inspections of this folder, so that every framework is imported once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from convkit.inspecting import Inspector
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import nobody
from convkit.pipeline.runner import Runner
from convkit.report.inspection import Inspection
from convkit.request import make_request

Inspect = Callable[..., Inspection]


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def run(cache_folder: Path) -> Iterator[Runner]:
    with Runner(Cache(cache_folder), nobody) as running:
        yield running


@pytest.fixture(scope="session")
def inspected(run: Runner) -> Inspect:
    """Inspect a source with everything but the roofline."""

    def inspect(model: Path, *, trust: bool = False) -> Inspection:
        arguments = {"model": str(model), **({"trust": ["yes"]} if trust else {})}
        return Inspector(make_request(arguments, environment={}), run, quick=False, roofline=False).of_source()

    return inspect
