"""The program `convkit`, run as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

PROGRAM = (sys.executable, "-m", "convkit")


class Ended(NamedTuple):
    """How the program ended, and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        """The one JSON object on standard output; anything else there fails the test."""
        found: dict[str, Any] = json.loads(self.out)
        return found


class Program:
    """Runs the program in a folder, with a cache of its own."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.cache = cache

    def environment(self, **more: str) -> dict[str, str]:
        """The variables that it runs under; none of the user's that steer convkit."""
        steering = ("CONVKIT_", "SOURCE_MODEL_PATH", "TARGET_MODEL_PATH", "MODEL_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
        return {**kept, "CONVKIT_CACHE_DIR": str(self.cache), **more}

    def __call__(self, *arguments: object, variables: Mapping[str, str] | None = None) -> Ended:
        done = subprocess.run(
            [*PROGRAM, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment(**(variables or {})),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: object, **options: Any) -> subprocess.Popen[str]:
        """Start it, in a process group of its own, and go on."""
        return subprocess.Popen(
            [*PROGRAM, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **options,
        )
