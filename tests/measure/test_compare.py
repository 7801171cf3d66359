"""Outputs are held against the source framework's: by which rule, and what counts as equal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from triton_server.models import graph, interface, tensor

from convkit.errors import CheckError
from convkit.graph.model import Model, save_model, save_tensors
from convkit.measure.compare import OutputDifference, Verification, compare_outputs, hold_against, refuse_difference
from convkit.pipeline import events
from convkit.pipeline.artifact import use_scratch
from convkit.pipeline.events import Warned
from convkit.spec.options import CheckOptions, Precision
from convkit.spec.tensor import DType

Array = np.ndarray[Any, Any]


def held(reference: object, answer: object, precision: Precision = Precision.NONE, **options: float) -> Verification:
    pair = [np.asarray(each) for each in (reference, answer)]
    return hold_against([{"y": pair[0]}], [{"y": pair[1]}], precision, CheckOptions(**options))


def floats(*values: float) -> Array:
    return np.array(values, np.float32)


def with_noise(decibels: float, dtype: Any = np.float32) -> tuple[Array, Array]:
    """A signal, and the same with noise at that ratio."""
    generator = np.random.default_rng(0)
    signal, noise = generator.standard_normal(10_000), generator.standard_normal(10_000)
    noise *= np.linalg.norm(signal) / np.linalg.norm(noise) / 10 ** (decibels / 20)
    return signal.astype(dtype), (signal + noise).astype(dtype)


@pytest.mark.parametrize(
    ("reference", "answer", "passed"),
    [
        (0.0, 0.9e-4, True),
        (0.0, 1.1e-4, False),
        (100.0, 100.09, True),
        (100.0, 100.11, False),
        (-100.0, -100.09, True),
        (100.0, -100.0, False),
    ],
)
def test_fp32_is_held_element_by_element(reference: float, answer: float, passed: bool) -> None:
    assert held(floats(1, reference), floats(1, answer)).passed is passed


@pytest.mark.parametrize(
    ("precision", "least"),
    [(Precision.FP16, 30), (Precision.DYNAMIC, 10), (Precision.INT8, 10)],
)
def test_lower_precisions_are_held_by_their_signal_to_noise_ratio(precision: Precision, least: float) -> None:
    assert held(*with_noise(least + 0.1), precision).passed
    failed = held(*with_noise(least - 0.1), precision)

    assert not failed.passed
    assert failed.outputs[0].sqnr_db == pytest.approx(least - 0.1, abs=0.01)
    assert failed.tolerance == f"SQNR >= {least} dB"


@pytest.mark.parametrize(("dtype", "least"), [(np.float16, 30), (ml_dtypes.bfloat16, 20)])
def test_a_source_that_answers_in_16_bits_is_held_by_what_16_bits_can(dtype: Any, least: float) -> None:
    assert held(*with_noise(least + 1, dtype)).passed
    assert not held(*with_noise(least - 1, dtype)).passed
    assert held(*with_noise(least + 1, dtype)).tolerance.endswith(f"SQNR >= {least} dB where {np.dtype(dtype)}")


def test_asked_for_limits_replace_the_rule() -> None:
    assert held(floats(0, 1), floats(0, 1.4), max_error=0.5).passed
    assert not held(floats(0, 1), floats(0, 1.6), max_error=0.5).passed
    assert held(*with_noise(25), Precision.FP16, min_sqnr=20).passed
    assert not held(*with_noise(25), min_sqnr=30).passed
    assert not held(*with_noise(25), min_sqnr=20, max_error=1e-6).passed
    assert held(floats(1), floats(1), max_error=0.5, min_sqnr=20).tolerance == "|a - b| <= 0.5 and SQNR >= 20 dB"


@pytest.mark.parametrize("precision", [Precision.NONE, Precision.INT8])
@pytest.mark.parametrize(
    ("reference", "answer", "passed"),
    [
        ([1, math.nan], [1, math.nan], True),
        ([1, math.nan], [1, 2], False),
        ([1, 2], [1, math.nan], False),
        ([1, math.inf], [1, math.inf], True),
        ([1, math.inf], [1, -math.inf], False),
        ([1, math.inf], [1, 3e38], False),
        ([1, 2], [1, math.inf], False),
    ],
)
def test_what_is_not_finite_holds_against_the_same_only(
    reference: list[float], answer: list[float], passed: bool, precision: Precision
) -> None:
    verification = held(floats(*reference), floats(*answer), precision)

    assert verification.passed is passed
    assert (verification.outputs[0].max_abs is None) is not passed


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_])
def test_integers_and_booleans_are_equal_or_not(dtype: Any) -> None:
    assert held(np.array([1, 0], dtype), np.array([1, 0], dtype)).passed
    assert not held(np.array([1, 0], dtype), np.array([1, 1], dtype)).passed


@pytest.mark.parametrize("number", [2**24, 2**60])
def test_large_integers_that_differ_by_one_differ(number: int) -> None:
    assert not held(np.array([number]), np.array([number + 1])).passed


def test_strings_are_equal_or_not() -> None:
    assert held(np.array(["a", "ö"]), np.array(["a", "ö"], object)).passed
    assert not held(np.array(["a"]), np.array(["b"], object)).passed


def test_another_shape_never_holds() -> None:
    verification = held(np.zeros((2, 3), np.float32), np.zeros((3, 2), np.float32), max_error=1e9)

    assert not verification.passed
    assert verification.outputs[0].max_abs is None


def test_nothing_is_equal_to_nothing() -> None:
    assert held(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)).passed


def test_a_signal_of_zeros_has_no_ratio_to_hide_behind() -> None:
    assert not held(floats(0, 0), floats(0, 0.5), Precision.INT8).passed
    assert held(floats(0, 0), floats(0, 0), Precision.INT8).passed


def test_the_worst_case_of_each_output_counts() -> None:
    references = [{"a": floats(1), "b": floats(1)}, {"a": floats(1), "b": floats(1)}]
    answers = [{"a": floats(1), "b": floats(1.5)}, {"a": floats(1.25), "b": floats(1)}]
    verification = hold_against(references, answers, Precision.NONE, CheckOptions())

    assert {output.name: output.max_abs for output in verification.outputs} == {"a": 0.25, "b": 0.5}
    assert not verification.passed
    assert verification.cases == 2


def test_a_failure_names_the_worst_output_the_difference_and_the_rule() -> None:
    references = [{"fine": floats(1), "bad": floats(1), "nan": floats(1)}]
    answers = [{"fine": floats(1), "bad": floats(2), "nan": floats(math.nan)}]
    verification = hold_against(references, answers, Precision.NONE, CheckOptions())

    with pytest.raises(CheckError, match="the output 'nan' is not what torch 2 gives: largest difference not fin") as e:
        refuse_difference(verification, "as exported", "torch 2", hint="try again")
    assert "|a - b| <= 0.0001 + 0.001 |b|" in e.value.message
    assert (e.value.code, e.value.hint) == ("check.outputs-differ", "try again")


any_floats = arrays.arrays(np.float32, st.integers(0, 6), elements=st.floats(width=32))


@given(st.integers(0, 6).flatmap(lambda n: st.tuples(*[arrays.arrays(np.float64, n, elements=st.floats())] * 2)))
def test_any_numbers_at_all_give_a_verdict_that_survives_json(pair: tuple[Array, Array]) -> None:
    for precision in Precision:
        with np.errstate(all="ignore"):
            verification = held(*pair, precision)
        again = msgspec.json.decode(msgspec.json.encode(verification), type=Verification)

        assert again == verification


@given(any_floats)
def test_an_output_always_holds_against_itself(array: Array) -> None:
    for precision in Precision:
        with np.errstate(all="ignore"):
            [output] = held(array, array.copy(), precision).outputs

        assert output == OutputDifference(name="y", max_abs=0, max_rel=0, cosine=1, sqnr_db=None, passed=True)


# Against a real model


@pytest.fixture
def warned() -> Iterator[list[Warned]]:
    found: list[Warned] = []
    events.observe(lambda event: found.append(event) if isinstance(event, Warned) else None)
    yield found
    events.observe(events.nobody)


@pytest.fixture
def log(tmp_path: Path) -> Model:
    """y = log(x)."""
    from onnx import helper

    use_scratch(tmp_path)
    face = interface([tensor("x", DType.FLOAT32, "batch")], [tensor("y", DType.FLOAT32, "batch")])
    return save_model(graph([helper.make_node("Log", ["x"], ["y"])], face), face)


def test_a_model_is_run_on_the_samples_and_held_against_the_references(log: Model, warned: list[Warned]) -> None:
    samples = save_tensors([{"x": floats(1, 2)}, {"x": floats(3)}])
    right = save_tensors([{"y": np.log(floats(1, 2))}, {"y": np.log(floats(3))}])
    wrong = save_tensors([{"y": np.log(floats(1, 2))}, {"y": np.log(floats(4))}])
    options = {"samples": samples, "precision": Precision.NONE, "options": CheckOptions()}

    assert compare_outputs(log, references=right, **options).passed
    assert not compare_outputs(log, references=wrong, **options).passed
    assert warned == []


def test_answers_that_are_not_finite_in_the_source_itself_are_warned_of(log: Model, warned: list[Warned]) -> None:
    numbers = floats(1, -1, 0, 2)
    with np.errstate(all="ignore"):
        references = save_tensors([{"y": np.log(numbers)}])
    verification = compare_outputs(
        log,
        samples=save_tensors([{"x": numbers}]),
        references=references,
        precision=Precision.NONE,
        options=CheckOptions(),
    )

    assert verification.passed
    [warning] = warned
    assert warning.code == "check.not-finite"
    assert "2 of 4 elements" in warning.message
    assert "--samples" in warning.message
