"""The search for the ends of a range."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Cost = Callable[["np.ndarray", "np.ndarray"], "np.ndarray"]
"""What ranges cost, given how far they reach below and above zero (both positive, of one length)."""

_HALVINGS = 6
_ROUNDS = 4


def cheapest_window(cost: Cost, below: float, above: float, *, steps: int) -> tuple[float, float]:
    """Find the ends at which `cost` is least, at most `below` and `above` zero.

    One end is searched for in geometric steps, `steps` for a half, down to a 64th; then in finer ones around the best.
    Two are first drawn in together, then one after the other until neither gets better.
    """
    import numpy as np

    coarse = 2.0 ** (-np.arange(_HALVINGS * steps + 1) / steps)
    fine = 2.0 ** (np.linspace(1, -1, 4 * steps + 1) / steps)
    ends = np.array([below, above])
    most = ends.copy()
    sides = [np.array(side, float) for side in ([1, 0], [0, 1]) if (most * side).any()]
    spent = np.inf

    def move(factors: np.ndarray, side: np.ndarray, start: np.ndarray) -> bool:
        """Scale the ends of a side, and keep the cheapest; of equal ones the widest."""
        nonlocal ends, spent
        tried = np.minimum(start * np.where(side, factors[:, None], 1.0), most)
        costs = cost(tried[:, 0], tried[:, 1])
        best = int(np.argmin(costs))
        if not costs[best] < spent:
            return False
        ends, spent = tried[best], costs[best]
        return True

    move(coarse, np.ones(2), most)
    for factors in (coarse, fine):
        for _ in range(_ROUNDS if len(sides) > 1 else 1):
            moved = [
                move(factors, side, np.where(side, most if factors is coarse else ends, ends))
                for side in sides
                if len(sides) > 1 or factors is fine
            ]
            if not any(moved):
                break
    return float(ends[0]), float(ends[1])
