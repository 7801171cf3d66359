"""Histograms: exact at both ends, and the same however the values come."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from convkit.quantize.histogram import BINS, Histogram
from convkit.quantize.statistics import NotFiniteError, Statistics

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def histogram(values: np.ndarray) -> Histogram:
    return Histogram.of(values, float(values.min()), float(values.max()))


def state(found: Histogram) -> tuple[object, ...]:
    first, counts = found.bins()
    return (found.count, found.low, found.high, found.exponent, first, counts.dtype.str, counts.tobytes())


def merged(portions: list[np.ndarray]) -> Histogram:
    total = Histogram()
    for portion in portions:
        if portion.size:
            total.merge(histogram(portion))
    return total


@given(arrays.arrays(np.float32, st.integers(1, 40), elements=FLOATS), st.data())
def test_any_order_and_portions_give_the_same_histogram_bit_for_bit(values: np.ndarray, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(values))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=5)))

    assert state(merged(np.split(values[order], cuts))) == state(histogram(values))


@given(arrays.arrays(np.float64, st.integers(1, 20), elements=st.floats(-1e300, 1e300)), st.integers(0, 20))
def test_doubles_are_counted_alike_in_portions(values: np.ndarray, cut: int) -> None:
    assert state(merged(np.split(values, [cut]))) == state(histogram(values))


@given(st.lists(arrays.arrays(np.float32, 3, elements=FLOATS), min_size=3, max_size=3))
def test_histograms_may_be_merged_in_any_grouping(portions: list[np.ndarray]) -> None:
    a, b, c = (histogram(portion) for portion in portions)
    b.merge(c)
    a.merge(b)

    assert state(a) == state(merged(portions))


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e-3, 1.0, 7.3, 1e30])
@pytest.mark.parametrize("signed", [False, True])
def test_every_value_is_in_the_bin_that_its_size_says(scale: float, signed: bool) -> None:
    drawn = np.random.default_rng(0).standard_normal(200_000)
    values = ((drawn if signed else np.maximum(drawn, 0)) * scale).astype(np.float32)

    found = histogram(values)
    first, counts = found.bins()

    expected = np.trunc(values.astype(np.float64) / 2.0**found.exponent).astype(int)
    assert np.array_equal(counts, np.bincount(expected - first, minlength=counts.size))
    assert counts.sum() == found.count == values.size
    assert (found.low, found.high) == (values.min(), values.max())


@pytest.mark.parametrize("largest", [1e-20, 0.7, 1.0, 1.0001, 1e6, 3e38])
def test_the_largest_magnitude_lies_in_the_upper_half_of_the_bins(largest: float) -> None:
    first, counts = histogram(np.array([-largest], np.float32)).bins()

    assert BINS // 2 <= -first < BINS
    assert counts[0] == 1


def test_a_growing_range_keeps_every_count() -> None:
    total = Histogram()
    values = [np.linspace(-1, 1, 1001, dtype=np.float32) * np.float32(3.0**power) for power in range(-8, 9)]
    exponents = []
    for portion in values:
        total.merge(histogram(portion))
        exponents.append(total.exponent)

    assert exponents == sorted(exponents)
    assert exponents[0] < exponents[-1]
    assert state(total) == state(histogram(np.concatenate(values)))


def test_zeros_seen_before_anything_else_are_counted_in_the_middle() -> None:
    total = merged([np.zeros(7, np.float32), np.array([2.5, -1.0], np.float32), np.zeros(3, np.float32)])

    first, counts = total.bins()

    assert counts[-first] == 10
    assert total.count == 12


def test_a_tensor_that_is_always_zero_has_no_bins() -> None:
    first, counts = merged([np.zeros(7, np.float32), np.zeros(5, np.float32)]).bins()

    assert (first, counts.size) == (0, 0)


def test_half_precision_is_counted_as_what_it_stands_for() -> None:
    values = np.random.default_rng(1).standard_normal(5000).astype(np.float16)

    assert state(Statistics.of(values, None).histogram) == state(histogram(values.astype(np.float32)))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("axis", [None, 1, -1])
def test_what_is_not_finite_has_no_statistics(bad: float, axis: int | None) -> None:
    array = np.zeros((2, 3, 4), np.float32)
    array[1, 2, 3] = bad

    with pytest.raises(NotFiniteError):
        Statistics.of(array, axis)


@pytest.mark.parametrize(("axis", "others"), [(1, (0, 2, 3)), (-1, (0, 1, 2))])
def test_channels_have_their_extremes_and_means(axis: int, others: tuple[int, ...]) -> None:
    array = np.random.default_rng(2).standard_normal((5, 3, 7, 4)).astype(np.float32) * 100
    total = Statistics.of(array[:1], axis)
    total.merge(Statistics.of(array[1:], axis))

    assert total.channels is not None
    assert np.array_equal(total.channels.max_abs, np.abs(array).max(axis=others))
    np.testing.assert_allclose(total.channels.total / total.channels.count, array.mean(axis=others, dtype=float), 1e-5)


@pytest.mark.parametrize("lowest", [0.0, 0.25], ids=["zeros", "no zeros"])
@pytest.mark.parametrize("axis", [None, 1, -1])
def test_to_know_that_nothing_is_below_zero_changes_no_statistics(lowest: float, axis: int | None) -> None:
    drawn = np.random.default_rng(3).standard_normal((2, 3, 150, 150))
    array = np.maximum(drawn, lowest).astype(np.float32)

    found, expected = (Statistics.of(array, axis, rows=2, rectified=known) for known in (True, False))

    assert state(found.histogram) == state(expected.histogram)
    if found.channels is not None and expected.channels is not None:
        assert np.array_equal(found.channels.max_abs, expected.channels.max_abs)
        assert np.array_equal(found.channels.total, expected.channels.total)
    assert (found.channels is None) == (axis is None)


@pytest.mark.parametrize("plane", [(1, 1), (3, 3), (130, 130)])
def test_channels_of_planes_of_any_size_are_exact(plane: tuple[int, int]) -> None:
    array = np.random.default_rng(4).standard_normal((2, 5, *plane)).astype(np.float32)

    channels = Statistics.of(array, 1).channels

    assert channels is not None
    assert np.array_equal(channels.max_abs, np.abs(array).max(axis=(0, 2, 3)))
    sums = array.sum(axis=(0, 2, 3), dtype=float)
    np.testing.assert_allclose(channels.total, sums, atol=1e-6 * np.abs(array).sum(axis=(0, 2, 3)).max())
