"""How long convkit takes to say hello: cold `--help`, `--version` and `import convkit`, beside a bare Python.

    python startup.py [--runs 20] [--output FILE.json]

Every start is a new process; the contenders take turns. Wall time is from spawn to exit, memory the process's own peak
resident set. Exit status 1 as soon as a contender fails.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from convert import ROOT, machine, show, spread

LIMITS = {"convkit --help": (0.10, 35.0), "convkit --version": (0.03, None)}
"""The seconds and MB that convkit sets itself as limits."""

LAUNCHER = """
import posix, sys, time
quiet = [(posix.POSIX_SPAWN_OPEN, 1, "/dev/null", posix.O_WRONLY, 0)]
start = time.perf_counter()
pid = posix.posix_spawn(sys.argv[1], sys.argv[1:], posix.environ, file_actions=quiet)
_, status, usage = posix.wait4(pid, 0)
print(time.perf_counter() - start, usage.ru_maxrss, posix.waitstatus_to_exitcode(status))
"""
"""Starts a command and prints its wall seconds, peak KiB and exit status.

A process's peak resident set begins with that of the process that spawned it, so the spawner has to be smaller than
the smallest contender: a Python with nothing but built-in modules.
"""


def contenders() -> dict[str, list[str]]:
    """Return the command lines by name: the installed `convkit` where there is one, else `python -m convkit`."""
    script = Path(sys.executable).with_name("convkit")
    convkit = [str(script)] if script.exists() else [sys.executable, "-m", "convkit"]
    return {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import convkit": [sys.executable, "-c", "import convkit"],
        "convkit --version": [*convkit, "--version"],
        "convkit --help": [*convkit, "--help"],
    }


def start_once(command: list[str], *, cwd: Path = ROOT) -> tuple[float, float]:
    """Return the wall seconds and peak MB of one run of `command`; end with a message where it fails."""
    launcher = [sys.executable, "-I", "-S", "-c", LAUNCHER, *command]
    said = subprocess.run(launcher, cwd=cwd, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    if said[2] != "0":
        sys.exit(f"{' '.join(command)}: exit status {said[2]}")
    return float(said[0]), int(said[1]) * 1024 / 1e6


def main() -> None:
    """Parse the command line, run, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description="Measure convkit's cold start.")
    parser.add_argument("--runs", type=int, default=20, help="of each contender (20)")
    parser.add_argument("--output", type=Path, help="JSON file for every single run")
    options = parser.parse_args()
    commands = contenders()
    for command in commands.values():  # uncounted: fills the page cache and writes bytecode
        start_once(command)
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(options.runs):
        for name, command in commands.items():
            runs[name].append(start_once(command))
    here = machine()
    print(f"{here['cpu']}, Python {here['python']}, {' '.join(commands['convkit --help'])}")
    print(f"median (range) of {options.runs} alternating runs\n")
    show([["", "wall s", "asked", "peak RSS, MB", "asked"], *(row(name, done) for name, done in runs.items())])
    if options.output:
        options.output.write_text(json.dumps({"machine": here, "runs": runs}, indent=1) + "\n")


def row(name: str, done: list[tuple[float, float]]) -> list[str]:
    """Return the table's row for one contender."""
    seconds, megabytes = zip(*done, strict=True)
    asked = [f"< {limit:g}" if limit else "" for limit in LIMITS.get(name, (None, None))]
    return [name, spread(list(seconds), 3), asked[0], spread(list(megabytes), 1), asked[1]]


if __name__ == "__main__":
    main()
