"""A missing server is said loudly; a killed test run takes its server along."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from triton_server.server import HERE

ROOT = HERE.parents[1]


def test_without_a_server_its_tests_are_skipped_and_the_summary_says_how_to_get_it(tmp_path: Path) -> None:
    environment = {**os.environ, "CONVKIT_TRITON_ENV": str(tmp_path / "nowhere"), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / "test_server.py"]

    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout
    assert "NO TRITON SERVER" in result.stdout
    assert f"there is no environment at {tmp_path / 'nowhere'}" in result.stdout
    assert "`make test`" in result.stdout
    assert " passed" not in result.stdout.splitlines()[-1]


@pytest.mark.triton
def test_a_killed_test_run_takes_its_server_along(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from triton_server.server import TritonServer\n"
        "with TritonServer(Path(sys.argv[1]), model_control='explicit') as server:\n"
        "    print(server.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "TMPDIR": str(tmp_path)}
    (tmp_path / "repository").mkdir()
    command = [sys.executable, "-c", program, tmp_path / "repository"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        assert is_running(pid)
        run.kill()

    deadline = time.monotonic() + 60
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    """Tell whether a process exists and has not ended (one that nobody has waited for keeps its number)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"
