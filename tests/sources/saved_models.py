"""Converting a SavedModel in a test, and holding ONNX Runtime's answers against TensorFlow's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from convkit.pipeline.artifact import Artifact, gather
from convkit.sources.exported import Exported
from convkit.sources.tensorflow import export_saved_model
from convkit.spec.metadata import Metadata, TensorMetadata
from convkit.spec.options import ExportOptions
from convkit.spec.tensor import DType

KERAS = Path(__file__).parents[2] / "sample_models" / "digits_keras"
NO_OPTIONS = ExportOptions()


def source_of(folder: Path) -> Artifact:
    members = [folder / "saved_model.pb", *folder.glob("variables/*")]
    return gather(folder, [path.relative_to(folder).as_posix() for path in members if path.is_file()])


def export(
    folder: Path,
    metadata: Metadata | None = None,
    options: ExportOptions = NO_OPTIONS,
    samples: Artifact | None = None,
) -> Exported:
    return export_saved_model(source_of(folder), folder=".", metadata=metadata, options=options, samples=samples)


def tensor(node_name: str, dims: list[int], dtype: DType = DType.FLOAT32, **keys: Any) -> TensorMetadata:
    return TensorMetadata(name=f"my {node_name}", node_name=node_name, dtype=dtype, dims=tuple(dims), **keys)


def config(inputs: list[TensorMetadata], outputs: list[TensorMetadata], batch_size: int = 0) -> Metadata:
    return Metadata(batch_size=batch_size, inputs=tuple(inputs), outputs=tuple(outputs))


def assert_equal_in_onnxruntime(exported: Exported, cases: int = 2) -> None:
    session = onnxruntime.InferenceSession(str(exported.model.path), providers=["CPUExecutionProvider"])
    interface = exported.model.interface
    assert [value.name for value in session.get_inputs()] == [spec.name for spec in interface.inputs]
    assert [value.name for value in session.get_outputs()] == [spec.name for spec in interface.outputs]
    assert len(exported.samples) == len(exported.references) == cases
    for sample, reference in zip(exported.samples, exported.references, strict=True):
        fed = {name: array.astype(object) if array.dtype.kind == "U" else array for name, array in sample.items()}
        for spec, answer in zip(interface.outputs, session.run(None, fed), strict=True):
            assert answer.shape == reference[spec.name].shape
            if spec.dtype is DType.STRING:
                assert (answer == reference[spec.name]).all()
            else:
                np.testing.assert_allclose(answer, reference[spec.name], rtol=1e-3, atol=1e-4)


def described(exported: Exported) -> tuple[list[str], list[str]]:
    interface = exported.model.interface
    return [str(spec) for spec in interface.inputs], [str(spec) for spec in interface.outputs]
