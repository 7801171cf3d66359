"""The command line in forked processes, one for each command: what it imports is imported once.

Started as ``python -m hostile.forks``; takes command lines as JSON, one a line, and answers each with how it ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

PATIENCE_SECONDS = 60
"""Of wall time: what waits for ever is ended, and has failed."""


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    seconds: float
    """Of processor time, that of the processes which it started included."""
    wall_seconds: float
    out: str
    err: str

    @property
    def error(self) -> dict[str, Any]:
        """What failed, as ``--json`` says it; nothing where the command was killed."""
        return (json.loads(self.out)["error"] or {}) if self.out else {}


class Forks:
    """The process from which commands are forked; with a folder in which they run, and an environment."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hostile.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**environment, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )

    def __call__(self, arguments: Sequence[str]) -> Ended:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        return Ended(*json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def _ended(arguments: list[str]) -> Ended:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            _be_the_command(arguments, out.fileno(), err.fileno())
        _, status, usage = os.wait4(child, 0)
        wall_seconds = time.monotonic() - started
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
    seconds = usage.ru_utime + usage.ru_stime
    return Ended(os.waitstatus_to_exitcode(status), seconds, wall_seconds, texts[0], texts[1][-4000:])


def _be_the_command(arguments: list[str], out: int, err: int) -> None:
    from convkit.cli.app import run

    signal.alarm(PATIENCE_SECONDS)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    status = 1
    try:
        status = run(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(int(status))


if __name__ == "__main__":
    import convkit.cli.convert
    import convkit.conversion  # noqa: F401 - what every command needs

    for line in sys.stdin:
        sys.stdout.write(json.dumps(_ended(json.loads(line))) + "\n")
        sys.stdout.flush()
