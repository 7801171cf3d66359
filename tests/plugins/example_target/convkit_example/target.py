"""The target `example`: a runtime that loads ONNX models packed with zlib."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from convkit.errors import UsageError
from convkit.graph.model import MODEL_FILE, Model
from convkit.graph.quant_profile import Product, QuantProfile, Written
from convkit.pipeline.artifact import Artifact, gather, new_folder
from convkit.pipeline.environment import declare_environment
from convkit.pipeline.runner import Runner
from convkit.pipeline.step import step
from convkit.spec.options import EngineMode, Precision
from convkit.targets.target import Compiled, Job, Refusal

declare_environment("example", distributions=("convkit-example",), warm_up=("zlib",), settings={"EXAMPLE": "set"})


class ExampleOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The recipe's table `[example]`."""

    level: Annotated[int, msgspec.Meta(ge=0, le=9)] = 6
    """How hard zlib tries."""


@step(version=1, stage="compile", title="Pack the model", needs="example")
def pack(model: Model, *, level: int) -> Artifact:
    """Pack the ONNX file with zlib."""
    import os
    import zlib

    folder = new_folder("packed")
    header = os.environ["EXAMPLE"].encode()
    (folder / "model.packed").write_bytes(header + zlib.compress(model.path.read_bytes(), level))
    return gather(folder)


class Example:
    """The target."""

    name = "example"
    title = "Example"
    options = ExampleOptions
    profile = QuantProfile(
        signed_activations=True,
        symmetric_activations=True,
        per_channel=True,
        quantize_bias=False,
        products=(Product(type="Conv", writes=Written.FUSED), Product(type="MatMul", writes=Written.FLOAT)),
    )
    refusals: Mapping[Precision, Refusal] = {
        Precision.FP16: Refusal(reason="it computes in FP32 and INT8 only", instead="use --quantize int8")
    }
    backend: str | None = None
    filename = "model.packed"
    gpu = False
    emulated = True

    def require(self, engine: EngineMode) -> None:
        """Refuse to defer: it packs anywhere."""
        if engine is EngineMode.DEFER:
            raise UsageError(
                "--engine defer: example packs anywhere", hint="leave --engine out", code="example.no-defer"
            )

    def compile(self, run: Runner, model: Model, job: Job) -> Compiled:
        """Pack the model."""
        options = job.options if isinstance(job.options, ExampleOptions) else ExampleOptions()
        packed = run(pack, model, level=options.level)
        files: dict[str, Path | bytes] = {self.filename: packed.file(), f"convkit/{MODEL_FILE}": model.path}
        return Compiled(engine="built", files=files, served_bytes=packed.bytes, facts=("Packed with zlib.",))
