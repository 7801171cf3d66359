"""Dynamic INT8: what is rounded, what the kernel is, and what the numbers are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from convkit.errors import StepError, UsageError
from convkit.graph.work import executed_work
from convkit.pipeline import events
from convkit.quantize.dynamic import quantize_dynamic
from precision.graphs import Array, answers, model_of, one_case, operators, sqnr_db

GENERATOR = np.random.default_rng(0)
FLOAT = TensorProto.FLOAT


def weights(*shape: int) -> Array:
    return (GENERATOR.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


def test_products_run_in_integers_and_share_what_they_read(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "q"], ["xq"], "query"),
        helper.make_node("MatMul", ["x", "k"], ["xk"], "key"),
        helper.make_node("Add", ["xq", "xk"], ["s"], "sum"),
        helper.make_node("Gemm", ["s", "w", "b"], ["y"], "dense", transB=1),
    ]
    tensors = {"q": weights(64, 32), "k": weights(64, 32), "w": weights(48, 32), "b": weights(48)}
    model = model_of(tmp_path / "m", nodes, tensors, {"x": (FLOAT, ["n", 64])}, {"y": ["n", 48]})
    case = {"x": GENERATOR.standard_normal((5, 64)).astype(np.float32)}

    quantized = quantize_dynamic(model).model

    assert operators(quantized).count("DynamicQuantizeLinear") == 2
    assert executed_work(quantized, samples=one_case(case)).macs == {"int8": 5 * (2 * 64 * 32 + 32 * 48)}
    [found], [wanted] = answers(quantized, case), answers(model, case)
    assert sqnr_db(found, wanted) > 35


def test_each_column_has_a_scale_of_its_own(tmp_path: Path) -> None:
    uneven = weights(64, 32) * np.geomspace(1e-3, 1e3, 32, dtype=np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "product")]
    model = model_of(tmp_path / "m", nodes, {"w": uneven}, {"x": (FLOAT, ["n", 64])}, {"y": ["n", 32]})
    case = {"x": GENERATOR.standard_normal((5, 64)).astype(np.float32)}

    [found], [wanted] = answers(quantize_dynamic(model).model, case), answers(model, case)

    assert min(sqnr_db(found[:, column], wanted[:, column]) for column in range(32)) > 25


def test_a_large_table_is_gathered_in_int8_with_a_scale_for_each_row(tmp_path: Path) -> None:
    table = weights(3000, 32) * np.geomspace(1e-2, 1e2, 3000, dtype=np.float32)[:, None]
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"], "embed"),
        helper.make_node("MatMul", ["rows", "w"], ["y"], "product"),
    ]
    tensors = {"table": table, "w": weights(32, 8)}
    model = model_of(
        tmp_path / "m", nodes, tensors, {"ids": (TensorProto.INT64, ["n", 4])}, {"y": ["n", 4, 8], "rows": ["n", 4, 32]}
    )
    case = {"ids": np.array([[0, 1, 2, 3], [2996, 2997, 2998, 2999]])}

    quantized = quantize_dynamic(model).model

    assert quantized.files.bytes < model.files.bytes / 3
    (_, found), (_, wanted) = answers(quantized, case), answers(model, case)
    assert min(sqnr_db(found[i, j], wanted[i, j]) for i in range(2) for j in range(4)) > 35


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_an_lstm_runs_in_integers(tmp_path: Path, direction: str) -> None:
    both = 2 if direction == "bidirectional" else 1
    nodes = [helper.make_node("LSTM", ["x", "w", "r", "b"], ["y"], "lstm", hidden_size=16, direction=direction)]
    tensors = {
        "w": GENERATOR.standard_normal((both, 64, 24)).astype(np.float32) / 5,
        "r": GENERATOR.standard_normal((both, 64, 16)).astype(np.float32) / 4,
        "b": GENERATOR.standard_normal((both, 128)).astype(np.float32) / 10,
    }
    model = model_of(tmp_path / "m", nodes, tensors, {"x": (FLOAT, [7, "n", 24])}, {"y": [7, both, "n", 16]})
    case = {"x": GENERATOR.standard_normal((7, 3, 24)).astype(np.float32)}

    quantized = quantize_dynamic(model).model

    assert operators(quantized) == ["DynamicQuantizeLSTM"]
    [found], [wanted] = answers(quantized, case), answers(model, case)
    assert sqnr_db(found, wanted) > 30


def test_what_a_branch_reads_from_outside_stays(tmp_path: Path) -> None:
    branches = {
        name: helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], [f"{name}_y"], f"{name}_product")],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_y", FLOAT, ["n", 8])],
        )
        for name in ("then_branch", "else_branch")
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "outside"),
        helper.make_node("If", ["yes"], ["z"], "if", **branches),
        helper.make_node("Add", ["h", "z"], ["y"], "sum"),
    ]
    tensors = {"w": weights(16, 8), "yes": np.array(True)}
    model = model_of(tmp_path / "m", nodes, tensors, {"x": (FLOAT, ["n", 16])}, {"y": ["n", 8]})
    case = {"x": GENERATOR.standard_normal((5, 16)).astype(np.float32)}

    [found], [wanted] = answers(quantize_dynamic(model).model, case), answers(model, case)

    assert sqnr_db(found, wanted) > 30


def test_convolutions_stay_and_that_is_said(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "c"], ["h"], "conv"),
        helper.make_node("Flatten", ["h"], ["f"], "flat"),
        helper.make_node("MatMul", ["f", "w"], ["y"], "product"),
    ]
    tensors = {"c": weights(2, 1, 3, 3), "w": weights(32, 8)}
    model = model_of(tmp_path / "m", nodes, tensors, {"x": (FLOAT, ["n", 1, 6, 6])}, {"y": ["n", 8]})
    said: list[events.Event] = []
    events.observe(said.append)

    quantized = quantize_dynamic(model).model

    assert "Conv" in operators(quantized)
    assert [event.code for event in said if isinstance(event, events.Warned)] == ["quantize.convolutions-kept"]


def test_a_graph_without_products_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"], "relu")]
    model = model_of(tmp_path / "m", nodes, {}, {"x": (FLOAT, ["n", 4])}, {"y": ["n", 4]})

    with pytest.raises(UsageError, match="has none"):
        quantize_dynamic(model)


def test_a_weight_that_is_not_finite_is_named(tmp_path: Path) -> None:
    bad = weights(16, 8)
    bad[3, 3] = np.nan
    nodes = [helper.make_node("MatMul", ["x", "broken"], ["y"], "product")]
    model = model_of(tmp_path / "m", nodes, {"broken": bad}, {"x": (FLOAT, ["n", 16])}, {"y": ["n", 8]})

    with pytest.raises(StepError, match="'broken' holds NaN"):
        quantize_dynamic(model)


def test_a_graph_with_nameless_nodes_and_weights_that_are_transposed_is_rounded_all_the_same(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "wt"], ["y"]),
    ]
    model = model_of(tmp_path / "m", nodes, {"w": weights(8, 16)}, {"x": (FLOAT, ["n", 16])}, {"y": ["n", 8]})

    quantized = quantize_dynamic(model).model

    names = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(str(quantized.path)).graph.initializer}
    assert {array.dtype for array in names.values() if array.ndim == 2} <= {np.dtype(np.int8), np.dtype(np.float32)}
    assert "MatMulInteger" in operators(quantized)
