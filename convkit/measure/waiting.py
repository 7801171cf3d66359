"""What the time in which timed calls waited for a processor leaves unknown of how fast they are.

A neighbour that takes a processor now and then makes calls longer by what they wait, and nobody knows which: a median
may be that of calls that waited, or of calls that did not. What is sure is that waiting makes nothing faster. So a
contender that was seen to take t, and waited for the share w of its time, takes t (1 - w) to t by itself, and a ratio
of two that was found to lie between `low` and `high` may lie between low (1 - w before) and high / (1 - w after).

A framework with more threads than there are processors waits for itself: no waiting is laid to others for longer than
others had processors.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from convkit.measure.ratio import Ratio
from convkit.pipeline.run_queue import Turn
from convkit.pipeline.stopwatch import Timing

IDLE = 0.03
"""Shares below are what an otherwise idle machine shows."""
_MOST = 0.99
"""However busy a machine is, it does not make calls slower than by a factor of 100."""


def waited(rounds: Sequence[Timing]) -> float | None:
    """Return the share of its time, 0 to 1, that a contender waited for processors that others had.

    None where the system does not tell. Of each round, the time in which threads waited is taken, over that in which
    they ran or waited, or over the whole round where they also slept; of all rounds the median of all pairwise means,
    as in `ratio`: what moves that one moves this one. Others' processors have no such share of a single round, for the
    system counts them in ticks, and are taken over all rounds.
    """
    import numpy as np

    turns = [timing.turn for timing in rounds if timing.turn is not None]
    if not turns:
        return None
    shares = np.array([_share(turn, turn.waited_ns) for turn in turns])
    first, second = np.triu_indices(len(shares))
    whole = Turn(
        wall_ns=sum(turn.wall_ns for turn in turns),
        ran_ns=sum(turn.ran_ns for turn in turns),
        waited_ns=sum(turn.waited_ns for turn in turns),
        others_ns=sum(turn.others_ns for turn in turns),
    )
    return min(float(np.median((shares[first] + shares[second]) / 2)), _share(whole, max(whole.others_ns, 0)))


def _share(turn: Turn, missing_ns: int) -> float:
    return missing_ns / max(turn.ran_ns + missing_ns, turn.wall_ns, 1)


def doubt(share: float | None) -> float:
    """Return the share by which a time may have been too long; 0 where that is not known, or nothing that counts."""
    return 0.0 if share is None or share < IDLE else min(share, _MOST)


def widened(found: Ratio, before: float | None, after: float | None) -> Ratio:
    """Return what a ratio may be in truth, of contenders that waited these shares of their time."""
    return msgspec.structs.replace(found, low=found.low * (1 - doubt(before)), high=found.high / (1 - doubt(after)))
