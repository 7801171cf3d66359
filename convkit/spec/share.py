"""Shares of a whole as people write them: ``90%`` or 0.9."""

from __future__ import annotations

import re


def parse_share(text: str | float) -> float | None:
    """Return a share between 0 and 1; None where the text is none.

    A number is the share itself (0.9, and 1 is all of it); with a percent sign it is so many hundredths.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(%?)\s*", str(text))
    if match is None:
        return None
    value = float(match[1]) / (100 if match[2] else 1)
    return value if 0 <= value <= 1 else None
