"""Ranges against what their definitions say of the whole tensor."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from convkit.quantize.divergence import Divergence
from convkit.quantize.histogram import Histogram
from convkit.quantize.spectrum import Spectrum
from convkit.quantize.thresholds import choose_range, percentile_range
from convkit.spec.options import CalibrationMethod

RANDOM = np.random.default_rng(0)
TENSORS: dict[str, np.ndarray] = {
    "rectified": np.maximum(RANDOM.standard_normal(20_000), 0),
    "normal": RANDOM.standard_normal(20_000) * 3,
    "long tails": RANDOM.standard_t(3, 20_000),
    "outliers": np.concatenate([RANDOM.standard_normal(20_000), RANDOM.uniform(20, 60, 20)]),
    "shifted": RANDOM.standard_normal(20_000) + 2,
    "mostly below": np.concatenate([-RANDOM.exponential(1, 20_000), RANDOM.uniform(0, 0.3, 1000)]),
    "never above": -RANDOM.exponential(1, 10_000),
    "gated": (lambda x: x / (1 + np.exp(-x)))(RANDOM.standard_normal(20_000) * 4),
    "clipped at 6": np.clip(RANDOM.standard_normal(20_000) * 3, 0, 6),
}
each_tensor = pytest.mark.parametrize("name", TENSORS)
each_form = pytest.mark.parametrize(("levels", "symmetric"), [(256, False), (255, True), (16, False), (15, True)])
each_method = pytest.mark.parametrize("method", CalibrationMethod)


def spectrum(values: np.ndarray) -> Spectrum:
    found = Histogram.of(values.astype(np.float32), float(np.float32(values.min())), float(np.float32(values.max())))
    first, counts = found.bins()
    return Spectrum(low=found.low, high=found.high, width=2.0 ** (found.exponent or 0), first=first, counts=counts)


def quantized(values: np.ndarray, low: float, high: float, levels: int, symmetric: bool) -> np.ndarray:
    scale = (high - low) / (levels - 1)
    zero = levels // 2 if symmetric else round(-low / scale)
    return (np.clip(np.rint(values / scale) + zero, 0, levels - 1) - zero) * scale


def squared_error(values: np.ndarray, low: float, high: float, levels: int, symmetric: bool) -> float:
    return float(np.mean((values - quantized(values, low, high, levels, symmetric)) ** 2))


@each_tensor
@each_form
def test_minmax_is_exact_and_holds_zero(name: str, levels: int, symmetric: bool) -> None:
    values = TENSORS[name].astype(np.float32)
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    largest = max(-low, high)

    chosen = choose_range(spectrum(values), CalibrationMethod.MINMAX, levels=levels, symmetric=symmetric)

    assert chosen == ((-largest, largest) if symmetric else (low, high))


@each_tensor
@each_form
@each_method
def test_a_range_holds_zero_and_nothing_that_was_never_seen(
    name: str, levels: int, symmetric: bool, method: CalibrationMethod
) -> None:
    seen = spectrum(TENSORS[name])

    low, high = choose_range(seen, method, levels=levels, symmetric=symmetric)

    largest = max(-seen.low, seen.high)
    assert low <= 0 <= high
    assert low < high
    assert (-low <= largest, high <= largest) == (True, True)
    assert symmetric or (low >= min(seen.low, 0) and high <= max(seen.high, 0))
    assert not symmetric or low == -high


@each_method
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_tensor_that_was_always_zero_has_an_empty_range(method: CalibrationMethod, symmetric: bool) -> None:
    assert choose_range(spectrum(np.zeros(5)), method, levels=256, symmetric=symmetric) == (0, 0)


@each_method
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("only", [3.0, -3.0])
def test_a_constant_is_held(method: CalibrationMethod, symmetric: bool, only: float) -> None:
    low, high = choose_range(spectrum(np.full(10, only)), method, levels=255, symmetric=symmetric)

    assert quantized(np.array([only]), low, high, 255, symmetric)[0] == pytest.approx(only, rel=0.01)


@each_tensor
@pytest.mark.parametrize("share", [0.5, 0.99, 0.999, 0.9999, 1.0])
def test_a_percentile_is_within_a_bin_of_the_sorted_values(name: str, share: float) -> None:
    values = TENSORS[name].astype(np.float32)
    seen = spectrum(values)
    cut = int(np.floor(len(values) * (1 - share)))

    _, end = percentile_range(seen, share, symmetric=True)
    exact = np.sort(np.abs(values))[::-1][cut]

    assert exact <= end <= exact + seen.width

    low, high = percentile_range(seen, share, symmetric=False)
    sides = 2 if values.min() < 0 < values.max() else 1
    ordered = np.sort(values)
    assert max(ordered[::-1][cut // sides], 0) <= high <= max(ordered[::-1][cut // sides], 0) + seen.width
    assert min(ordered[cut // sides], 0) - seen.width <= low <= min(ordered[cut // sides], 0)


@each_tensor
@each_form
def test_no_range_has_a_clearly_smaller_squared_error_than_mse(name: str, levels: int, symmetric: bool) -> None:
    values = TENSORS[name]
    low, high = values.min(), values.max()
    steps = np.linspace(0.02, 1, 200 if symmetric or low >= 0 or high <= 0 else 24)
    if symmetric:
        largest = max(-low, high)
        tried = [(-largest * step, largest * step) for step in steps]
    else:
        tried = [(b, a) for a in sorted({max(high, 0) * s for s in steps}) for b in {min(low, 0) * s for s in steps}]
    best = min(squared_error(values, *each, levels, symmetric) for each in tried)

    chosen = choose_range(spectrum(values), CalibrationMethod.MSE, levels=levels, symmetric=symmetric)

    assert squared_error(values, *chosen, levels, symmetric) <= 1.02 * best


def divergence_by_definition(counts: np.ndarray, start: int, end: int, levels: int) -> float:
    """Migacz's recipe, bin by bin."""
    inside = counts[start:end].astype(float)
    reference = inside.copy()
    reference[0] += counts[:start].sum()
    reference[-1] += counts[end:].sum()
    candidate = np.zeros(len(inside))
    for level in range(levels):
        group = slice(len(inside) * level // levels, len(inside) * (level + 1) // levels)
        filled = reference[group] > 0
        if filled.any():
            candidate[group][filled] = max(inside[group].sum(), 1) / filled.sum()
    p, q = reference / reference.sum(), candidate / candidate.sum()
    seen = p > 0
    with np.errstate(divide="ignore"):
        return float(np.sum(p[seen] * np.log(p[seen] / q[seen])))


def beside_zero(seen: Spectrum, fold: bool) -> tuple[np.ndarray, np.ndarray]:
    """The counts below and above zero, on at most 4096 bins."""
    below, above = seen.sides()
    if fold:
        below, above = below[:0], seen.by_magnitude()
    while max(len(below), len(above)) > 4096:
        below, above = (
            np.add.reduceat(side, np.arange(0, len(side), 2)) if len(side) else side for side in (below, above)
        )
    return below, above


@each_tensor
@pytest.mark.parametrize("fold", [False, True])
def test_the_divergence_from_running_sums_is_that_of_the_definition(name: str, fold: bool) -> None:
    below, above = beside_zero(spectrum(TENSORS[name]), fold)
    drawn = np.random.default_rng(3)
    lows, highs = drawn.integers(0, len(below) + 1, 12), drawn.integers(1, len(above) + 1, 12)
    signed = np.concatenate([np.append(below[1:2], below[1:])[::-1] if len(below) > 1 else below, above])
    if len(above) > 1:
        signed[len(below)] = above[1]

    found = Divergence(below, above, 128).of(lows.astype(float), highs.astype(float))

    for low, high, divergence in zip(lows, highs, found, strict=True):
        if low + high >= 128:
            exact = divergence_by_definition(signed, len(below) - low, len(below) + high, 128)
            assert divergence == pytest.approx(exact, rel=1e-6, abs=1e-9)
        else:
            assert divergence == np.inf


@pytest.mark.parametrize("name", ["rectified", "normal", "long tails", "outliers", "gated", "clipped at 6"])
def test_no_threshold_diverges_clearly_less_than_entropys(name: str) -> None:
    seen = spectrum(TENSORS[name])
    below, above = beside_zero(seen, fold=True)
    every = np.arange(127, len(above) + 1).astype(float)
    divergences = Divergence(below, above, 127).of(every * 0, every)
    width = max(-seen.low, seen.high) / len(above)

    _, high = choose_range(seen, CalibrationMethod.ENTROPY, levels=255, symmetric=True)

    chosen = np.argmin(np.abs(every - high / width))
    assert divergences[max(chosen - 1, 0) : chosen + 2].min() <= 1.05 * divergences.min() + 1e-4


@pytest.mark.parametrize(
    ("method", "largest"),
    [(CalibrationMethod.PERCENTILE, 5), (CalibrationMethod.ENTROPY, 60), (CalibrationMethod.MSE, 350)],
)
def test_an_outlier_is_clipped_by_all_but_minmax(method: CalibrationMethod, largest: float) -> None:
    values = np.concatenate([np.maximum(RANDOM.standard_normal(1_000_000), 0), [500.0]])

    _, high = choose_range(spectrum(values), method, levels=256, symmetric=False)

    assert high < largest


def test_one_sided_tensors_have_all_levels_on_their_side() -> None:
    values = TENSORS["rectified"]
    errors: dict[bool, float] = {}
    choose: Callable[..., tuple[float, float]] = choose_range
    for symmetric in (False, True):
        low, high = choose(spectrum(values), CalibrationMethod.MSE, levels=256, symmetric=symmetric)
        errors[symmetric] = squared_error(values, low, high, 256, symmetric)

    assert errors[False] < errors[True] / 2.5
