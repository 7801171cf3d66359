"""A short run of `make fuzz`: a few hundred spoilt files of each kind, and what the harness itself must find."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fuzz.harness import fuzz
from fuzz.kinds import KINDS, Kind

COUNTS = {"config": 500, "recipe": 200, "onnx": 200, "convert": 300, "checkpoint": 200, "manifest": 60, "samples": 200}


def fuzzed(name: str, tmp_path: Path) -> dict[str, Any]:
    """Run the command in a process of its own: forks want one without threads."""
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", name, "--count", str(COUNTS[name]), "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout, done.stderr
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


@pytest.mark.parametrize("name", KINDS)
def test_every_spoilt_file_gives_a_result_or_a_refusal(name: str, tmp_path: Path) -> None:
    outcome = fuzzed(name, tmp_path)

    assert [finding for finding in outcome["findings"] if not finding["native"]] == []
    assert outcome["cases"] == COUNTS[name] // KINDS[name].share
    assert list(tmp_path.iterdir()) == []


class Spoilt(Kind):
    """A reader with every fault that the harness is to find, one for each case."""

    FAULTS = ("raise", "write", "leave", "die", "start", "hold")

    def prepare(self, folder: Path) -> None:
        """It needs nothing."""

    def make(self, chance: Any) -> tuple[str, bytes]:
        return "file", b""

    def read(self, folder: Path, name: str, data: bytes) -> None:
        match self.FAULTS[self.number]:
            case "raise":
                raise KeyError("a bug")
            case "write":
                (folder.parents[1] / "outside").write_text("")
            case "leave":
                (folder.parents[2] / "elsewhere").mkdir()
            case "die":
                os.abort()
            case "start":
                subprocess.run(["true"], check=True)
            case "hold":
                bytearray(1 << 40)

    number = 0


@pytest.mark.parametrize("fault", Spoilt.FAULTS)
def test_the_harness_finds(fault: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(KINDS, "spoilt", type("Spoilt", (Spoilt,), {"number": Spoilt.FAULTS.index(fault)}))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    outcome = fuzz("spoilt", seed=1, count=1)

    assert outcome.findings
    assert outcome.findings[0].native == (fault == "die")
