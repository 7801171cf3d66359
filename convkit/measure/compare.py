"""How far one model's outputs are from another's."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING

import msgspec

from convkit.errors import CheckError
from convkit.graph.model import Model, Tensors
from convkit.graph.session import run_model
from convkit.pipeline import events
from convkit.pipeline.step import step
from convkit.spec.options import CheckOptions, Precision

if TYPE_CHECKING:
    import numpy as np

ABSOLUTE, RELATIVE = 1e-4, 1e-3
"""FP32: an element a holds against the reference b where |a - b| <= 1e-4 + 1e-3 |b|."""
LEAST_SQNR_DB = {
    Precision.FP16: 30.0,
    Precision.BF16: 20.0,
    **dict.fromkeys((Precision.DYNAMIC, Precision.INT8, Precision.INT8_FP16, Precision.INT4, Precision.FP8), 10.0),
}
LEAST_SQNR_DB_OF_TYPE = {"float16": 30.0, "bfloat16": 20.0}
"""Outputs that the source framework itself gives in 16 bits: two right answers differ by more than FP32's tolerance."""


class OutputDifference(msgspec.Struct, frozen=True, kw_only=True):
    """One output a against its reference b, the worst over all cases. Floats that are not finite become None."""

    name: str
    max_abs: float | None
    """Largest |a - b|; None where it is not finite, or the shapes differ."""
    max_rel: float | None
    """Largest |a - b| / |b| over the elements where b is not 0; None as above."""
    cosine: float | None
    """Cosine of the angle between a and b, taken as vectors."""
    sqnr_db: float | None
    """10 log10(sum b^2 / sum (a - b)^2); None where there is no difference at all (`max_abs` is 0), or none finite."""
    passed: bool = True

    def __post_init__(self) -> None:
        for name in ("max_abs", "max_rel", "cosine", "sqnr_db"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                msgspec.structs.force_setattr(self, name, None)


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """A model's outputs held against the source framework's."""

    passed: bool
    tolerance: str
    """The rule, in words and numbers."""
    outputs: tuple[OutputDifference, ...]
    cases: int
    """How many sets of inputs were compared."""


@step(version=1, stage="check", title="Check the numbers", needs="onnx")
def compare_outputs(
    model: Model, *, samples: Tensors, references: Tensors, precision: Precision, options: CheckOptions
) -> Verification:
    """Run the model in ONNX Runtime on `samples`, and hold its outputs against `references`.

    Returns a verification that says whether every output holds; the caller decides what follows.
    """
    expected = list(references)
    _warn_of_not_finite(expected)
    return hold_against(expected, run_model(model, samples), precision, options)


def _warn_of_not_finite(references: list[dict[str, np.ndarray]]) -> None:
    """Say where the source framework's own answers are such that comparing with them means little."""
    import numpy as np

    for name in references[0]:
        arrays = [case[name] for case in references if case[name].dtype.kind in "fV"]
        total = sum(array.size for array in arrays)
        bad = sum(int((~np.isfinite(array.astype(np.float32))).sum()) for array in arrays)
        if bad:
            events.warn(
                "check.not-finite",
                f"the output '{name}' of the source framework is NaN or infinite in {bad} of {total} elements: "
                "give real inputs with --samples, or a range in config.txt",
            )


def hold_against(
    references: list[dict[str, np.ndarray]],
    answers: list[dict[str, np.ndarray]],
    precision: Precision,
    options: CheckOptions,
) -> Verification:
    """Compare case by case: every output by its worst case."""
    worst: dict[str, OutputDifference] = {}
    for reference, answer in zip(references, answers, strict=True):
        for name, expected in reference.items():
            found = difference(name, answer[name], expected, precision, options)
            worst[name] = worse(worst[name], found) if name in worst else found
    outputs = tuple(worst.values())
    return Verification(
        passed=all(output.passed for output in outputs),
        tolerance=tolerance(precision, options, {str(a.dtype) for case in references for a in case.values()}),
        outputs=outputs,
        cases=len(references),
    )


def refuse_difference(verification: Verification, subject: str, framework: str, *, hint: str) -> None:
    """Let a verification pass that passed.

    Raises:
        CheckError: it did not; the message names the worst output and what was asked for.
    """
    if verification.passed:
        return
    failed = [output for output in verification.outputs if not output.passed]
    worst = min(failed, key=lambda output: -1e9 if output.max_abs is None else output.sqnr_db or 0.0)
    largest = "not finite" if worst.max_abs is None else f"{worst.max_abs:.3g}"
    ratio = "" if worst.sqnr_db is None else f", SQNR {worst.sqnr_db:.1f} dB"
    raise CheckError(
        f"{subject}: the output '{worst.name}' is not what {framework} gives: largest difference {largest}{ratio}; "
        f"asked for: {verification.tolerance}",
        hint=hint,
        code="check.outputs-differ",
        stage="check",
    )


def tolerance(precision: Precision, options: CheckOptions, types: Collection[str] = ()) -> str:
    """Say by which rule outputs of these numpy types are judged."""
    rules = []
    if options.max_error is not None:
        rules.append(f"|a - b| <= {options.max_error:g}")
    if options.min_sqnr is not None:
        rules.append(f"SQNR >= {options.min_sqnr:g} dB")
    if not rules:
        least = LEAST_SQNR_DB.get(precision)
        rules.append(f"|a - b| <= {ABSOLUTE:g} + {RELATIVE:g} |b|" if least is None else f"SQNR >= {least:g} dB")
        if least is None:
            rules += [f"SQNR >= {db:g} dB where {name}" for name, db in LEAST_SQNR_DB_OF_TYPE.items() if name in types]
    return " and ".join(rules)


def difference(
    name: str, found: np.ndarray, expected: np.ndarray, precision: Precision, options: CheckOptions
) -> OutputDifference:
    """Hold one array against its reference; arrays of different shapes differ in everything."""
    import numpy as np

    if found.shape != expected.shape or expected.dtype.kind in "OUS":
        equal = found.shape == expected.shape and bool((found.astype("U") == expected.astype("U")).all())
        lost = 0.0 if equal else None
        return OutputDifference(name=name, max_abs=lost, max_rel=lost, cosine=float(equal), sqnr_db=None, passed=equal)
    a, b = (np.asarray(array, dtype=np.float64).ravel() for array in (found, expected))
    with np.errstate(invalid="ignore"):
        gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    gap = np.where(np.isnan(gap), np.inf, gap)
    if expected.dtype.kind in "iu":  # float64 does not tell large neighbours apart
        gap = np.where((gap == 0) & (found != expected).ravel(), 1.0, gap)
    size = np.abs(np.where(np.isfinite(b), b, 0.0))
    relative = np.divide(gap, size, out=np.zeros_like(gap), where=size > 0)
    signal, noise = float(size @ size), float(gap @ gap)
    sqnr = None if noise == 0 else _decibels(signal, noise)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    passed = _holds(gap, size, sqnr, str(expected.dtype), precision=precision, options=options)
    return OutputDifference(
        name=name,
        max_abs=float(gap.max(initial=0.0)),
        max_rel=float(relative.max(initial=0.0)),
        cosine=1.0 if noise == 0 else float(a @ b) / norms if 0 < norms < math.inf else 0.0,
        sqnr_db=sqnr,
        passed=passed,
    )


def _decibels(signal: float, noise: float) -> float:
    if signal == 0 or noise == math.inf:
        return -math.inf
    return 10 * (math.log10(signal) - math.log10(noise)) if signal < math.inf else math.inf


def _holds(
    gap: np.ndarray,
    size: np.ndarray,
    sqnr: float | None,
    dtype: str,
    *,
    precision: Precision,
    options: CheckOptions,
) -> bool:
    if options.max_error is not None or options.min_sqnr is not None:
        within = options.max_error is None or bool((gap <= options.max_error).all())
        return within and (options.min_sqnr is None or sqnr is None or sqnr >= options.min_sqnr)
    least = LEAST_SQNR_DB.get(precision, LEAST_SQNR_DB_OF_TYPE.get(dtype))
    if least is not None:
        return sqnr is None or sqnr >= least
    exact = dtype == "bool" or "int" in dtype
    return bool((gap == 0).all()) if exact else bool((gap <= ABSOLUTE + RELATIVE * size).all())


def worse(one: OutputDifference, other: OutputDifference) -> OutputDifference:
    """Merge two cases of one output: each figure the worse one."""

    def largest(a: float | None, b: float | None) -> float | None:
        return None if a is None or b is None else max(a, b)

    def smallest(a: float | None, b: float | None) -> float | None:
        return None if a is None or b is None else min(a, b)

    ratios = [difference.sqnr_db for difference in (one, other) if difference.max_abs != 0]
    return OutputDifference(
        name=one.name,
        max_abs=largest(one.max_abs, other.max_abs),
        max_rel=largest(one.max_rel, other.max_rel),
        cosine=smallest(one.cosine, other.cosine),
        sqnr_db=min((ratio for ratio in ratios if ratio is not None), default=None) if None not in ratios else None,
        passed=one.passed and other.passed,
    )
