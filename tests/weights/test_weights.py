"""Weights are read and written one at a time, inside the graph's file and beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import convkit.graph.weights as module
from convkit.errors import InputError
from convkit.graph.model import DATA_FILE, MODEL_FILE, Model, load_model
from convkit.graph.weights import ModelWriter, Weights
from convkit.pipeline.artifact import gather, use_scratch
from convkit.spec.tensor import Interface

INTERFACE = Interface(inputs=(), outputs=(), max_batch_size=0)
ARRAYS: dict[str, np.ndarray[Any, Any]] = {
    "w": np.random.default_rng(0).standard_normal((40, 30)).astype(np.float32),
    "halves": np.arange(600).reshape(2, 300).astype(np.float16),
    "shape": np.array([1, -1], np.int64),
    "scalar": np.array(3.5, np.float32),
    "bytes": np.arange(2000, dtype=np.uint8),
}


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path) -> None:
    use_scratch(tmp_path / "scratch")


def written(folder: Path, *, external: bool) -> Model:
    tensors = [numpy_helper.from_array(array, name) for name, array in ARRAYS.items()]
    tensors.append(helper.make_tensor("typed", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0]))
    tensors.append(helper.make_tensor("four_bits", TensorProto.INT4, [4], [-8, 7, 0, 3]))
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [], tensors)
    folder.mkdir()
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    location = DATA_FILE if external else None
    onnx.save(proto, folder / MODEL_FILE, save_as_external_data=external, location=location, size_threshold=1000)
    return Model(files=gather(folder), interface=INTERFACE)


@pytest.mark.parametrize("external", [False, True])
def test_every_weight_is_read_from_where_it_lies(tmp_path: Path, external: bool) -> None:
    weights = Weights(written(tmp_path / "model", external=external))

    assert weights.names == (*ARRAYS, "typed", "four_bits")
    for name, array in ARRAYS.items():
        found = weights.array(name)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
        np.testing.assert_array_equal(numpy_helper.to_array(weights.tensor(name)), array)
    assert weights.array("typed").tolist() == [1.0, 2.0, 3.0]
    assert weights.array("four_bits").astype(np.int32).tolist() == [-8, 7, 0, 3]


@pytest.mark.parametrize("external", [False, True])
def test_what_is_written_is_what_was_read_and_the_same_bytes_twice(
    tmp_path: Path, external: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXTERNAL_ABOVE", 100 if external else 1 << 40)
    source = written(tmp_path / "model", external=not external)
    weights = Weights(source)
    copies = []
    for _ in range(2):
        writer = ModelWriter(expected_bytes=source.files.bytes)
        for name in weights.names:
            writer.add(weights.tensor(name))
        copies.append(writer.finish(load_model(source, weights=False), INTERFACE))

    assert copies[0].files.digest == copies[1].files.digest
    assert (DATA_FILE in copies[0].files.files) == external
    assert len(copies[0].files.files) == (2 if external else 1)
    again = onnx.load(str(copies[0].path))
    assert [node.op_type for node in again.graph.node] == ["Identity"]
    for tensor in again.graph.initializer:
        if tensor.name in ARRAYS:
            np.testing.assert_array_equal(numpy_helper.to_array(tensor), ARRAYS[tensor.name])


def test_external_data_that_are_cut_short_are_said_so(tmp_path: Path) -> None:
    model = written(tmp_path / "model", external=True)
    path = model.files.file(DATA_FILE)
    path.write_bytes(path.read_bytes()[:100])

    with pytest.raises(InputError, match="'w' cannot be read"):
        Weights(model).array("w")
