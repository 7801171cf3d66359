"""OpenVINO on the CPU: the runtime that is often the fastest there, served by Triton's backend of its own."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from convkit.errors import InputError, MissingError
from convkit.graph.model import Model
from convkit.pipeline.runner import Contender, Runner
from convkit.spec.options import EngineMode, Precision
from convkit.targets.openvino_model import (
    GRAPH_FILE,
    OpenVINOOptions,
    answer_openvino,
    convert_to_openvino,
    openvino_work,
    run_openvino,
    time_openvino,
    unservable,
)
from convkit.targets.openvino_profile import PROFILE
from convkit.targets.target import Compiled, Job, Refusal, refuse_engine


class OpenVINO:
    """The target `openvino`: `model.xml` and `model.bin`, read by Triton's openvino backend."""

    name = "openvino"
    title = "OpenVINO"
    profile = PROFILE
    refusals: Mapping[Precision, Refusal] = {
        Precision.DYNAMIC: Refusal(
            reason="OpenVINO has no kernel for ONNX's dynamic quantization and runs it operator by operator",
            instead="--quantize int8 with --calibration-data, or --to onnxruntime",
        ),
        **dict.fromkeys(
            (Precision.FP16, Precision.BF16),
            Refusal(
                reason="OpenVINO chooses fp32 or bf16 itself as it compiles for a CPU: a file in 16 bits gains nothing",
                instead="--set openvino.inference_precision=bf16 without --quantize, or --quantize int8",
            ),
        ),
        Precision.INT8_FP16: Refusal(
            reason="a CPU computes in int8 and fp32 or bf16, not in fp16",
            instead="--quantize int8, with --set openvino.inference_precision=bf16 for the rest",
        ),
        Precision.FP8: Refusal(
            reason="CPUs do not compute in FP8: OpenVINO would run it in fp32",
            instead="--quantize int8 with the same data, or --to tensorrt",
        ),
    }
    options = OpenVINOOptions
    backend: str | None = "openvino"
    filename = GRAPH_FILE
    gpu = False
    emulated = False

    def require(self, engine: EngineMode) -> None:
        """Make sure that OpenVINO is here, and that no engine was asked for.

        Raises:
            MissingError: it is not installed.
            UsageError: an engine was asked for.
        """
        refuse_engine(engine, "OpenVINO compiles the model as it is loaded")
        if importlib.util.find_spec("openvino") is None:
            raise MissingError(
                "openvino is not installed here", hint='pip install "convkit[openvino]"', code="missing.extra"
            )

    def compile(self, run: Runner, model: Model, job: Job) -> Compiled:
        """Write the intermediate representation, and run it.

        Raises:
            InputError: a tensor that Triton's openvino backend cannot carry.
            StepError: OpenVINO refuses the model.
        """
        fault = unservable(model.interface)
        if fault is not None:
            raise InputError(
                f"{fault}, which Triton's openvino backend cannot carry",
                hint="convert --to onnxruntime, which serves it",
                code="openvino.unservable",
            )
        options = job.options if isinstance(job.options, OpenVINOOptions) else OpenVINOOptions()
        converted = run(convert_to_openvino, model)
        return Compiled(
            engine="none",
            files={name: converted.files.file(name) for name in converted.files.files},
            served_bytes=converted.files.bytes,
            answers=run(run_openvino, converted, samples=job.samples, options=options),
            answered=lambda data, outputs, at_most: run(
                answer_openvino, converted, data=data, outputs=outputs, at_most=at_most, options=options
            ),
            timed=lambda inputs, seconds: Contender(
                time_openvino, converted, inputs=inputs, seconds=seconds, options=options
            ),
            work=run(openvino_work, converted, samples=job.samples, options=options)
            if job.precision is not Precision.NONE
            else None,
            parameters={
                "PERFORMANCE_HINT": options.performance_hint,
                **({"HINT_BF16": "YES"} if options.inference_precision == "bf16" else {}),
            },
            facts=(
                f"OpenVINO {converted.version} wrote the model ({converted.layers} operations); what is not quantized "
                f"is checked and measured in {options.inference_precision}.",
            ),
        )
