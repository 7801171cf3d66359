"""Engines that are built elsewhere are signed where they are built, by the command and from Python."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from check.keys import make_key, public
from e2e.command import OURS

from deferred.machines import L4, Container, Machine

SCRIPT = """
import sys
import convkit

[report] = convkit.build(sys.argv[1], sign=sys.argv[2])
print(report.status.value, report.engine.value)
"""


def by_command(container: Container, repository: Path, key: Path) -> None:
    assert container.command("build", repository, "--sign", key, "--json").exit_status == 0


def by_script(container: Container, repository: Path, key: Path) -> None:
    inherited = {k: v for k, v in os.environ.items() if k not in OURS and not k.startswith("CONVKIT_")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, repository, key],
        env={**inherited, "CONVKIT_CACHE_DIR": str(container.command.cache), **container.variables},
        cwd=container.command.cache,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "ok built\n"), done.stderr


@pytest.mark.parametrize("build", [by_command, by_script])
def test_an_engine_is_signed_as_it_is_built(
    build: Callable[[Container, Path, Path], None],
    repository: Path,
    on: Callable[[Machine], Container],
    tmp_path: Path,
) -> None:
    key = make_key(tmp_path / "key.pem")

    build(on(L4), repository, key)

    check = on(L4).command("check", repository, "--verify-key", public(key), "--json")
    assert check.exit_status == 0, check.stdout
    assert (repository / "scaled" / "1" / "convkit" / "manifest.dsse.json").is_file()


def test_an_engine_that_stands_is_signed_without_being_built_again(
    repository: Path, on: Callable[[Machine], Container], tmp_path: Path
) -> None:
    key, container = make_key(tmp_path / "key.pem"), on(L4)
    assert container.command("build", repository).exit_status == 0
    [engine] = repository.glob("*/1/model.plan")
    built = engine.read_bytes()
    no_more = {"STAND_IN_WRONG": "run"}  # an engine that is built now fails its check

    signing = ("build", repository, "--all", "--sign", key, "--json")
    signed, again = (container.command(*signing, variables=no_more) for _ in range(2))

    assert [outcome.exit_status for outcome in (signed, again)] == [0, 0]
    assert [outcome.result["results"][0]["status"] for outcome in (signed, again)] == ["ok", "unchanged"]
    assert engine.read_bytes() == built
    check = container.command("check", repository, "--verify-key", public(key), "--json")
    assert check.exit_status == 0, check.stdout
