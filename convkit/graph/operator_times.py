"""Where a call spends its time: operators and what each takes, as every runtime's own profiler tells it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

SLOWEST = 10
"""So many operators are named."""


class OperatorTime(msgspec.Struct, frozen=True, kw_only=True):
    """One operator of a model."""

    name: str
    """The node's; of a framework without names, the shapes that the operator is given."""
    operator: str
    """Its type, in the runtime's words."""
    ms: float
    """What it takes in one call; all its runs together, where a call runs it more than once."""


class TypeTime(msgspec.Struct, frozen=True, kw_only=True):
    """All operators of one type."""

    operator: str
    ms: float
    """What they take in one call."""
    count: int
    """How many there are; of a framework without names, how many runs of them a call has."""


class OperatorTimes(msgspec.Struct, frozen=True, kw_only=True):
    """What a profiler saw. It slows what it watches: shares tell more than times, and no latency is taken from it."""

    seen_by: str
    """Whose profiler it is, such as ``ONNX Runtime 1.31.1``."""
    calls: int
    """So many calls the times are the means of."""
    total_ms: float
    """All operators of one call."""
    slowest: tuple[OperatorTime, ...]
    """The slowest first, at most `SLOWEST`."""
    types: tuple[TypeTime, ...]
    """Every type, the slowest first."""
    written: dict[str, int] = {}
    """The graph's operators as they are written; empty where that is not known."""
    ran: dict[str, int] = {}
    """What the runtime's optimizer has made of them."""

    def share(self, ms: float) -> float:
        """Return a time as a share of the whole, 0 to 1."""
        return ms / self.total_ms if self.total_ms else 0.0


class Ran(NamedTuple):
    """One run of one operator."""

    name: str
    operator: str
    ms: float


def middle_half(calls: Sequence[Sequence[Ran]]) -> list[Sequence[Ran]]:
    """Leave out the quarter of the calls that took least, and the quarter that took most: a neighbour's doing."""
    ordered = sorted(calls, key=lambda call: math.fsum(ran.ms for ran in call))
    quarter = len(ordered) // 4
    return ordered[quarter : len(ordered) - quarter]


def operator_times(
    runs: Iterable[Ran],
    *,
    calls: int,
    seen_by: str,
    counts: Mapping[str, int] | None = None,
    written: Mapping[str, int] | None = None,
    ran: Mapping[str, int] | None = None,
) -> OperatorTimes:
    """Sum up what the operators took in `calls` calls, as means of one call.

    Args:
        runs: of all those calls.
        calls: how many they were.
        seen_by: whose profiler it was.
        counts: how many operators there are of each type; by default their names are counted.
        written, ran: see `OperatorTimes`.
    """
    by_node: dict[tuple[str, str], float] = {}
    for run in runs:
        node = (run.operator, run.name)
        by_node[node] = by_node.get(node, 0.0) + run.ms / calls
    by_type: dict[str, list[float]] = {}
    for (operator, _), ms in by_node.items():
        by_type.setdefault(operator, []).append(ms)
    slowest = sorted(by_node.items(), key=lambda item: (-item[1], item[0]))[:SLOWEST]
    types = (
        TypeTime(operator=operator, ms=math.fsum(times), count=(counts or {}).get(operator, len(times)))
        for operator, times in by_type.items()
    )
    return OperatorTimes(
        seen_by=seen_by,
        calls=calls,
        total_ms=math.fsum(by_node.values()),
        slowest=tuple(OperatorTime(name=name, operator=operator, ms=ms) for (operator, name), ms in slowest),
        types=tuple(sorted(types, key=lambda each: (-each.ms, each.operator))),
        written=dict(written or {}),
        ran=dict(ran or {}),
    )
