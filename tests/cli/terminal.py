"""A terminal of a given width that a program writes to, and what then stands on its screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

_SEQUENCE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")


class Shown(NamedTuple):
    """How a program ended, what stood on the screen, and all that it wrote."""

    status: int
    lines: list[str]
    written: str


def run_in_terminal(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    columns: int = 60,
    answers: Sequence[tuple[str, str]] = (),
) -> Shown:
    """Run a program in a terminal; each of `answers` is typed once its text has been written."""
    child, terminal = pty.fork()
    if child == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        os.chdir(folder)
        os.execve(command[0], list(command), {**environment, "TERM": "xterm-256color"})
    written, waiting, deadline = b"", list(answers), time.monotonic() + 90
    while True:
        assert time.monotonic() < deadline, written.decode(errors="replace")
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                written += os.read(terminal, 1 << 16)
            except OSError:  # its other end is closed
                break
        while waiting and waiting[0][0].encode() in written:
            os.write(terminal, waiting.pop(0)[1].encode())
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(terminal)
    text = written.decode()
    return Shown(status, on_screen(text, columns), text)


def on_screen(text: str, columns: int) -> list[str]:
    """What a terminal without end shows of a text: with line feeds, carriage returns, and the cursor going up."""
    lines, row, column, place = [[" "] * columns], 0, 0, 0
    while place < len(text):
        if sequence := _SEQUENCE.match(text, place):
            count, kind = sequence.groups()
            row = max(0, row - int(count or 1)) if kind == "A" else row
            if kind == "K":
                lines[row][0 if count == "2" else column :] = [" "] * (columns - (0 if count == "2" else column))
            place = sequence.end()
            continue
        character = text[place]
        place += 1
        if character == "\r":
            column = 0
        elif character == "\n" or column == columns:
            row, column = row + 1, 0 if column == columns else column
        if row == len(lines):
            lines.append([" "] * columns)
        if character.isprintable():
            lines[row][column] = character
            column += 1
    return ["".join(line).rstrip() for line in lines]
