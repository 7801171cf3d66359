"""What calibration says of the tensors that a rewrite made after it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

from convkit.graph.quant_profile import QuantProfile
from convkit.quantize.constants import Constants
from convkit.quantize.grid import grid_of

if TYPE_CHECKING:
    import onnx

    from convkit.quantize.constants import Array, Reader
    from convkit.quantize.moments import Moment


class Statistics(Protocol):
    """What calibration found out."""

    def range(self, name: str) -> tuple[float, float] | None:
        """Return the (low, high) that a tensor's grid should span; None where it was not looked at."""

    def channel_mean(self, name: str) -> Array | None:
        """Return the mean of each channel of a product's input; None where that is not known."""

    def moment(self, node: str) -> Moment | None:
        """Return the moments of what a product's weights are multiplied with; None where they are not known."""


class Known:
    """Statistics of calibration, and those of new tensors that follow from them; weights as they are read."""

    def __init__(self, statistics: Statistics, profile: QuantProfile, read: Reader | None = None) -> None:
        self._statistics = statistics
        self._profile = profile
        self._read = read
        self._same: dict[str, str] = {}
        self._means: dict[str, Array | None] = {}
        self.tied: set[str] = set()
        """Names of Concats all of whose inputs lie on one grid: rounded they are only moved."""
        self.merged: list[str] = []
        """Names of products that went into others."""

    def constants(self, graph: onnx.GraphProto) -> Constants:
        """Return a graph's constants, weights among them."""
        return Constants(graph, self._read)

    def add(self, name: str, *, like: str, mean: Array | None) -> None:
        """Let a new tensor lie on another's grid; `mean` of its channels, where that is known."""
        self._same[name] = like
        self._means[name] = mean

    def range(self, name: str) -> tuple[float, float] | None:
        """Return the (low, high) that a tensor's grid should span; None where it was not looked at."""
        return self._statistics.range(self._same.get(name, name))

    def channel_mean(self, name: str) -> Array | None:
        """Return the mean of each channel of a product's input; None where that is not known."""
        return self._means[name] if name in self._means else self._statistics.channel_mean(name)

    def moment(self, node: str) -> Moment | None:
        """Return the moments of what a product's weights are multiplied with; None where they are not known."""
        return self._statistics.moment(node)

    def scale(self, name: str) -> float | None:
        """Return the distance of two neighbours on a tensor's grid; None where its range is unknown or not finite."""
        found = self.range(name)
        if found is None or not all(map(math.isfinite, found)):
            return None
        profile = self._profile
        signed, symmetric = profile.signed_activations, profile.symmetric_activations
        return grid_of(*found, signed=signed, symmetric=symmetric, number=profile.number).scale
