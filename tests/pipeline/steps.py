"""Steps for the runner's tests, in a module that workers can import. They need no library."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from convkit.errors import InputError
from convkit.pipeline import events
from convkit.pipeline.artifact import Artifact, gather, new_folder
from convkit.pipeline.step import observation, step

BARE = "tensorrt"
"""The environment whose worker imports nothing on its own."""


class Written(msgspec.Struct, frozen=True, kw_only=True):
    files: Artifact
    process: int


@step(version=1, stage="source", title="Write text", needs=BARE)
def write_text(text: str) -> Written:
    events.warn("test.written", f"{text} was written")
    events.progress(1, 2, "letters")
    folder = new_folder("text")
    (folder / "text.txt").write_text(text, encoding="utf-8")
    return Written(files=gather(folder), process=os.getpid())


@step(version=1, stage="simplify", title="Double text", needs=BARE)
def double_text(written: Written, *, times: int = 2) -> Written:
    folder = new_folder("text")
    (folder / "text.txt").write_text(written.files.file().read_text() * times, encoding="utf-8")
    return Written(files=gather(folder), process=os.getpid())


@step(version=1, stage="source", title="Read a file", needs=BARE)
def read_file(source: Artifact) -> str:
    return source.file().read_text(encoding="utf-8")


@step(version=1, stage="source", title="Read a file that changes", needs=BARE)
def read_changing_file(source: Artifact) -> str:
    text = source.file().read_text(encoding="utf-8")
    source.file().write_text("something else", encoding="utf-8")
    return text


@observation(version=1, stage="measure", title="Measure a number", needs=BARE)
def measure(*, name: str, log: str) -> int:
    with Path(log).open("a", encoding="utf-8") as stream:
        stream.write(name)
    return len(name)


@step(version=1, stage="compile", title="Die", needs=BARE)
def die(*, number: int) -> int:
    print("the last words of the worker", flush=True)
    os.kill(os.getpid(), number)
    time.sleep(60)
    return 0


@step(version=1, stage="compile", title="Leave", needs=BARE)
def leave(*, status: int) -> int:
    print("the last words of the worker", flush=True)
    os._exit(status)


@step(version=1, stage="compile", title="Leave a child", needs=BARE)
def leave_a_child(*, status: int) -> int:
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    os._exit(status)


@step(version=1, stage="compile", title="Overrun the stack", needs=BARE)
def overrun() -> int:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)
    return 0


@step(version=1, stage="compile", title="Exit", needs=BARE)
def call_exit() -> int:
    sys.exit("a library thought that it may end the process")


@step(version=1, stage="quantize", title="Stumble", needs=BARE)
def stumble(*, text: str) -> int:
    raise KeyError(text)


@step(version=1, stage="quantize", title="Refuse", needs=BARE)
def refuse() -> int:
    raise InputError("the thing is refused", hint="bring another", code="test.refused")


@step(version=1, stage="quantize", title="Fill the disk", needs=BARE)
def fill_the_disk() -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")


@step(version=1, stage="compile", title="Return nonsense", needs=BARE)
def talk(*, lines: int) -> int:
    """Print on every road that native code has: none of it may reach the terminal or the pipe."""
    for number in range(lines):
        print(f"print {number}")
        os.write(1, b"file descriptor 1\n")
        os.write(2, b"file descriptor 2\n")
    subprocess.run(["echo", "a child's output"], check=True)
    return lines


@step(version=1, stage="source", title="Wait", needs=BARE)
def wait(*, ready: str) -> int:
    Path(ready).write_text(f"{os.getpid()}", encoding="utf-8")
    signal.pause()
    return 0
