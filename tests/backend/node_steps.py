"""One step that takes onnx's node cases through convkit's steps, all of them in the worker that runs it."""

from __future__ import annotations

import functools
import shutil
import traceback
import warnings
from pathlib import Path
from typing import Any

import msgspec

from convkit.errors import ConvkitError
from convkit.graph.model import save_tensors
from convkit.graph.session import open_session
from convkit.graph.simplify import simplify
from convkit.measure.compare import compare_outputs, refuse_difference
from convkit.pipeline.artifact import Artifact, gather, new_folder
from convkit.pipeline.step import step
from convkit.sources.exported import Exported
from convkit.sources.onnx import import_onnx
from convkit.spec.options import CheckOptions, ExportOptions, Precision, SimplifyOptions

LEAST_ATOL = 1e-5
"""onnx asks for 1e-7, which no runtime that adds in another order gives."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one case."""

    name: str
    code: str = ""
    """Of the refusal; ``bug`` for what is none."""
    message: str = ""
    hint: str = ""
    difference: str = ""
    """From the published answers."""
    runs_as_published: bool = False
    """Where it was refused: whether ONNX Runtime takes the file as it is published."""
    differs_as_published: str = ""
    """Where the answers differ: how those of ONNX Runtime do, on the file as it is published."""


@step(version=1, stage="check", title="List onnx's node cases", needs="onnx")
def node_names() -> tuple[str, ...]:
    """Every case's name."""
    return tuple(_cases())


@step(version=1, stage="check", title="Take onnx's node cases through the steps", needs="onnx")
def take_nodes(names: tuple[str, ...], *, max_opset: int) -> tuple[Outcome, ...]:
    """Import, simplify and compare each case, and hold the result against the published answers."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    return tuple(_taken(_cases()[name], max_opset) for name in names)


@functools.cache
def _cases() -> dict[str, Any]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {case.name: case for case in collect_testcases()}


def _taken(case: Any, max_opset: int) -> Outcome:
    from backend.published import answers, difference

    ((given, published),) = case.data_sets
    inputs, wanted = ([_array(value) for value in values] for values in (given, published))
    named = dict(zip((value.name for value in case.model.graph.input), inputs, strict=True))
    tolerance = {"rtol": case.rtol, "atol": max(case.atol, LEAST_ATOL)}
    folder = new_folder("published")
    (folder / "model.onnx").write_bytes(case.model.SerializeToString())
    try:
        path = _through_the_steps(gather(folder), named, max_opset)
        found = difference(answers(open_session(path), named), wanted, **tolerance)
    except ConvkitError as error:
        runs = error.code.startswith("onnxruntime.") and _as_published(folder, named) is not None
        return Outcome(name=case.name, code=error.code, message=error.message, hint=error.hint, runs_as_published=runs)
    except Exception:  # noqa: BLE001 - the test tells it
        return Outcome(name=case.name, code="bug", message=traceback.format_exc())
    if found:
        own = _as_published(folder, named)
        differs = "it does not run" if own is None else difference(own, wanted, **tolerance)
        return Outcome(name=case.name, difference=found, differs_as_published=differs)
    shutil.rmtree(folder)
    return Outcome(name=case.name)


def _through_the_steps(source: Artifact, inputs: dict[str, Any], max_opset: int) -> Path:
    exported = _exported(source, inputs, max_opset)
    simplified = simplify(exported.model, chain=SimplifyOptions().chain)
    for subject, model in (("as exported", exported.model), ("simplified", simplified.model)):
        verification = compare_outputs(
            model,
            samples=exported.samples,
            references=exported.references,
            precision=Precision.NONE,
            options=CheckOptions(),
        )
        refuse_difference(verification, subject, exported.framework, hint="a bug")
    return simplified.model.path


def _exported(source: Artifact, inputs: dict[str, Any], max_opset: int) -> Exported:
    """Import the file with its published inputs as samples; NaN and infinity are none, then with random ones."""
    import numpy as np

    samples = None
    if inputs and all(isinstance(value, np.ndarray) for value in inputs.values()):
        samples = save_tensors([inputs]).files
    about: dict[str, Any] = {"metadata": None, "options": ExportOptions(), "max_opset": max_opset}
    try:
        return import_onnx(source, file="model.onnx", samples=samples, **about)
    except ConvkitError as error:
        if error.code != "data.not-finite":
            raise
        return import_onnx(source, file="model.onnx", samples=None, **about)


def _as_published(folder: Path, inputs: dict[str, Any]) -> list[Any] | None:
    """What ONNX Runtime answers on the file as it is published; None where it does not take it."""
    import onnxruntime

    from backend.published import answers

    try:
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
        return answers(session, inputs)
    except Exception:  # noqa: BLE001 - of the library's own, which has no common class
        return None


def _array(value: Any) -> Any:
    """A tensor as an array; sequences and optionals as they are."""
    import numpy as np
    from onnx import TensorProto, numpy_helper

    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic | int | float) else value
