"""Running an ONNX graph: ONNX Runtime on the CPU, the judge of every graph on its way."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.errors import StepError
from convkit.graph.custom_ops import register_libraries, unknown_operator
from convkit.graph.header import read_header, weight_types
from convkit.graph.lent import Lent
from convkit.graph.model import Model, Tensors
from convkit.graph.wire import WireError
from convkit.pipeline.allowance import threads
from convkit.pipeline.patience import one_run

if TYPE_CHECKING:
    import numpy as np

FLOATS_OF_8_BITS = frozenset((17, 18, 19, 20))
"""ONNX's numbers for FLOAT8E4M3FN, E4M3FNUZ, E5M2 and E5M2FNUZ."""

LARGE = 1_000_000_000
"""Bytes of a model beside whose session no other one is kept open: each holds all weights once, packed for its kernels.
"""

_kept: dict[str, tuple[Any, int]] = {}


def kept_session(path: Path, *, key: str, case: Mapping[str, np.ndarray]) -> Any:
    """Return a session that stays open for the next call with the same `key`, such as the model's digest.

    A model above `LARGE` stays alone: the others are closed before it is opened, and it before another is. Since it is
    opened again and again where several are timed in turn, it runs once on `case` before it is returned.
    """
    if key not in _kept:
        size = bytes_of(path)
        if size > LARGE or any(kept > LARGE for _, kept in _kept.values()):
            _kept.clear()
        session = open_session(path, timed=True)
        if size > LARGE:
            session.run(None, case)
        _kept[key] = session, size
    return _kept[key][0]


def bytes_of(path: Path) -> int:
    """Return the bytes of an ONNX file and of the files beside it that it keeps weights in."""
    try:
        names = read_header(path).data_files
    except (OSError, WireError):
        names = ()  # ONNX Runtime says what is wrong with it
    return sum(file.stat().st_size for file in (path, *(path.parent / name for name in names)) if file.is_file())


def open_session(path: Path, *, plain: bool = False, timed: bool = False) -> Any:
    """Open an `onnxruntime.InferenceSession` on the CPU, with its default threads, or fewer where fewer may run.

    Args:
        path: the ONNX file.
        plain: leave the graph as it is, without optimizations: a reference rather than a runtime.
        timed: let its threads wait for work as they do by default, spinning, which takes processors from whoever else
            has work for them: what is run for its answers alone does without.

    Raises:
        StepError: ONNX Runtime refuses the model; its own reason is in the message.
    """
    options = session_options(plain=plain)
    if not timed:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return start_session(path, options)


def session_options(*, plain: bool = False) -> Any:
    """Return the `onnxruntime.SessionOptions` under which convkit runs every graph; `plain` as in `open_session`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if (allowed := threads()) is not None:
        options.intra_op_num_threads = allowed
    if plain:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    register_libraries(options)
    return options


def start_session(path: Path, options: Any, *, content: bytes | None = None) -> Any:
    """Open a session on the CPU under these options.

    `content` stands for what lies at `path`, a variant of it that is in memory; external data lie beside `path`.

    A graph in FP8 is run as it is written: as it optimizes, ONNX Runtime 1.31 takes pairs of FP8 for pairs of INT8,
    drops a Relu before them, and refuses what it has then made of products and pools.

    Raises:
        StepError: ONNX Runtime refuses the model; its own reason is in the message.
    """
    import onnxruntime

    if content is None and _has_floats_of_8_bits(path):
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if content is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    lent = Lent(path) if content is None and bytes_of(path) > LARGE else None
    try:
        with contextlib.nullcontext() if lent is None else lent.to(options):
            session = onnxruntime.InferenceSession(content or str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise unknown_operator(str(error)) or StepError(
            f"ONNX Runtime {onnxruntime.__version__} refuses {path.name}: {' '.join(str(error).split())}",
            hint="the message names the node; an operator without a kernel here needs another export or target",
            code="onnxruntime.refused",
        ) from error
    session.lent = lent  # it reads them as long as it lives
    return session


def _has_floats_of_8_bits(path: Path) -> bool:
    try:
        return bool(weight_types(path) & FLOATS_OF_8_BITS)
    except (OSError, WireError):
        return False  # ONNX Runtime says what is wrong with it


def run_session(session: Any, names: tuple[str, ...], inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a session once and return its outputs by name.

    Raises:
        StepError: ONNX Runtime fails on these inputs, or is not done in time.
    """
    with one_onnxruntime_run(inputs) as options:
        return dict(zip(names, session.run(list(names), inputs, options), strict=True))


@contextlib.contextmanager
def one_onnxruntime_run(inputs: Mapping[str, np.ndarray]) -> Iterator[Any]:
    """Give the `onnxruntime.RunOptions` for one run on `inputs`, under which it is ended when it takes too long.

    Raises:
        StepError: ONNX Runtime fails on these inputs, or is not done in time.
    """
    import onnxruntime

    options = onnxruntime.RunOptions()
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
    with one_run(f"the model on the inputs {shapes}", end=lambda: setattr(options, "terminate", True)):
        try:
            yield options
        except Exception as error:
            raise StepError(
                f"ONNX Runtime fails on the inputs {shapes}: {' '.join(str(error).split())}",
                hint="the message names the node; a dimension that may not be free belongs into config.txt as a number",
                code="onnxruntime.failed",
            ) from error


def run_model(model: Model, cases: Tensors) -> list[dict[str, np.ndarray]]:
    """Return the model's outputs for every case, under their wire names."""
    session = open_session(model.path)
    names = tuple(spec.name for spec in model.interface.outputs)
    return [run_session(session, names, case) for case in cases]
