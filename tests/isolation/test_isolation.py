"""A worker's process cannot write outside its scratch space, nor reach the network; where the kernel knows how."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

TRIAL = """
    import json, os, socket, subprocess, sys
    from pathlib import Path
    from convkit.pipeline.isolation import HELD, isolate

    scratch, elsewhere, port = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    isolate(scratch)

    def tries(what):
        try:
            what()
        except OSError:
            return False
        return True

    (scratch / "moved").write_text("x")
    print(json.dumps({
        "held": HELD,
        "scratch": tries(lambda: (scratch / "file").write_text("x")),
        "elsewhere": tries(lambda: (elsewhere / "file").write_text("x")),
        "folder": tries(lambda: (elsewhere / "folder").mkdir()),
        "existing": tries(lambda: (elsewhere / "existing").write_text("changed")),
        "removed": tries(lambda: (elsewhere / "existing").unlink()),
        "moved": tries(lambda: (scratch / "moved").rename(elsewhere / "moved")),
        "child": subprocess.run(["touch", str(elsewhere / "child")], capture_output=True).returncode == 0,
        "read": tries(lambda: (elsewhere / "existing").read_text()),
        "network": tries(lambda: socket.create_connection(("127.0.0.1", port), timeout=2)),
        "user": os.geteuid(),
    }))
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    scratch, elsewhere = tmp_path_factory.mktemp("scratch"), tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "existing").write_text("as it was")
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(TRIAL), str(scratch), str(elsewhere), str(server.getsockname()[1])],
            capture_output=True,
            text=True,
            check=True,
        )
    found: dict[str, Any] = json.loads(done.stdout)
    found["left"] = sorted(path.name for path in Path(elsewhere).iterdir())
    found["content"] = (elsewhere / "existing").read_text()
    return found


def test_writing_is_confined_to_the_scratch_space(outcome: dict[str, Any]) -> None:
    assert outcome["scratch"]
    assert outcome["read"]
    attempts = [outcome[what] for what in ("elsewhere", "folder", "existing", "removed", "moved", "child")]
    if outcome["held"]["writes"]:
        assert attempts == [False] * 6
        assert (outcome["left"], outcome["content"]) == (["existing"], "as it was")
    else:
        assert any(attempts)  # and `HELD` says so


def test_the_network_is_out_of_reach(outcome: dict[str, Any]) -> None:
    assert outcome["network"] is not outcome["held"]["network"]


def test_it_can_be_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVKIT_ISOLATION", "off")
    program = f"""
        from pathlib import Path
        from convkit.pipeline.isolation import HELD, isolate
        isolate(Path({str(tmp_path / "scratch")!r}))
        assert HELD == {{"network": False, "writes": False}}
        Path({str(tmp_path / "free")!r}).write_text("x")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)

    assert (tmp_path / "free").is_file()


def test_the_process_stays_who_it_was(outcome: dict[str, Any]) -> None:
    import os

    assert outcome["user"] == os.geteuid()
