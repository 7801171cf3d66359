"""benchmarks/gpu.py where there is nothing to measure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from convkit.targets.cuda_driver import driver_present

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(driver_present(), reason="here is a GPU, and measuring takes minutes")
def test_without_a_driver_every_part_says_that_it_is_not_measured() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "gpu.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("not measured: no NVIDIA driver") == 3, done.stdout
