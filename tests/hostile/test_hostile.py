"""Hostile input through the command line: refused with the right status, in time, without a trace."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from e2e.command import OURS, Command

from hostile.executing import PAYLOADS, Payload
from hostile.forks import Ended, Forks
from hostile.harmful import HARMFUL, Harmful

MOST_SECONDS = 5
"""Of processor time, which a busy machine does not stretch; what waits for ever is ended by `Forks`.

Time by the clock is told, not held, for it says as much of the machine: a table that `-s` shows, slowest first.
"""
Refuse = Callable[[list[str], int, str], None]

every_payload = pytest.mark.parametrize("payload", PAYLOADS, ids=[payload.name for payload in PAYLOADS])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def convkit(cache: Path) -> Iterator[Forks]:
    variables = {name: text for name, text in os.environ.items() if name not in OURS and "CONVKIT" not in name}
    forks = Forks(cache, {**variables, "CONVKIT_CACHE_DIR": str(cache)})
    yield forks
    forks.close()


@pytest.fixture(scope="module")
def times() -> Iterator[dict[str, Ended]]:
    """How each command ended, by its test; told at the end."""
    taken: dict[str, Ended] = {}
    yield taken
    print(f"\n{'by the clock':>12} {'processors':>10}")
    for name, ended in sorted(taken.items(), key=lambda each: -each[1].wall_seconds):
        print(f"{ended.wall_seconds:10.2f} s {ended.seconds:8.2f} s  {name}")


@pytest.fixture
def refused(
    convkit: Forks,
    times: dict[str, Ended],
    request: pytest.FixtureRequest,
) -> Refuse:
    """Run a command line that is to be refused, with this exit status and code."""

    def run(arguments: list[str], status: int, code: str) -> None:
        ended = times[request.node.name] = convkit(arguments)
        assert (ended.status, ended.error.get("code")) == (status, code), ended.err
        assert ended.error["hint"]
        assert ended.error["message"].isprintable()
        assert ended.seconds < MOST_SECONDS

    return run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


def convert_of(model: Path, arguments: Sequence[str], folder: Path) -> list[str]:
    """Return the command line that converts a model in ``folder/source``."""
    filled = [argument.replace("FOLDER", str(folder / "source")) for argument in arguments]
    return ["convert", str(model), "--json", "--measure", "none", "-o", str(folder / "models"), *filled]


def files_below(folder: Path) -> dict[str, int]:
    """Return every file and link below a folder, and its inode."""
    return {str(path.relative_to(folder)): path.lstat().st_ino for path in sorted(folder.rglob("*"))}


@every_payload
def test_the_payload_fires_where_it_is_loaded_as_people_load_it(payload: Payload, source: Path) -> None:
    canary = source.parent / "canary"
    model = payload.make(source, canary)
    assert not canary.exists()

    with contextlib.suppress(Exception):  # what it is made of may break behind it
        payload.load(model)

    assert canary.is_dir()


@every_payload
def test_convert_refuses_what_would_run_code(payload: Payload, source: Path, refused: Refuse) -> None:
    folder = source.parent
    model = payload.make(source, folder / "canary")
    before = files_below(folder)

    refused(convert_of(model, payload.arguments, folder), 3, payload.code)

    assert files_below(folder) == before  # no canary, no model


@pytest.mark.parametrize("harmful", HARMFUL, ids=[harmful.name for harmful in HARMFUL])
def test_convert_refuses_what_claims_what_is_not_so(harmful: Harmful, source: Path, refused: Refuse) -> None:
    folder = source.parent
    model = harmful.make(source)
    before = files_below(folder)

    refused(convert_of(model, harmful.arguments, folder), harmful.status, harmful.code)

    assert files_below(folder) == before


def test_a_process_of_its_own_refuses_as_the_forked_ones_do(source: Path, cache: Path) -> None:
    payload = PAYLOADS[0]
    model = payload.make(source, source.parent / "canary")

    outcome = Command(cache)(*convert_of(model, payload.arguments, source.parent))

    assert outcome.exit_status == 3
    assert outcome.result["error"]["code"] == payload.code
    assert not (source.parent / "canary").exists()
