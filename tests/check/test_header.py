"""An ONNX file's header, read without onnx, is what onnx reads; a damaged file is an answer or a WireError."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from check.repositories import dense
from convkit.graph.header import read_header
from convkit.graph.wire import WireError

DIMS = st.one_of(st.none(), st.lists(st.one_of(st.integers(0, 1 << 40), st.sampled_from(["n", "batch"])), max_size=4))
NAMES = st.text(min_size=1, max_size=8)
SUPPRESSED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
"""One folder serves all examples; and what is said here replaces what the profile suppresses."""


@settings(suppress_health_check=SUPPRESSED, max_examples=60, deadline=None)
@given(
    names=st.lists(NAMES, min_size=2, max_size=5, unique=True),
    elements=st.integers(1, 16),
    dims=DIMS,
    opset=st.integers(1, 30),
    ir_version=st.integers(3, 15),
)
def test_the_header_is_what_onnx_reads(
    tmp_path: Path, names: list[str], elements: int, dims: list[int | str] | None, opset: int, ir_version: int
) -> None:
    *inputs, output = names
    opsets = [helper.make_opsetid("com.example", 7), helper.make_opsetid("", opset)]
    graph = helper.make_graph(
        [helper.make_node("Sum", inputs, [output])],
        "g",
        [helper.make_tensor_value_info(name, elements, dims) for name in inputs],
        [helper.make_tensor_value_info(output, elements, dims)],
        [helper.make_tensor(inputs[0], TensorProto.FLOAT, [1], [1.0])] if len(inputs) > 1 else [],
    )
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
    file = tmp_path / "model.onnx"
    file.write_bytes(model.SerializeToString())

    found = read_header(file)

    read = onnx.load(file)
    weights = {weight.name for weight in read.graph.initializer}
    assert (found.ir_version, found.opset, found.data_files) == (ir_version, opset, ())
    assert [t.name for t in found.inputs] == [v.name for v in read.graph.input if v.name not in weights]
    assert [t.name for t in found.outputs] == [output]
    assert {t.elements for t in (*found.inputs, *found.outputs)} == {elements}
    wanted = None if dims is None else tuple(-1 if isinstance(dim, str) else dim for dim in dims)
    assert {t.dims for t in (*found.inputs, *found.outputs)} == {wanted}


@settings(suppress_health_check=SUPPRESSED, max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray(dense().SerializeToString())
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path / "model.onnx"
    file.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])

    try:
        read_header(file)
    except WireError:
        return


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x09"])
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(content)

    with pytest.raises(WireError):
        read_header(file)
