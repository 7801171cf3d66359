"""Figures as people read them: three significant digits, and a unit."""

from __future__ import annotations

import math

from convkit.spec.accuracy import AGREEMENT, TOP1
from convkit.spec.size import size_text

NOTHING = "–"
"""Stands where there is no figure."""

_DIGITS = 3


def significant(value: float) -> str:
    """Return a number with three significant digits, never with an exponent; whole digits are never dropped."""
    if not math.isfinite(value):
        return NOTHING
    rounded = float(f"{value:.{_DIGITS - 1}e}")
    if rounded == 0:
        return "0"
    decimals = _DIGITS - 1 - math.floor(math.log10(abs(rounded)))
    return f"{value:,.{max(0, decimals)}f}"


def ratio(value: float) -> str:
    """Return a ratio with three significant digits; near 1, where the rest matters, with three decimals."""
    return f"{value:.3f}" if 0.5 < value < 2 else significant(value)


def count(value: int | None) -> str:
    """Return a whole number with its thousands separated."""
    return NOTHING if value is None else f"{value:,}"


def size(value: int | None) -> str:
    """Return bytes in B, KiB, MiB, GiB or TiB."""
    return NOTHING if value is None else size_text(value)


def milliseconds(value: float) -> str:
    """Return a latency in ms."""
    return f"{significant(value)} ms"


def duration(seconds: float) -> str:
    """Return a time in ms, s or min."""
    rounded = float(f"{seconds:.{_DIGITS - 1}e}")
    if rounded < 1:
        return milliseconds(seconds * 1000)
    if rounded < 60:
        return f"{significant(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:,} min {rest:02d} s"


def accuracy(value: float | None, metric: str) -> str:
    """Return how good a model is: a share as a percentage with two decimals, a metric of the user's own as it is."""
    if value is None:
        return NOTHING
    return f"{100 * value:.2f} %" if metric in (TOP1, AGREEMENT) else f"{value:.4g}"


def difference(value: float | None) -> str:
    """Return a difference between outputs, with an exponent where it is small or large."""
    return "not finite" if value is None else f"{value:.3g}"


def cosine(value: float | None) -> str:
    """Return a cosine with six decimals, cut rather than rounded: only the very same direction reads 1.000000."""
    if value is None:
        return NOTHING
    return f"{math.floor(value * 1e6) / 1e6:.6f}"


def decibel(value: float | None, *, max_abs: float | None) -> str:
    """Return a signal-to-noise ratio; without noise there is none."""
    if value is None:
        return "exact" if max_abs == 0 else NOTHING
    return f"{significant(value)} dB"
