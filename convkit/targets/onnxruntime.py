"""ONNX Runtime on the CPU: the target that runs anywhere."""

from __future__ import annotations

from collections.abc import Mapping

from convkit.graph.model import MODEL_FILE, Model, Tensors
from convkit.graph.session import kept_session
from convkit.graph.work import executed_work
from convkit.pipeline.runner import Runner
from convkit.pipeline.step import observation
from convkit.pipeline.stopwatch import Timing, time_calls
from convkit.spec.options import EngineMode, Precision
from convkit.targets.onnxruntime_profile import PROFILE
from convkit.targets.target import Compiled, Job, Refusal, refuse_engine


@observation(version=1, stage="measure", title="Time ONNX Runtime", needs="onnx")
def time_onnxruntime(model: Model, *, inputs: Tensors, seconds: float, session: int = 0) -> Timing:
    """Time a session with default threads on the first case of `inputs`, copies of inputs and outputs included.

    The same model may be timed in several sessions, which are numbered.
    """
    case = next(iter(inputs))
    kept = kept_session(model.path, key=f"{model.files.digest} {session}", case=case)
    return time_calls(lambda: kept.run(None, case), seconds)


class OnnxRuntime:
    """The target `onnxruntime`: the ONNX file is what the server loads."""

    name = "onnxruntime"
    title = "ONNX Runtime"
    profile = PROFILE
    refusals: Mapping[Precision, Refusal] = {
        Precision.BF16: Refusal(
            reason="ONNX Runtime has no bf16 kernels for CPUs",
            instead="--quantize int8 or dynamic; or --to openvino --set openvino.inference_precision=bf16",
        ),
        Precision.INT8_FP16: Refusal(
            reason="ONNX Runtime computes fp16 in fp32 on a CPU, with casts between: INT8 gains nothing from it",
            instead="--quantize int8",
        ),
        Precision.FP8: Refusal(
            reason="CPUs do not compute in FP8, and ONNX Runtime has no kernels for it there",
            instead="--quantize int8 with the same data, or --to tensorrt",
        ),
    }
    cautions: Mapping[Precision, str] = {  # what can be run and rarely pays
        Precision.FP16: "ONNX Runtime computes fp16 in fp32 on most CPUs, with casts between: the file is half as "
        "large, and it is rarely faster",
        Precision.INT4: "INT4 weights spare memory: a few rows at a time are faster for it, many rows slower",
    }
    backend: str | None = "onnxruntime"
    filename = MODEL_FILE
    gpu = False
    emulated = False

    def require(self, engine: EngineMode) -> None:
        """Refuse a wish for an engine: there is none.

        Raises:
            UsageError: an engine was asked for.
        """
        refuse_engine(engine, "ONNX Runtime loads the ONNX file itself")

    def compile(self, run: Runner, model: Model, job: Job) -> Compiled:
        """Hand the model on as it is, external data beside it; what was quantized is seen to run so."""
        lowered = job.precision is not Precision.NONE
        return Compiled(
            engine="none",
            files={name: model.files.file(name) for name in model.files.files},
            work=run(executed_work, model, samples=job.samples) if lowered else None,
        )
