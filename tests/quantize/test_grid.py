"""Integer grids: zero is on them, channels have their own, biases fit into 32 bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convkit.quantize.grid import (
    WEIGHT_STEPS,
    Grid,
    grid_of,
    largest,
    mean_error,
    round_bias,
    round_to,
    round_weight,
    scale_for_bias,
)

ends = st.floats(-1e6, 1e6, width=32)


@given(ends, ends, st.booleans(), st.booleans())
def test_zero_lies_on_every_grid_and_the_range_within_a_step_of_it(
    one: float, other: float, signed: bool, symmetric: bool
) -> None:
    low, high = min(one, other), max(one, other)
    grid = grid_of(low, high, signed=signed, symmetric=symmetric)
    first = -128 if signed else 0

    assert first <= grid.zero_point <= first + 255
    assert (first - grid.zero_point) * grid.scale <= min(low, 0.0) + grid.scale * 0.51
    assert (first + 255 - grid.zero_point) * grid.scale >= max(high, 0.0) - grid.scale * 0.51
    if symmetric:
        assert grid.zero_point == (0 if signed else 128)


@pytest.mark.parametrize(
    ("low", "high", "zero_point"), [(0.0, 255.0, 0), (-255.0, 0.0, 255), (-127.5, 127.5, 128), (3.0, 255.0, 0)]
)
def test_known_ranges_give_a_step_of_one(low: float, high: float, zero_point: int) -> None:
    assert grid_of(low, high, signed=False, symmetric=False) == Grid(1.0, zero_point, False)


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_tensor_that_was_always_zero_gets_a_grid_that_sees_more(symmetric: bool) -> None:
    grid = grid_of(0.0, 0.0, signed=symmetric, symmetric=symmetric)

    assert round_to(np.array([0.0, 1.0], np.float32), grid).tolist() == [grid.zero_point, 127 if symmetric else 255]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_range_without_an_end_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="the range from"):
        grid_of(0.0, bad, signed=False, symmetric=False)


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_a_weight_is_half_a_step_away_at_most_channel_by_channel(axis: int | None) -> None:
    weight = np.random.default_rng(0).standard_normal((5, 4, 3)).astype(np.float32) * 10
    rounded = round_weight(weight, axis)
    scale = rounded.scale if axis is None else rounded.scale.reshape([-1 if i == axis else 1 for i in range(3)])

    assert rounded.scale.shape == (() if axis is None else (weight.shape[axis],))
    assert np.abs(rounded.values * scale - weight).max() <= scale.max() * 0.5001
    peaks = np.abs(rounded.values).max(axis=None if axis is None else tuple(i for i in range(3) if i != axis))
    assert np.all(peaks == WEIGHT_STEPS)


def test_slabs_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = np.random.default_rng(1).standard_normal((7, 5, 2)).astype(np.float32)
    mean = np.arange(5.0)
    whole = [round_weight(weight, axis) for axis in (None, 0, 1)]
    errors = [mean_error(weight, whole[1], 0, mean), mean_error(weight, whole[2], 1, np.arange(7.0))]
    monkeypatch.setattr("convkit.quantize.grid._SLAB", 20)

    for axis, expected in zip((None, 0, 1), whole, strict=True):
        found = round_weight(weight, axis)
        assert np.array_equal(found.values, expected.values)
        assert np.array_equal(found.scale, expected.scale)
        assert np.array_equal(largest(weight, axis), expected.scale * np.float32(WEIGHT_STEPS)) or axis == 1
    assert np.allclose(mean_error(weight, whole[1], 0, mean), errors[0])
    assert np.allclose(mean_error(weight, whole[2], 1, np.arange(7.0)), errors[1])


def test_a_channel_of_zeros_stays_zero() -> None:
    weight = np.zeros((2, 3), np.float32)
    weight[1] = 1
    rounded = round_weight(weight, 0)

    assert rounded.values.tolist() == [[0, 0, 0], [127, 127, 127]]
    assert np.isfinite(rounded.scale).all()
    assert (rounded.scale > 0).all()


def test_a_weight_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        round_weight(np.array([[1.0, np.nan]], np.float32), 0)


def test_a_bias_far_above_its_weights_makes_their_scale_coarser_and_still_fits() -> None:
    weight = np.full((2, 8), 1e-9, np.float32)
    weight[1] = 1.0
    bias = np.array([3.0, 3.0], np.float32)
    rounded = round_weight(weight, 0, at_least=scale_for_bias(bias, activation=0.01).astype(np.float32))
    scale = rounded.scale * np.float32(0.01)

    assert np.allclose(round_bias(bias, scale) * scale.astype(np.float64), bias, rtol=1e-6)
    assert rounded.scale[1] == np.float32(1 / 127), "the other channel keeps its own"


def test_what_rounding_adds_on_average_is_the_error_of_the_mean_input() -> None:
    numbers = np.random.default_rng(2)
    weight = numbers.standard_normal((6, 4)).astype(np.float32)
    inputs = numbers.random((50, 4)) + 1
    rounded = round_weight(weight, 0)
    error = (inputs @ (rounded.values * rounded.scale[:, None] - weight).T).mean(axis=0)

    assert np.allclose(mean_error(weight, rounded, 0, inputs.mean(axis=0)), error)
