"""The source `linear`: a classifier as JSON, ``{"weights": [[...], ...], "bias": [...]}``, one row for each input."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from convkit.errors import InputError, MissingError
from convkit.graph.model import Tensors
from convkit.pipeline.artifact import Artifact, gather
from convkit.pipeline.environment import declare_environment
from convkit.pipeline.runner import Contender, Runner
from convkit.pipeline.step import observation, step
from convkit.pipeline.stopwatch import Timing, time_calls
from convkit.sources.exported import Exported
from convkit.sources.find import Found
from convkit.sources.hand_on import hand_on
from convkit.sources.trust import Untrusted
from convkit.spec.metadata import Metadata
from convkit.spec.options import ExportOptions

if TYPE_CHECKING:
    import numpy as np

declare_environment("linear", distributions=("convkit-linear", "numpy", "onnx"), warm_up=("numpy", "onnx"))


class Linear:
    """The source."""

    name: ClassVar[str] = "linear"
    endings: ClassVar[tuple[str, ...]] = (".linear.json",)
    environment = "linear"
    kind = "linear classifier"
    untrusted: Sequence[Untrusted] = ()

    def __init__(self, found: Found, metadata: Metadata | None, options: ExportOptions) -> None:
        self.files = gather(Path(found.folder), [found.file])
        self.metadata = metadata
        self.options = options

    def require(self) -> None:
        """Ask for onnx, which writes the graph."""
        if importlib.util.find_spec("onnx") is None:
            raise MissingError("onnx is not installed here", hint='pip install "convkit[onnx]"', code="missing.extra")

    def export(self, run: Runner, *, samples: Artifact | None, max_opset: int) -> Exported:
        """Write the graph."""
        opset = self.options.opset or min(17, max_opset)
        return run(
            export_linear, self.files, opset=opset, metadata=self.metadata, options=self.options, samples=samples
        )

    def contender(self, exported: Exported, *, seconds: float) -> Contender[Timing] | None:
        """Time the product in numpy."""
        return Contender(time_linear, self.files, inputs=exported.samples, seconds=seconds)


@step(version=1, stage="source", title="Export the linear classifier", needs="linear")
def export_linear(
    source: Artifact, *, opset: int, metadata: Metadata | None, options: ExportOptions, samples: Artifact | None
) -> Exported:
    """Write ``softmax(x @ weights + bias)`` as ONNX."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    weights, bias = _read(source.file())
    nodes = [
        helper.make_node("Gemm", ["x", "weights", "bias"], ["scores"], "scores"),
        helper.make_node("Softmax", ["scores"], ["probabilities"], "softmax", axis=-1),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in zip(("x", "probabilities"), weights.shape, strict=True)
    ]
    known = [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")]
    graph = helper.make_graph(nodes, "linear", ends[:1], ends[1:], known)
    return hand_on(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]),
        lambda case, _: {"probabilities": _predicted(weights, bias, case["x"])},
        metadata=metadata,
        options=options,
        samples=samples,
        framework=f"numpy {np.__version__}",
        exporter="convkit-linear",
    )


@observation(version=1, stage="measure", title="Time the linear classifier", needs="linear")
def time_linear(source: Artifact, *, inputs: Tensors, seconds: float) -> Timing:
    """Time numpy's own prediction."""
    weights, bias = _read(source.file())
    (rows,) = next(iter(inputs)).values()
    return time_calls(lambda: _predicted(weights, bias, rows), seconds)


def _predicted(weights: np.ndarray, bias: np.ndarray, rows: np.ndarray) -> np.ndarray:
    import numpy as np

    scores = np.exp(rows @ weights + bias)
    probabilities: np.ndarray = scores / scores.sum(axis=-1, keepdims=True)
    return probabilities


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (inputs, classes) and bias (classes), float32."""
    import numpy as np

    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        weights, bias = (np.asarray(held[key], np.float32) for key in ("weights", "bias"))
    except (ValueError, TypeError, KeyError) as error:
        raise _refused(path, str(error)) from error
    if weights.ndim != 2 or bias.shape != weights.shape[1:]:
        raise _refused(path, f"weights {list(weights.shape)} and bias {list(bias.shape)} do not go together")
    return weights, bias


def _refused(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path.name} is no linear classifier: {reason}",
        hint='it should read {"weights": [[...], ...], "bias": [...]}',
        code="linear.unreadable",
    )
