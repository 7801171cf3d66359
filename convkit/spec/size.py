"""Sizes as people write them."""

from __future__ import annotations

import re

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def parse_size(text: str | int) -> int | None:
    """Return the bytes that a size such as ``4GiB``, ``512 MB`` or ``1073741824`` means; None where it is no size."""
    match = _SIZE.fullmatch(str(text))
    unit = _UNITS.get(match[2].upper()) if match else None
    return int(float(match[1]) * unit) if match and unit else None


def size_text(size: int) -> str:
    """Return bytes in B, KiB, MiB, GiB or TiB, with three significant digits."""
    amount, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(amount) < 1000:
            break
        amount, unit = amount / 1024, larger
    rounded = abs(float(f"{amount:.2e}"))
    decimals = 3 if rounded < 1 else 2 if rounded < 10 else 1 if rounded < 100 else 0
    return f"{size} B" if unit == "B" else f"{amount:,.{decimals}f} {unit}"
