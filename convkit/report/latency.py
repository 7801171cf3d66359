"""How long a call takes, and which of two models is faster: the report's figures of speed."""

from __future__ import annotations

from enum import Enum

import msgspec


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """How long one call takes, over all calls of all rounds."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    low_ms: float
    high_ms: float
    """`low_ms` and `high_ms` bound the 95 % bootstrap interval of the median."""
    calls: int
    rounds: int
    batch: int
    """Samples in one call."""
    waited: float | None = None
    """Share of that time, 0 to 1, in which the calls waited for processors that others had; None: not known."""


class Finding(Enum):
    """What a comparison of two speeds has shown."""

    FASTER = "faster"
    SLOWER = "slower"
    SAME = "no difference"
    """None that counts: the whole interval lies closer to 1 than `smallest`."""
    INCONCLUSIVE = "inconclusive"
    """The interval reaches from what counts to what does not, there were too few rounds, or what was timed waited for
    processors that others had."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The speed of two subjects, measured in alternation."""

    before: str
    after: str
    """Labels of subjects."""
    speedup: float
    """How many times as fast `after` is: above 1 it is faster, below 1 slower."""
    low: float
    high: float
    """`low` and `high` bound the 95 % interval of `speedup`."""
    rounds: int
    finding: Finding
    smallest: float = 0.015
    """The share from which on a difference counts: more than the machine makes of the same model, measured twice."""
    before_waited: float | None = None
    after_waited: float | None = None
    """Share of its time, 0 to 1, in which each waited for processors that others had; None where that is not known."""

    @property
    def conclusive(self) -> bool:
        """Tell whether a difference was found."""
        return self.finding in (Finding.FASTER, Finding.SLOWER)
