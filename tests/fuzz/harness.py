"""Runs cases in forked processes: one that dies or hangs is a finding, and the next case goes on in a new one.

A case is made from seed, kind and number alone, so that `only` makes a finding again.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import mmap
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any, NamedTuple

from convkit.errors import ConvkitError
from convkit.pipeline.artifact import use_scratch
from fuzz.kinds import KINDS, Kind

PATIENCE_SECONDS = 20
MORE_MEMORY = 6 << 30
"""Bytes of address space that a case may take besides what the process has before it."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {
    "os.mkdir": (0, 2),
    "os.rename": (1, 3),
    "os.remove": (0, 1),
    "os.rmdir": (0, 1),
    "os.symlink": (1, 2),
    "os.link": (1, 3),
    "os.truncate": (0, None),
    "os.chmod": (0, 2),
}
"""Events of the audit: which argument is the path that changes, and which the folder that it is seen from."""
_ACTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "pty.spawn")


class Finding(NamedTuple):
    """A case that ended otherwise than it may."""

    kind: str
    seed: int
    number: int
    what: str
    native: bool
    """A library's machine code has ended the process; in a worker that is a `StepError`."""


class Outcome(NamedTuple):
    """What came of a run."""

    cases: int
    seconds: float
    refused: int
    findings: list[Finding]


def case(name: str, kind: Kind, seed: int, number: int) -> tuple[str, bytes]:
    """Make a case."""
    return kind.make(Random(f"{seed} {name} {number}"))


def fuzz(name: str, *, seed: int, count: int, only: int | None = None, most: int = 50) -> Outcome:
    """Run the cases 0 to `count` of a kind, or `only` one; end early after `most` findings."""
    kind = KINDS[name]()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix=f"convkit-fuzz-{name}-") as folder:
        root = Path(folder)
        (root / "corpus").mkdir()
        (root / "cwd").mkdir()
        with _temporary_files_in(root / "corpus"):  # ONNX Runtime leaves one there
            kind.prepare(root / "corpus")
        before = _listing(root)
        at, stop = (0, count) if only is None else (only, only + 1)
        begin, refused, findings = at, 0, list[Finding]()
        started = time.perf_counter()
        while at < stop and sum(not finding.native for finding in findings) < most:
            done, turned_away, finding = _run(name, kind, root, seed, at, stop)
            at, refused = at + done, refused + turned_away
            findings += [finding] if finding else []
        seconds = time.perf_counter() - started
        if left := _listing(root) - before:
            findings.append(Finding(name, seed, -1, f"left behind: {sorted(left)[:3]}", native=False))
    return Outcome(at - begin, seconds, refused, findings)


@contextlib.contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        del os.environ["TMPDIR"]
        if before is not None:
            os.environ["TMPDIR"] = before


def _listing(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def _run(name: str, kind: Kind, root: Path, seed: int, first: int, stop: int) -> tuple[int, int, Finding | None]:
    """Run cases in one forked process until one is a finding; return how many ran, were refused, and the finding."""
    shared = mmap.mmap(-1, 1 << 16)  # the number of the case, that of the refused ones, a text
    _note(shared, first, 0)
    sys.stdout.flush()
    sys.stderr.flush()
    log = root / "log"
    child = os.fork()
    if child == 0:
        _be_the_child(name, kind, root, seed, first, stop, shared, log)
    status = _waited(child, shared, 2 * PATIENCE_SECONDS * (5 if kind.starts_workers else 1))
    number, refused = _noted(shared)
    printed = log.read_text(errors="replace") if log.exists() else ""
    log.unlink(missing_ok=True)
    shutil.rmtree(root / "scratch", ignore_errors=True)
    if status == 0:
        return stop - first, refused, None
    native = os.WIFSIGNALED(status) or os.WEXITSTATUS(status) not in (1, 0)
    what = f"{_how(status)}\n{printed[-3000:]}"
    return number - first + 1, refused, Finding(name, seed, number, what, native)


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"ended by {signal.Signals(os.WTERMSIG(status)).name}"
    return "an exception" if os.WEXITSTATUS(status) == 1 else f"ended with status {os.WEXITSTATUS(status)}"


def _waited(child: int, shared: mmap.mmap, patience: float) -> int:
    """Wait for the process; kill it where one case takes longer than any may, in machine code."""
    number, since = -1, time.monotonic()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        current, _ = _noted(shared)
        if current != number:
            number, since = current, time.monotonic()
        elif time.monotonic() - since > patience:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.02)


def _note(shared: mmap.mmap, number: int, refused: int) -> None:
    shared[:16] = number.to_bytes(8, "little") + refused.to_bytes(8, "little")


def _noted(shared: mmap.mmap) -> tuple[int, int]:
    return int.from_bytes(shared[:8], "little"), int.from_bytes(shared[8:16], "little")


def _be_the_child(
    name: str, kind: Kind, root: Path, seed: int, first: int, stop: int, shared: mmap.mmap, log: Path
) -> None:
    """Run cases and end; with status 1 where one raised what it may not."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    faulthandler.enable()
    (root / "cwd").mkdir(exist_ok=True)
    os.chdir(root / "cwd")
    now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (now + MORE_MEMORY, now + MORE_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, _hang)
    scratch = root / "scratch"
    sys.dont_write_bytecode = True
    watch = _Watch(scratch, workers=kind.starts_workers)
    patience = PATIENCE_SECONDS * (5 if kind.starts_workers else 1)
    sys.addaudithook(watch)
    refused, number = 0, first
    try:
        for number in range(first, stop):
            file, data = case(name, kind, seed, number)
            (scratch / "in").mkdir(parents=True)
            use_scratch(scratch / "made")
            os.environ["TMPDIR"] = tempfile.tempdir = str(scratch / "made")  # as in a worker
            watch.on = True
            signal.setitimer(signal.ITIMER_REAL, patience)
            try:
                kind.read(scratch / "in", file, data)
            except ConvkitError as error:
                if not (error.hint and error.message and error.code):
                    raise
                refused += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            watch.on = False
            watch.refuse()
            shutil.rmtree(scratch)
            _note(shared, number + 1, refused)
    except BaseException:  # noqa: BLE001 - told to the process that waits
        watch.on = False
        traceback.print_exc()
        sys.stderr.flush()
        _note(shared, number, refused)
        os._exit(1)
    os._exit(0)


class Hang(BaseException):
    """A case takes too long."""


def _hang(_: int, __: FrameType | None) -> None:
    raise Hang(f"more than {PATIENCE_SECONDS} s")


class _Watch:
    """An audit hook (PEP 578) that notes what is written outside of a folder, started, or called over a network."""

    def __init__(self, folder: Path, *, workers: bool) -> None:
        self.inside = str(folder)
        self.acts = () if workers else _ACTS
        self.on = False
        self.seen: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open":
            path, mode, flags = arguments
            writes = bool(flags & _WRITES) if isinstance(flags, int) else bool(set(str(mode)) & set("wax+"))
            if writes and not isinstance(path, int):
                self._note(event, path, -1)
        elif event in _CHANGES:
            path, seen_from = _CHANGES[event]
            self._note(event, arguments[path], -1 if seen_from is None else arguments[seen_from])
        elif event in self.acts:
            self.seen.append(f"{event} {arguments!r}"[:300])

    def refuse(self) -> None:
        """Raise where anything was noted."""
        if self.seen:
            raise AssertionError(f"outside of its scratch space: {self.seen}")

    def _note(self, event: str, path: Any, seen_from: int) -> None:
        place = f"/proc/self/fd/{path}" if isinstance(path, int) else os.fsdecode(path)
        if seen_from >= 0:
            place = str(Path(f"/proc/self/fd/{seen_from}", place))
        if not os.path.realpath(place).startswith(self.inside) and place != os.devnull:
            self.seen.append(f"{event} {place}")


def summary(name: str, outcome: Outcome) -> str:
    """Return one line on a run."""
    found = len(outcome.findings)
    return (
        f"{name:<12}{outcome.cases:>7} cases, {outcome.cases / max(outcome.seconds, 1e-9):6.0f}/s, "
        f"{outcome.refused} refused, {found} finding{'s' if found != 1 else ''}"
        + (f", {sum(f.native for f in outcome.findings)} of them in libraries' machine code" if found else "")
    )


def as_json(outcome: Outcome) -> str:
    """Return a run as one line of JSON."""
    return json.dumps({**outcome._asdict(), "findings": [finding._asdict() for finding in outcome.findings]})
