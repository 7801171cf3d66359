"""Times as people write them."""

from __future__ import annotations

import re

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0, "": 1.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(d|h|min|m|s|)\s*", re.IGNORECASE)


def parse_duration(text: str | float) -> float | None:
    """Return the seconds that a time such as ``30m``, ``1h 30m``, ``90s`` or ``90`` means; None where it is no time."""
    rest = str(text).strip()
    parts = []
    while match := _PART.match(rest):
        parts.append(match)
        rest = rest[match.end() :]
    if rest or not parts or (len(parts) > 1 and not all(part[2] for part in parts)):
        return None
    return sum(float(part[1]) * _UNITS[part[2].lower()] for part in parts)
