"""Where the system does not shut workers in, a run under trust says so, once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, os, sys
from pathlib import Path
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import Warned
from convkit.pipeline.runner import Runner
from convkit.sources.user_code import find_function
from isolation.trusted_steps import call

code, root = sys.argv[1:]
said = []
for _ in range(2):
    happened = []
    with Runner(Cache(Path(root)), happened.append) as run:
        for again in (1, 2):
            run(call, find_function(code, "--model-def"), again=again)
    said.append([event.message for event in happened if isinstance(event, Warned)])
print(json.dumps(said))
"""


def said(tmp_path: Path, *before: str, isolation: str = "on") -> list[list[str]]:
    """What a run under trust, and the same again, say."""
    code = tmp_path / "code.py"
    code.write_text("def factory():\n    return 1\n")
    ended = subprocess.run(
        [*before, sys.executable, "-c", PROGRAM, f"{code}:factory", str(tmp_path / "cache")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "CONVKIT_ISOLATION": isolation},
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[list[str]] = json.loads(ended.stdout)
    return found


def test_a_system_without_networks_of_ones_own_is_told_once_and_not_remembered(tmp_path: Path) -> None:
    without = "echo 0 > /proc/sys/user/max_net_namespaces"
    if subprocess.run(["unshare", "-Ur", "sh", "-c", without], capture_output=True, check=False).returncode:
        pytest.skip("no user namespace can be made here")
    first, again = said(tmp_path, "unshare", "-Ur", "sh", "-c", f'{without}; exec "$@"', "sh")

    assert len(first) == 1
    assert "use the network" in first[0]
    assert again == []


def test_whoever_switched_it_off_is_told_nothing(tmp_path: Path) -> None:
    assert said(tmp_path, isolation="off") == [[], []]
