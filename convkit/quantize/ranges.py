"""What calibration saw of every activation, kept so that a range can be chosen from it later, by any method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from convkit.errors import InputError
from convkit.pipeline.artifact import Artifact, gather, new_folder
from convkit.quantize.spectrum import Spectrum
from convkit.quantize.statistics import Statistics
from convkit.quantize.thresholds import choose_range
from convkit.spec.options import CalibrationMethod

if TYPE_CHECKING:
    import numpy as np

INDEX_FILE = "ranges.json"
COUNTS_FILE = "counts.npy"
CHANNELS_FILE = "channels.npy"


class Ranges(msgspec.Struct, frozen=True, kw_only=True):
    """The statistics of every observed tensor, as files; `open_ranges` reads them."""

    files: Artifact
    samples: int
    """Samples that were run."""


class TensorRange(msgspec.Struct, frozen=True, kw_only=True):
    """One observed tensor. Its histogram counts the values x by trunc(x / 2^exponent), from `first` on."""

    count: int
    """Values in the histogram: all of those seen, or of large tensors an even part."""
    low: float
    high: float
    """The smallest and the largest value seen, exactly."""
    exponent: int
    first: int
    at: int
    bins: int
    """Where the histogram lies in `COUNTS_FILE` (int64) and its length; 0 bins where the tensor was always zero."""
    channels_at: int = 0
    channels: int = 0
    """Where its channels lie in `CHANNELS_FILE` (float64, rows: max-abs and mean) and how many there are."""


class RangeIndex(msgspec.Struct, frozen=True, kw_only=True):
    """`INDEX_FILE`: observed tensors by name, and the names that are views of them."""

    tensors: dict[str, TensorRange]
    views: dict[str, str]
    """Tensors that hold the same numbers in another shape or order, with the observed tensor that stands for them."""


class RangeTable:
    """Answers what range a tensor should have. Choosing runs no model."""

    def __init__(self, index: RangeIndex, counts: np.ndarray, channels: np.ndarray) -> None:
        self._index = index
        self._counts = counts
        self._channels = channels

    def names(self) -> tuple[str, ...]:
        """Return every tensor that a range is known of, views included, sorted."""
        return tuple(sorted({*self._index.tensors, *self._index.views}))

    def __contains__(self, name: object) -> bool:
        return name in self._index.tensors or name in self._index.views

    def choose(self, name: str, method: CalibrationMethod, *, levels: int, symmetric: bool) -> tuple[float, float]:
        """Return the range (low, high) that `levels` equidistant values should span, low ≤ 0 ≤ high.

        Their distance, the scale, is (high - low) / (levels - 1). Both ends are 0 for a tensor that was always zero.

        Args:
            name: the tensor, or a view of it.
            method: how much of what was seen may be clipped for a finer scale.
            levels: values of the quantized type that may be used: 256 for uint8, 255 for int8 from -127 to 127.
            symmetric: low = -high, as a zero point of 0 wants it.

        Raises:
            InputError: calibration did not observe the tensor.
        """
        return choose_range(self.spectrum(name), method, levels=levels, symmetric=symmetric)

    def max_abs(self, name: str) -> float:
        """Return the largest magnitude seen.

        Raises:
            InputError: calibration did not observe the tensor.
        """
        found = self._find(name)
        return max(abs(found.low), abs(found.high))

    def channel_max_abs(self, name: str) -> np.ndarray | None:
        """Return the largest magnitude of each channel (float64) of what is multiplied with constant weights.

        It is known of the inputs of Conv and ConvTranspose, whose channels are those of axis 1, and of MatMul and Gemm,
        whose channels are those of the last axis. None for other tensors, and for views, whose axes are others.
        """
        return self._channel_row(name, 0)

    def channel_mean(self, name: str) -> np.ndarray | None:
        """Return the mean of each channel (float64), for the same tensors as `channel_max_abs`."""
        return self._channel_row(name, 1)

    def spectrum(self, name: str) -> Spectrum:
        """Return the tensor's histogram.

        Raises:
            InputError: calibration did not observe the tensor.
        """
        found = self._find(name)
        return Spectrum(
            low=found.low,
            high=found.high,
            width=2.0**found.exponent,
            first=found.first,
            counts=self._counts[found.at : found.at + found.bins],
        )

    def _find(self, name: str) -> TensorRange:
        found = self._index.tensors.get(self._index.views.get(name, name))
        if found is None:
            raise InputError(
                f"calibration saw nothing of the tensor '{name}'",
                hint="only floating point activations are observed, not weights and what is computed from them alone",
                code="calibration.unobserved",
            )
        return found

    def _channel_row(self, name: str, row: int) -> np.ndarray | None:
        found = self._index.tensors.get(name)
        if found is None or not found.channels:
            return None
        return self._channels[row, found.channels_at : found.channels_at + found.channels]


def save_ranges(seen: Mapping[str, Statistics], views: Mapping[str, str], *, samples: int) -> Ranges:
    """Write what was seen of each tensor that had elements; `views` are the names that it holds true of as well."""
    import numpy as np

    tensors: dict[str, TensorRange] = {}
    counts: list[np.ndarray] = []
    channels: list[np.ndarray] = []
    counted = channelled = 0
    for name in sorted(name for name in seen if seen[name].histogram.count):
        histogram, by_channel = seen[name].histogram, seen[name].channels
        first, bins = histogram.bins()
        counts.append(bins)
        width = 0
        if by_channel is not None:
            width = by_channel.max_abs.size
            channels.append(np.stack([by_channel.max_abs, by_channel.total / by_channel.count]))
        tensors[name] = TensorRange(
            count=histogram.count,
            low=histogram.low,
            high=histogram.high,
            exponent=histogram.exponent or 0,
            first=first,
            at=counted,
            bins=bins.size,
            channels_at=channelled,
            channels=width,
        )
        counted, channelled = counted + bins.size, channelled + width
    folder = new_folder("ranges")
    known = {name: shown for name, shown in sorted(views.items()) if shown in tensors}
    (folder / INDEX_FILE).write_bytes(msgspec.json.encode(RangeIndex(tensors=tensors, views=known)))
    np.save(folder / COUNTS_FILE, np.concatenate([np.zeros(0, np.int64), *counts]))
    np.save(folder / CHANNELS_FILE, np.concatenate([np.zeros((2, 0)), *channels], axis=1))
    return Ranges(files=gather(folder), samples=samples)


def open_ranges(ranges: Ranges) -> RangeTable:
    """Read what `collect_ranges` wrote."""
    import numpy as np

    index = msgspec.json.decode(ranges.files.file(INDEX_FILE).read_bytes(), type=RangeIndex)
    counts = np.load(ranges.files.file(COUNTS_FILE), mmap_mode="r", allow_pickle=False)
    return RangeTable(index, counts, np.load(ranges.files.file(CHANNELS_FILE), allow_pickle=False))
