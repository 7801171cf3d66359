"""Comparing two models on the same inputs: tensor by tensor, or by a search for the node where they part."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from convkit.custom_ops import find_extensions, refuse_unread
from convkit.errors import CheckError, InputError, UsageError
from convkit.graph.feed import batch_rows, batches
from convkit.graph.model import MODEL_FILE, Model, Tensors, save_tensors
from convkit.graph.samples import make_cases
from convkit.graph.session import run_model
from convkit.graph.tap import CUT_DATA
from convkit.measure.bisect import Bisection, Parting, badness, bisect
from convkit.measure.compare import OutputDifference, hold_against, tolerance
from convkit.measure.tensors import TensorComparison, TensorDifference, compare_tensors
from convkit.model_paths import Opened, environment_of, open_model
from convkit.pipeline.artifact import Artifact, gather, use_index
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import Observer, nobody
from convkit.pipeline.runner import Runner
from convkit.pipeline.shared import open_cache
from convkit.pipeline.stat_index import StatIndex
from convkit.pipeline.step import step
from convkit.pipeline.watch import limits_from
from convkit.report import units
from convkit.report.document import Failure, Status, failed
from convkit.spec.options import CheckOptions, LimitOptions
from convkit.spec.tensor import Interface
from convkit.targets.openvino_model import OpenVINOModel, OpenVINOOptions, run_openvino

if TYPE_CHECKING:
    import numpy as np

_MOST_ROWS = 32


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """What `--bisect` found."""

    found: Parting | None
    """None where all tensors agree."""
    outputs_agree: bool
    """The difference dies out before the outputs, or there is none."""
    tensors: int
    """How many pairs of tensors lie on the way to the outputs."""
    runs: int
    """How often both graphs were run."""
    model: str | None
    """Path of the ONNX file that holds what differs, and nothing else."""
    data: str | None
    """Path of the .npz file with its inputs and the outputs expected of it."""


class ModelComparison(msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="convkit.model-comparison/1"):
    """What `convkit compare --json` prints of two models."""

    status: Status
    exit_code: int
    before: str
    after: str
    tolerance: str
    """By which rule a tensor passes, in words and numbers."""
    cases: int
    """How many sets of inputs both models were run on."""
    tensors: tuple[TensorDifference, ...] = ()
    """Every tensor that both graphs have, worst first; none with `--bisect`."""
    starts: TensorDifference | None = None
    """Of those beyond the tolerance, the first in topological order."""
    only_before: int = 0
    """How many tensors inside of the earlier graph have no counterpart."""
    only_after: int = 0
    search: Search | None = None
    error: Failure | None = None


def compare_models(
    before: Path,
    after: Path,
    *,
    samples: Path | None = None,
    trust: Sequence[str] = (),
    custom_ops: Sequence[str] = (),
    check: CheckOptions | None = None,
    bisecting: bool = False,
    write: Path | None = None,
    limits: LimitOptions | None = None,
    observer: Observer = nobody,
    cache: Cache | None = None,
) -> ModelComparison:
    """Run two models on the same inputs in ONNX Runtime, and hold the later one's tensors against the earlier one's.

    Tensors are paired by their ONNX names, behind Q/DQ pairs and casts by that of the tensor before; inputs and outputs
    else by position.

    Args:
        before, after: a model of any source, or a published version, model, or repository with one model.
        samples: a ``.npz`` file of inputs; by default those recorded with a published version, else random ones.
        trust: ``yes``, or digests of files whose code may run.
        custom_ops: the user's operators, for both models; see docs/custom_ops.md.
        check: the tolerance; by default that of the lower precision of both.
        bisecting: look for the first node whose output differs though its inputs agree, and write it as a model.
        write: where to; by default ``NODE.onnx`` in the working directory. The data go beside it, as ``.npz``.
        limits: what the workers may take.
        observer: is told what happens.
        cache: where exports are remembered.

    Returns:
        The comparison, with exit status 5 where an output differs beyond the tolerance.

    Raises:
        InputError: a model or the data are refused.
        UsageError: the file to be written exists, a limit is malformed, or neither model would load an operator's file.
    """
    allowed = limits_from(limits or LimitOptions())
    if write is not None:
        _refuse_existing(write)
    options = check or CheckOptions()
    extensions = find_extensions(custom_ops)
    if extensions:
        refuse_unread(extensions, {environment_of(before), environment_of(after)})
    cache = cache or open_cache(observer)
    use_index(StatIndex(cache.root / "digests.sqlite"))
    with Runner(cache, observer, limits=allowed) as run:
        run.extend(extensions)
        data = _data(samples) if samples is not None else None
        command = f"convkit compare {shlex.quote(str(before))} {shlex.quote(str(after))}"
        old = open_model(before, run, trust=trust, data=data, command=command)
        new = open_model(after, run, trust=trust, data=None, command=command)
        cases = _cases(run, old, new, data)
        empty = ModelComparison(
            status=Status.OK, exit_code=0, before=str(before), after=str(after), tolerance="", cases=len(cases)
        )
        if old.model is None or new.model is None:
            if bisecting:
                raise InputError(
                    "--bisect needs the graphs of both models, and what was published for OpenVINO is none of ONNX",
                    hint="compare the models that it was made from; without --bisect the outputs are compared",
                    code="compare.no-graph",
                )
            return _compared(empty, _by_outputs(run, old, new, cases, options), options)
        if bisecting:
            searched = run(bisect, old.model, new.model, samples=cases, options=options)
            return _searched(empty, searched, options, write)
        return _compared(empty, run(compare_tensors, old.model, new.model, samples=cases, options=options), options)


def _cases(run: Runner, old: Opened, new: Opened, data: Artifact | None) -> Tensors:
    """Choose the inputs, under the earlier model's names.

    Raises:
        InputError: the data do not fit, or neither model is a graph.
    """
    graph = old.model or new.model
    if graph is None:
        raise InputError(
            "neither model is a graph: both were published in OpenVINO's own format",
            hint="compare each with the model that it was made from",
            code="compare.no-graph",
        )
    if data is not None:
        return run(take_samples, graph.interface, data=data)
    same = None in (old.model, new.model) or _inputs(old.model) == _inputs(new.model)
    first, second = (new, old) if new.recorded and same and not old.recorded else (old, new)
    cases = first.samples or second.samples
    assert cases is not None  # a graph has some
    return cases


def _inputs(model: Model | None) -> set[str]:
    return {spec.name for spec in model.interface.inputs} if model is not None else set()


@step(version=1, stage="source", title="Take samples", needs="onnx")
def take_samples(interface: Interface, *, data: Artifact) -> Tensors:
    """Take up to 32 of the first rows of the user's data, in batches; of a model without a batch, what makes a case."""
    if not all(spec.dims and spec.dims[0] == "batch" for spec in interface.inputs):
        return save_tensors(make_cases(interface, data))
    size = min(batch_rows(interface), interface.max_batch_size or _MOST_ROWS)
    return save_tensors(batches(interface, data, size=size, at_most=_MOST_ROWS))


@step(version=1, stage="check", title="Run the graph", needs="onnx")
def answer(model: Model, *, samples: Tensors) -> Tensors:
    """Return the outputs of a graph in ONNX Runtime for every case."""
    return save_tensors(run_model(model, samples))


def _by_outputs(run: Runner, old: Opened, new: Opened, cases: Tensors, options: CheckOptions) -> TensorComparison:
    """Compare outputs alone, each model in its own runtime."""
    graph = old.model or new.model
    assert graph is not None

    def answers(one: Opened) -> list[dict[str, np.ndarray]]:
        given: Tensors
        if one.model is not None:
            given = run(answer, one.model, samples=cases)
        else:
            assert one.openvino is not None
            network = OpenVINOModel(files=one.openvino, interface=graph.interface, version="", layers=0)
            given = run(run_openvino, network, samples=cases, options=OpenVINOOptions())
        return list(given)

    precision = old.precision if old.model is None else new.precision
    verification = hold_against(answers(old), answers(new), precision, options)
    return TensorComparison(
        precision=precision,
        cases=len(cases),
        tensors=tuple(
            TensorDifference(
                **msgspec.structs.asdict(output),
                against=output.name,
                node="",
                operator="",
                position=number,
                is_output=True,
            )
            for number, output in enumerate(verification.outputs)
        ),
        only_before=0,
        only_after=0,
    )


def _data(path: Path) -> Artifact:
    if not path.is_file():
        raise InputError(f"--samples {path} does not exist", hint="name a .npz file", code="data.missing")
    return gather(path.absolute().parent, [path.name])


def _compared(empty: ModelComparison, found: TensorComparison, options: CheckOptions) -> ModelComparison:
    beyond = [tensor for tensor in found.tensors if not tensor.passed]
    comparison = msgspec.structs.replace(
        empty,
        tolerance=tolerance(found.precision, options),
        tensors=tuple(sorted(found.tensors, key=badness, reverse=True)),
        starts=beyond[0] if beyond else None,
        only_before=found.only_before,
        only_after=found.only_after,
    )
    outputs = [tensor for tensor in comparison.tensors if tensor.is_output and not tensor.passed]
    if not outputs:
        return comparison
    return _failing(
        comparison,
        f"the output '{outputs[0].name}' differs: {_largest(outputs[0])}; asked for: {comparison.tolerance}; "
        f"the first tensor that does is '{beyond[0].name}'"
        + (f", made by the node '{beyond[0].node}' ({beyond[0].operator})" if beyond[0].operator else ""),
        hint="--bisect writes the node where it starts as a model of its own; --max-error and --min-sqnr allow more",
    )


def _searched(
    empty: ModelComparison, searched: Bisection, options: CheckOptions, write: Path | None
) -> ModelComparison:
    model = data = None
    if searched.found is not None and searched.files is not None:
        model = write or _free(re.sub(r"[^\w.-]+", "_", searched.found.node).strip("_.") or "node")
        _refuse_existing(model)
        data = model.with_suffix(".npz")
        shutil.copyfile(searched.files.file(MODEL_FILE), model)
        shutil.copyfile(searched.files.file(CUT_DATA), data)
    search = Search(
        found=searched.found,
        outputs_agree=searched.outputs_agree,
        tensors=searched.tensors,
        runs=searched.runs,
        model=None if model is None else str(model),
        data=None if data is None else str(data),
    )
    comparison = msgspec.structs.replace(empty, search=search, tolerance=tolerance(searched.precision, options))
    found = searched.found
    if found is None or searched.outputs_agree:
        return comparison
    return _failing(
        comparison,
        f"the models part at the node '{found.node}' ({found.operator}): its output '{found.difference.name}' differs, "
        f"{_largest(found.difference)}, and its inputs agree; asked for: {comparison.tolerance}",
        hint=f"{model} holds that node alone, {data} its inputs and the output expected",
    )


def _failing(comparison: ModelComparison, message: str, *, hint: str) -> ModelComparison:
    head = failed(CheckError(message, hint=hint, code="compare.models-differ"))
    return msgspec.structs.replace(comparison, status=head.status, exit_code=head.exit_code, error=head.error)


def _largest(found: OutputDifference) -> str:
    ratio = "" if found.sqnr_db is None else f", SQNR {found.sqnr_db:.1f} dB"
    return f"largest difference {units.difference(found.max_abs)}{ratio}"


def _refuse_existing(path: Path) -> None:
    for file in (path, path.with_suffix(".npz")):
        if file.exists():
            raise UsageError(
                f"--write {path}: {file} exists", hint="name a file that does not", code="compare.write-exists"
            )
    if path.suffix != ".onnx" or not path.absolute().parent.is_dir():
        raise UsageError(
            f"--write {path}: this is no .onnx file in a folder that exists",
            hint="name one, such as fault.onnx",
            code="compare.write-name",
        )


def _free(stem: str) -> Path:
    """Return the first of STEM.onnx, STEM-2.onnx and so on that is free, its data's name too."""
    number = 1
    while True:
        path = Path(f"{stem}.onnx" if number == 1 else f"{stem}-{number}.onnx")
        if not path.exists() and not path.with_suffix(".npz").exists():
            return path
        number += 1
