"""Text broken into lines for a terminal, with paths left whole: what is cut can neither be copied nor found again."""

from __future__ import annotations

import re

_WORD = re.compile(r"\s*\S+")


def wrapped(text: str, width: int) -> str:
    """Break a text between its words into lines of at most `width` columns.

    A word that is longer than a line is cut, unless it holds a slash: a path (or a URL, or the name of a node) gets a
    line of its own and may be longer than that.
    """
    return "\n".join(line for paragraph in text.split("\n") for line in _lines(paragraph, width))


def _lines(paragraph: str, width: int) -> list[str]:
    from rich.cells import cell_len, chop_cells

    lines = [""]
    for word in _WORD.findall(paragraph):
        if lines[-1] and cell_len(lines[-1] + word) > width:
            lines.append("")
            word = word.lstrip()
        lines[-1] += word
        if cell_len(lines[-1]) > width and "/" not in word:
            lines[-1:] = chop_cells(lines[-1], width)
    return lines
