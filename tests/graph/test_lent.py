"""Weights of a large model are lent to ONNX Runtime from their file: the same answers, and none is in memory twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from convkit.errors import StepError
from convkit.graph import lent, session
from convkit.graph.session import open_session

SIDE = 24


def write(folder: Path) -> Path:
    """A convolution with its normalization, a lookup, and products in float32 and float16; all weights beside it."""
    draw = np.random.default_rng(5).standard_normal
    shapes = {"k": (4, 3, 3, 3), "scale": (4,), "shift": (4,), "mean": (4,), "table": (50, SIDE), "w": (SIDE, SIDE)}
    arrays = {name: draw(shape).astype(np.float32) for name, shape in shapes.items()}
    arrays |= {"var": np.abs(draw(4)).astype(np.float32), "half": draw((SIDE, SIDE)).astype(np.float16)}
    nodes = [
        helper.make_node("Conv", ["image", "k"], ["c"], "convolution"),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["seen"], "normalization"),
        helper.make_node("Gather", ["table", "ids"], ["rows"], "lookup"),
        helper.make_node("MatMul", ["rows", "w"], ["h"], "product"),
        helper.make_node("Cast", ["h"], ["h16"], "narrow", to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["h16", "half"], ["y16"], "product16"),
        helper.make_node("Cast", ["y16"], ["y"], "wide", to=TensorProto.FLOAT),
    ]
    value = helper.make_tensor_value_info
    inputs = [value("image", TensorProto.FLOAT, ["N", 3, 8, 8]), value("ids", TensorProto.INT64, ["N", "T"])]
    outputs = [value("seen", TensorProto.FLOAT, None), value("y", TensorProto.FLOAT, None)]
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "net", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "net.onnx"
    onnx.save_model(model, str(path), save_as_external_data=True, location="net.bin", size_threshold=0)
    return path


CASE = {
    "image": np.random.default_rng(6).standard_normal((2, 3, 8, 8)).astype(np.float32),
    "ids": np.array([[1, 2, 49], [0, 7, 7]]),
}


@pytest.mark.parametrize("plain", [True, False], ids=["as it is", "optimized"])
def test_lent_weights_give_the_same_answers(plain: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path)
    usual = open_session(path, plain=plain).run(None, CASE)
    monkeypatch.setattr(session, "LARGE", 100)
    monkeypatch.setattr(lent, "SMALL", 8)
    opened = open_session(path, plain=plain)

    assert len(opened.lent._values) == 8
    for expected, found in zip(usual, opened.run(None, CASE), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_large_model_whose_weights_are_gone_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path)
    monkeypatch.setattr(session, "LARGE", 100)
    monkeypatch.setattr(lent, "SMALL", 8)
    (tmp_path / "net.bin").write_bytes(b"short")

    with pytest.raises(StepError, match=r"refuses net\.onnx"):
        open_session(path)


@pytest.mark.skipif(sys.platform != "linux", reason="proportional memory is Linux's")
def test_a_weight_that_is_packed_is_not_kept_a_second_time(tmp_path: Path) -> None:
    """Of a weight of 64 MiB no page of its file is held beside what was packed of it."""
    side = 4096
    array = np.ones((side, side), np.float32)
    value = helper.make_tensor_value_info
    ends = [value(name, TensorProto.FLOAT, ["N", side]) for name in ("x", "y")]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "product")]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], [numpy_helper.from_array(array, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(model, str(tmp_path / "net.onnx"), save_as_external_data=True, location="net.bin")
    code = (
        "import sys, re; from pathlib import Path; from convkit.graph import session; session.LARGE = 1000\n"
        "opened = session.open_session(Path(sys.argv[1]))\n"
        "held = [int(re.search(r'Pss: *(\\d+)', part)[1]) for part in Path('/proc/self/smaps').read_text()"
        ".split('VmFlags') if 'net.bin' in part]\n"
        "print(sum(held))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "net.onnx")], check=True, capture_output=True, text=True
    ).stdout

    assert int(out) < 1024
