"""FP16 and BF16: the graph that is written, the numbers, and what stays in fp32."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from convkit.graph.model import Model
from convkit.graph.precision import to_sixteen_bits
from convkit.graph.work import declared_work
from convkit.pipeline import events
from convkit.spec.options import Precision
from precision.graphs import Array, answers, model_of, one_case, operators, sqnr_db

GENERATOR = np.random.default_rng(0)
FLOAT = TensorProto.FLOAT
BOTH = [Precision.FP16, Precision.BF16]
TYPES = {Precision.FP16: TensorProto.FLOAT16, Precision.BF16: TensorProto.BFLOAT16}


def weights(*shape: int) -> Array:
    return (GENERATOR.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


def perceptron(folder: Path) -> tuple[Model, dict[str, Array]]:
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "b", "c"], ["y"], "second"),
        helper.make_node("Softmax", ["y"], ["p"], "softmax"),
    ]
    tensors = {"a": weights(32, 64), "b": weights(64, 8), "c": weights(8)}
    model = model_of(folder, nodes, tensors, {"x": (FLOAT, ["n", 32])}, {"p": ["n", 8], "y": ["n", 8]})
    return model, {"x": GENERATOR.standard_normal((5, 32)).astype(np.float32)}


def types_of(model: Model) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in onnx.load(str(model.path)).graph.initializer}


@pytest.mark.parametrize("precision", BOTH)
def test_weights_have_16_bits_and_the_interface_is_what_it_was(tmp_path: Path, precision: Precision) -> None:
    model, case = perceptron(tmp_path / "m")

    done = to_sixteen_bits(model, precision=precision, samples=one_case(case))

    assert set(types_of(done.model).values()) == {TYPES[precision]}
    graph = onnx.load(str(done.model.path)).graph
    assert [value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)] == [FLOAT] * 3
    assert [value.name for value in graph.output] == ["p", "y"]
    assert (done.overflowing, done.unsupported) == ((), ())
    assert done.model.files.bytes < 0.7 * model.files.bytes


def test_fp16_runs_and_gives_the_numbers(tmp_path: Path) -> None:
    model, case = perceptron(tmp_path / "m")

    done = to_sixteen_bits(model, precision=Precision.FP16, samples=one_case(case))

    for found, wanted in zip(answers(done.model, case), answers(model, case), strict=True):
        assert sqnr_db(found, wanted) > 55
    assert list(declared_work(done.model, samples=one_case(case)).macs) == ["fp16"]


def test_bf16_is_emulated_by_rounding_where_it_would_be_stored(tmp_path: Path) -> None:
    model, case = perceptron(tmp_path / "m")

    done = to_sixteen_bits(model, precision=Precision.BF16, samples=one_case(case))

    def rounded(array: Array) -> Array:
        return array.astype(ml_dtypes.bfloat16).astype(np.float32)

    tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load(str(model.path)).graph.initializer}
    hidden = rounded(np.maximum(rounded(rounded(case["x"]) @ rounded(tensors["a"])), 0))
    wanted = rounded(hidden @ rounded(tensors["b"]) + rounded(tensors["c"]))
    assert done.emulation is not None
    found = answers(done.emulation, case)[1]
    np.testing.assert_allclose(found, wanted, rtol=2**-7, atol=1e-3)
    assert (found == rounded(found)).all()
    assert sqnr_db(found, answers(model, case)[1]) > 35


@pytest.mark.parametrize("precision", BOTH)
def test_tensorrt_parses_what_is_written(tmp_path: Path, precision: Precision) -> None:
    import tensorrt_rtx

    model, case = perceptron(tmp_path / "m")
    path = to_sixteen_bits(model, precision=precision, samples=one_case(case)).model.path

    builder = tensorrt_rtx.Builder(tensorrt_rtx.Logger(tensorrt_rtx.Logger.ERROR))
    network = builder.create_network(0)
    parser = tensorrt_rtx.OnnxParser(network, tensorrt_rtx.Logger(tensorrt_rtx.Logger.ERROR))

    assert parser.parse_from_file(str(path)), parser.get_error(0).desc()


def variance(folder: Path) -> tuple[Model, dict[str, Array]]:
    """A norm written out: the squares of numbers in the hundreds do not fit into FP16."""
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], "first"),
        helper.make_node("Mul", ["h", "h"], ["squares"], "square"),
        helper.make_node("ReduceMean", ["squares"], ["mean"], "mean", axes=[1]),
        helper.make_node("Sqrt", ["mean"], ["root"], "root"),
        helper.make_node("Div", ["h", "root"], ["n"], "divide"),
        helper.make_node("MatMul", ["n", "b"], ["y"], "second"),
    ]
    tensors = {"a": 500 * weights(32, 64), "b": weights(64, 8)}
    model = model_of(folder, nodes, tensors, {"x": (FLOAT, ["n", 32])}, {"y": ["n", 8]})
    return model, {"x": GENERATOR.standard_normal((5, 32)).astype(np.float32)}


def test_what_overflows_fp16_is_kept_in_fp32_by_name(tmp_path: Path) -> None:
    model, case = variance(tmp_path / "m")
    said: list[events.Event] = []
    events.observe(said.append)

    done = to_sixteen_bits(model, precision=Precision.FP16, samples=one_case(case))

    assert done.overflowing == ("square", "mean", "root")
    assert [event.code for event in said if isinstance(event, events.Warned)] == ["precision.kept-in-fp32"]
    [found], [wanted] = answers(done.model, case), answers(model, case)
    assert np.isfinite(found).all()
    assert sqnr_db(found, wanted) > 50


def test_bf16_keeps_nothing_for_its_size(tmp_path: Path) -> None:
    model, case = variance(tmp_path / "m")

    done = to_sixteen_bits(model, precision=Precision.BF16, samples=one_case(case))

    assert done.overflowing == ()
    assert done.emulation is not None
    assert sqnr_db(answers(done.emulation, case)[0], answers(model, case)[0]) > 35


def test_a_weight_beyond_fp16_keeps_its_reader_in_fp32_and_a_shared_one_is_written_twice(tmp_path: Path) -> None:
    large = np.array([1e6, 2.0], np.float32)
    nodes = [
        helper.make_node("Mul", ["x", "large"], ["m"], "scale"),
        helper.make_node("Mul", ["x", "shared"], ["s"], "other"),
        helper.make_node("Sub", ["m", "shared"], ["d"], "subtract"),
        helper.make_node("Div", ["d", "large"], ["e"], "back"),
        helper.make_node("Add", ["e", "s"], ["y"], "sum"),
    ]
    tensors = {"large": large, "shared": np.array([0.5, 0.25], np.float32)}
    model = model_of(tmp_path / "m", nodes, tensors, {"x": (FLOAT, ["n", 2])}, {"y": ["n", 2]})
    case = {"x": np.array([[1.5, -2.0], [0.25, 3.0]], np.float32)}

    done = to_sixteen_bits(model, precision=Precision.FP16, samples=one_case(case))

    assert set(done.overflowing) == {"scale", "subtract", "back"}
    assert sorted(types_of(done.model)) == ["large", "shared", "shared_in_16_bits"]
    np.testing.assert_allclose(answers(done.model, case)[0], answers(model, case)[0], rtol=1e-3)


def test_branches_read_in_fp32_what_is_stored_in_16_bits(tmp_path: Path) -> None:
    branches = {
        name: helper.make_graph(
            [helper.make_node(operator, ["h", "b"], [f"{name}_y"], f"{name}_node")],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_y", FLOAT, ["n", 8])],
        )
        for name, operator in (("then_branch", "Add"), ("else_branch", "Mul"))
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "product"),
        helper.make_node("If", ["yes"], ["z"], "if", **branches),
        helper.make_node("Add", ["h", "z"], ["y"], "sum"),
    ]
    tensors = {"w": weights(16, 8), "b": weights(8), "yes": np.array(True)}
    model = model_of(tmp_path / "m", nodes, tensors, {"x": (FLOAT, ["n", 16])}, {"y": ["n", 8]})
    case = {"x": GENERATOR.standard_normal((5, 16)).astype(np.float32)}

    done = to_sixteen_bits(model, precision=Precision.FP16, samples=one_case(case))

    assert sqnr_db(answers(done.model, case)[0], answers(model, case)[0]) > 50


def test_an_operator_that_takes_no_16_bits_is_surrounded_by_casts(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["h"], "double"),
        helper.make_node("ReduceLogSumExp", ["h"], ["r"], "reduce", keepdims=1),
        helper.make_node("Resize", ["h", "", "scales"], ["z"], "resize", mode="linear"),
        helper.make_node("Det", ["z"], ["d"], "determinant"),
        helper.make_node("Cast", ["h"], ["i"], "whole", to=TensorProto.INT64),
        helper.make_node("Cast", ["i"], ["f"], "real", to=FLOAT),
        helper.make_node("Add", ["f", "r"], ["y"], "sum"),
    ]
    tensors = {"two": np.array(2, np.float32), "scales": np.array([1, 1, 2, 2], np.float32)}
    model = model_of(
        tmp_path / "m", nodes, tensors, {"x": (FLOAT, [2, 1, 4, 4])}, {"y": [2, 1, 4, 4], "d": [2, 1]}, opset=17
    )
    case = {"x": GENERATOR.integers(-3, 4, (2, 1, 4, 4)).astype(np.float32)}

    done = to_sixteen_bits(model, precision=Precision.FP16, samples=one_case(case))

    onnx.checker.check_model(str(done.model.path), full_check=True)
    assert types_of(done.model)["scales"] == FLOAT
    assert operators(done.model).count("Det") == 1
    np.testing.assert_allclose(answers(done.model, case)[0], answers(model, case)[0], rtol=2e-3, atol=1e-2)


def test_the_scale_of_a_channel_of_tiny_weights_does_not_become_0_in_fp16(tmp_path: Path) -> None:
    kept = weights(8, 3)
    kept[:, 1] *= 1e-8
    scale = (np.abs(kept).max(axis=0) / 127).astype(np.float32)
    stored = {"w": np.rint(kept / scale).astype(np.int8), "s": scale, "z": np.zeros(3, np.int8)}
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], "pair", axis=1),
        helper.make_node("MatMul", ["x", "d"], ["y"], "product"),
    ]
    inputs = {"x": (FLOAT, ["n", 8])}
    model = model_of(tmp_path / "m", nodes, stored, inputs, {"y": ["n", 3]}, opset=19)
    case = {"x": GENERATOR.standard_normal((5, 8)).astype(np.float32)}

    done = to_sixteen_bits(model, precision=Precision.FP16, samples=one_case(case))

    graph = onnx.load(str(done.model.path)).graph
    written = [numpy_helper.to_array(each) for each in graph.initializer if each.data_type == TensorProto.FLOAT16]
    assert [array.shape for array in written] == [(3,)]
    assert (written[0] > 0).all()
    [found], [wanted] = answers(done.model, case), answers(model, case)
    np.testing.assert_allclose(found, wanted, atol=2e-3, rtol=1e-2)
