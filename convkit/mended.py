"""A mended model: its answers held against the first one's, its file, and the profiles that go with it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from convkit.errors import InputError, StepError
from convkit.graph.model import MODEL_FILE, Model, load_model, numpy_dtype
from convkit.graph.names import subgraphs
from convkit.graph.samples import make_cases
from convkit.graph.session import open_session, run_session
from convkit.measure.compare import OutputDifference, hold_against
from convkit.pipeline.copying import copy_file
from convkit.pipeline.step import step
from convkit.spec.options import CheckOptions, Precision
from convkit.targets.trt_profiles import Profile

if TYPE_CHECKING:
    import numpy as np


class NumbersCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The mended model's outputs against those of the model as it came, on random inputs."""

    compared: bool
    why_not: str = ""
    """Why they were not compared."""
    passed: bool = True
    tolerance: str = ""
    cases: int = 0
    outputs: tuple[OutputDifference, ...] = ()

    @property
    def failed(self) -> bool:
        """Tell whether they were compared, and differ."""
        return self.compared and not self.passed


@step(version=1, stage="check", title="Compare the mended graph", needs="onnx")
def compare_mended(model: Model, mended: Model, *, requantized: bool, comparable: bool) -> NumbersCheck:
    """Run both in ONNX Runtime on the same inputs, drawn at random at two sizes of every free dimension.

    Args:
        model: as it came.
        mended: after the repairs; its inputs may have other element types.
        requantized: the tolerance of INT8 (10 dB) holds, not that of FP32.
        comparable: False where a repair had to change what the numbers mean.
    """
    if not comparable:
        return NumbersCheck(compared=False, why_not="what was mended gave numbers that mean nothing to compare with")
    if _draws(model):
        return NumbersCheck(compared=False, why_not="it draws numbers at random, others in every run")
    if len(model.interface.inputs) != len(mended.interface.inputs) or not model.interface.inputs:
        return NumbersCheck(compared=False, why_not="it has inputs that cannot be drawn at random")
    try:
        first = open_session(model.path, plain=True)
    except StepError as error:
        return NumbersCheck(compared=False, why_not=f"the model as it came runs nowhere here: {error.message}")
    second = open_session(mended.path, plain=True)
    try:
        cases = make_cases(model.interface, None)
    except InputError as error:
        return NumbersCheck(compared=False, why_not=error.message)
    names = tuple(spec.name for spec in model.interface.outputs)
    expected, given = [], []
    for case in cases:
        try:
            expected.append(run_session(first, names, case))
        except StepError as error:
            return NumbersCheck(compared=False, why_not=f"the model as it came does not run: {error.message}")
        given.append(run_session(second, names, _for(mended, case)))
    wide = [{name: _wide(array) for name, array in answer.items()} for answer in given]
    precision = Precision.INT8 if requantized else Precision.NONE
    known = [{name: _wide(array) for name, array in answer.items()} for answer in expected]
    found = hold_against(known, wide, precision, CheckOptions())
    return NumbersCheck(
        compared=True, passed=found.passed, tolerance=found.tolerance, cases=found.cases, outputs=found.outputs
    )


def _draws(model: Model) -> bool:
    operators = {node.op_type for graph in subgraphs(load_model(model, weights=False).graph) for node in graph.node}
    return any(operator.startswith(("Random", "Bernoulli", "Multinomial")) for operator in operators)


def _for(model: Model, case: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {spec.name: case[spec.name].astype(numpy_dtype(spec.dtype)) for spec in model.interface.inputs}


def _wide(array: np.ndarray) -> np.ndarray:
    import numpy as np

    return array.astype(np.float64) if array.dtype.kind in "fiu" else array


def write_mended(model: Model, path: Path) -> None:
    """Put the mended file, and weights that lie beside it, where they were asked for; never over a file.

    Raises:
        InputError: a file is there already.
        OSError: it cannot be written.
    """
    for name in model.files.files:
        place = path if name == MODEL_FILE else path.parent / name
        try:
            stream = place.open("xb")
        except FileExistsError as error:
            raise InputError(
                f"{place} exists", hint="name another folder with -o FILE.onnx", code="preflight.exists"
            ) from error
        try:
            with stream:
                copy_file(model.files.file(name), stream)
                os.fsync(stream.fileno())
        except BaseException:
            place.unlink(missing_ok=True)  # half a file would be taken for the mended model
            raise


def write_profiles(path: Path, target: str, profiles: Sequence[Profile]) -> None:
    """Write a recipe with a target's optimization profiles.

    Raises:
        InputError: a file is there already.
    """
    lines = ["# The shapes that were assumed: correct them, and give this file to convkit convert --recipe.", ""]
    lines += [f"to = {json.dumps(target)}"]
    for profile in profiles:
        lines += ["", f"[[{target}.profiles]]"]
        for name, numbers in (*profile.shapes.items(), *profile.values.items()):
            ranges = ", ".join(f"{key} = {list(getattr(numbers, key))}" for key in ("min", "opt", "max"))
            lines.append(f"{json.dumps(name)} = {{ {ranges} }}")
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write("\n".join(lines) + "\n")
    except FileExistsError as error:
        raise InputError(
            f"{path} exists", hint="name another file with -o FILE.onnx", code="preflight.exists"
        ) from error
