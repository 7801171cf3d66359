"""ONNX Runtime on the CPU: the target that runs anywhere."""

from __future__ import annotations

from collections.abc import Mapping

from convkit.errors import UsageError
from convkit.graph.model import MODEL_FILE, Model, Tensors
from convkit.graph.session import kept_session
from convkit.graph.work import executed_work
from convkit.pipeline.runner import Runner
from convkit.pipeline.step import observation
from convkit.pipeline.stopwatch import Timing, time_calls
from convkit.spec.options import EngineMode, Precision
from convkit.targets.onnxruntime_profile import PROFILE
from convkit.targets.target import Compiled, Job, Refusal


@observation(version=1, stage="measure", title="Time ONNX Runtime", needs="onnx")
def time_onnxruntime(model: Model, *, inputs: Tensors, seconds: float) -> Timing:
    """Time one session with default threads on the first case of `inputs`, copies of inputs and outputs included."""
    session = kept_session(model.path, key=model.files.digest)
    case = next(iter(inputs))
    return time_calls(lambda: session.run(None, case), seconds)


class OnnxRuntime:
    """The target `onnxruntime`: the ONNX file is what the server loads."""

    name = "onnxruntime"
    title = "ONNX Runtime"
    profile = PROFILE
    refusals: Mapping[Precision, Refusal] = {}
    backend: str | None = "onnxruntime"
    filename = MODEL_FILE
    gpu = False
    emulated = False

    def require(self, engine: EngineMode) -> None:
        """Refuse a wish for an engine: there is none.

        Raises:
            UsageError: an engine was asked for.
        """
        if engine is not EngineMode.AUTO:
            raise UsageError(
                f"--engine {engine.value}: the target onnxruntime loads the ONNX file itself and has no engine",
                hint="leave --engine out, or choose --to tensorrt",
                code="usage.no-engine",
            )

    def compile(self, run: Runner, model: Model, job: Job) -> Compiled:
        """Hand the model on as it is, external data beside it; what was quantized is seen to run so."""
        lowered = job.precision is not Precision.NONE
        return Compiled(
            engine="none",
            files={name: model.files.file(name) for name in model.files.files},
            work=run(executed_work, model, samples=job.samples) if lowered else None,
        )
