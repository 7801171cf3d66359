"""Q/DQ pairs stand where the target's kernels want them, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from sources.onnx_files import node

from convkit.graph.quant_profile import QuantProfile
from convkit.targets.onnxruntime_profile import PROFILE
from convkit.targets.openvino_profile import PROFILE as OPENVINO
from convkit.targets.trt_profile import TENSORRT_PROFILE
from quantize.quantized_graphs import graph, pairs, quantized, reads, run_as, scale_of, sqnr_db, weight

FLOATS = {"QuantizeLinear", "DequantizeLinear", "Conv", "Add", "Relu", "Clip", "Mul", "Concat", "Gemm", "MatMul"}


def residual() -> onnx.ModelProto:
    """Two convolutions added to what they read, pooled, and a product."""
    nodes = [
        node("Conv", ["x", "w0", "b0"], ["c0"], name="stem", pads=[1] * 4),
        node("Relu", ["c0"], ["r0"]),
        node("MaxPool", ["r0"], ["p0"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p0", "w1", "b1"], ["c1"], name="one", pads=[1] * 4),
        node("Clip", ["c1", "zero", "six"], ["k1"]),
        node("Conv", ["k1", "w2", "b2"], ["c2"], name="two", pads=[1] * 4),
        node("Add", ["c2", "p0"], ["s"], name="sum"),
        node("Relu", ["s"], ["r1"]),
        node("Conv", ["r1", "w3", "b3"], ["c3"], name="three"),
        node("GlobalAveragePool", ["c3"], ["g"], name="mean"),
        node("Flatten", ["g"], ["f"], name="flat"),
        node("Gemm", ["f", "w4", "b4"], ["y"], name="head"),
    ]
    shapes = {"w0": (16, 16, 3, 3), "w1": (16, 16, 3, 3), "w2": (16, 16, 3, 3), "w3": (16, 16, 1, 1), "w4": (16, 10)}
    weights = [weight(name, *shape) for name, shape in shapes.items()]
    weights += [weight(f"b{number}", 10 if number == 4 else 16) for number in range(5)]
    weights += [numpy_helper.from_array(np.float32(number), name) for name, number in (("zero", 0), ("six", 6))]
    return graph(nodes, {"x": ["N", 16, 8, 8]}, {"y": ["N", 10]}, weights)


# ONNX Runtime


def test_of_a_residual_network_nothing_runs_in_float_but_the_way_in_and_out(tmp_path: Path) -> None:
    source = residual()
    result, inserted = quantized(source)
    ran = run_as(result, tmp_path)

    assert ran["QLinearConv"] == 4
    assert ran["QLinearAdd"] == ran["QLinearGlobalAveragePool"] == ran["QGemm"] == 1
    assert {name: count for name, count in ran.items() if name in FLOATS} == {"QuantizeLinear": 1}
    assert inserted.kept == ()
    assert sqnr_db(source, result) > 25


def test_relu_and_clip_have_no_pair_before_them() -> None:
    result, _ = quantized(residual())

    assert pairs(result) == {"x", "r0", "p0", "k1", "c2", "r1", "c3", "g", "f"}


def entry(*, kernel: int = 3, behind: str = "Conv") -> onnx.ModelProto:
    """An image's convolution, a depthwise one, and two of all channels."""
    nodes = [
        node("Conv", ["x", "w0", "b0"], ["c0"], name="stem"),
        node("Relu", ["c0"], ["r0"]),
        *([node("MaxPool", ["r0"], ["p0"], kernel_shape=[2, 2])] if behind == "MaxPool" else []),
        node("Conv", ["p0" if behind == "MaxPool" else "r0", "w1", "b0"], ["c1"], name="depthwise", group=16),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2", "b0"], ["c2"], name="point"),
        node("Relu", ["c2"], ["r2"]),
        node("Conv", ["r2", "w1", "b0"], ["y"], name="later", group=16),
    ]
    weights = [weight("w0", 16, 3, kernel, kernel), weight("w1", 16, 1, 3, 3), weight("w2", 16, 16, 1, 1)]
    return graph(nodes, {"x": [1, 3, 20, 20]}, {"y": [1, 16, "h", "w"]}, [*weights, weight("b0", 16)])


def test_what_fills_no_vnni_instruction_stays_in_float_at_the_entry(tmp_path: Path) -> None:
    source = entry()
    result, inserted = quantized(source)
    ran = run_as(result, tmp_path)

    assert [each.node for each in inserted.kept] == ["stem", "depthwise"]
    assert pairs(result) == {"r1", "r2", "y"}
    assert ran["QLinearConv"] == ran["Conv"] == 2
    assert sqnr_db(source, result) > 30


def test_for_openvino_convolutions_of_32_products_stay_in_float_at_the_entry() -> None:
    source = entry()
    _, inserted = quantized(source, OPENVINO)
    _, wide = quantized(entry(kernel=7), OPENVINO)

    assert [each.node for each in inserted.kept] == ["stem", "depthwise", "point"]
    assert wide.kept == ()


def test_for_openvino_a_convolution_adds_the_other_branch_as_it_is() -> None:
    result, _ = quantized(residual(), OPENVINO)

    assert reads(result, "sum") == ["c2", "dequantized"]


@pytest.mark.parametrize("source", [entry(kernel=7), entry(behind="MaxPool")], ids=["147 products", "a pool behind"])
def test_an_image_s_convolution_that_pays_runs_in_int8_and_with_it_what_follows(source: onnx.ModelProto) -> None:
    """ONNX Runtime would quantize before the pool, whose kernel for bytes takes thirty times as long."""
    _, inserted = quantized(source)

    assert inserted.kept == ()


def test_a_view_leaves_in_the_scale_in_which_it_came() -> None:
    result, _ = quantized(residual())

    assert scale_of(result, "p0") == scale_of(result, "r0")
    assert scale_of(result, "f") == scale_of(result, "g") != scale_of(result, "c3")


def test_a_depthwise_network_with_gates_runs_in_int8(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "w0", "b0"], ["c0"]),
        node("HardSwish", ["c0"], ["h0"]),
        node("Conv", ["h0", "w1", "b1"], ["c1"], group=16, pads=[1] * 4),
        node("GlobalAveragePool", ["c1"], ["g"]),
        node("Conv", ["g", "w2", "b2"], ["c2"]),
        node("Sigmoid", ["c2"], ["gate"]),
        node("Mul", ["c1", "gate"], ["m"]),
        node("Conv", ["m", "w0", "b0"], ["y"]),
    ]
    weights = [weight("w0", 16, 16, 1, 1), weight("w1", 16, 1, 3, 3), weight("w2", 16, 16, 1, 1)]
    weights += [weight(f"b{number}", 16) for number in range(3)]
    source = graph(nodes, {"x": ["N", 16, 8, 8]}, {"y": ["N", 16, 8, 8]}, weights)
    result, _ = quantized(source)
    ran = run_as(result, tmp_path)

    assert ran["QLinearConv"] == 4
    assert ran["QLinearMul"] == ran["QLinearSigmoid"] == ran["QLinearGlobalAveragePool"] == 1
    assert not ran["Conv"]
    assert sqnr_db(source, result) > 20


def test_a_concat_between_convolutions_runs_in_int8(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "w0"], ["a"]),
        node("Conv", ["x", "w1"], ["b"]),
        node("Concat", ["a", "b"], ["c"], axis=1),
        node("AveragePool", ["c"], ["p"], kernel_shape=[2, 2]),
        node("Conv", ["p", "w2"], ["y"]),
    ]
    weights = [weight("w0", 4, 3, 1, 1), weight("w1", 4, 3, 1, 1, scale=1.0), weight("w2", 2, 8, 1, 1)]
    source = graph(nodes, {"x": ["N", 3, 6, 6]}, {"y": ["N", 2, 5, 5]}, weights)
    result, _ = quantized(source)
    ran = run_as(result, tmp_path)

    assert ran["QLinearConcat"] == ran["QLinearAveragePool"] == 1
    assert scale_of(result, "a") != scale_of(result, "b")


def test_what_nothing_quantized_reads_is_not_rounded(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "w0"], ["a"]),
        node("Conv", ["a", "w1"], ["b"]),
        node("Add", ["a", "b"], ["s"], name="last"),
        node("Sigmoid", ["s"], ["y"]),
    ]
    weights = [weight("w0", 4, 3, 1, 1), weight("w1", 4, 4, 1, 1)]
    result, _ = quantized(graph(nodes, {"x": ["N", 3, 6, 6]}, {"y": ["N", 4, 6, 6]}, weights))

    assert pairs(result) == {"x", "a", "b"}
    assert run_as(result, tmp_path)["QLinearConv"] == 2


def encoder() -> onnx.ModelProto:
    """One block of an encoder in small, exported as torch does: Gelu's ½ is multiplied first."""
    nodes = [
        *(node("MatMul", ["x", f"w{name}"], [f"{name}0"], name=f"product_{name}") for name in "qkv"),
        *(node("Add", [f"{name}0", "bias"], [name]) for name in "qkv"),
        node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["scores"], name="scores"),
        node("Softmax", ["scores"], ["attention"], axis=-1),
        node("MatMul", ["attention", "v"], ["context"], name="context"),
        node("Add", ["context", "x"], ["s"]),
        node("LayerNormalization", ["s", "bias", "bias"], ["n"], axis=-1),
        node("MatMul", ["n", "wu"], ["u0"], name="up"),
        node("Add", ["u0", "bias"], ["u"]),
        node("Div", ["u", "root"], ["d"]),
        node("Erf", ["d"], ["e"]),
        node("Add", ["e", "one"], ["e1"]),
        node("Mul", ["half", "e1"], ["eh"]),
        node("Mul", ["u", "eh"], ["gelu"]),
        node("MatMul", ["gelu", "wd"], ["y"], name="down"),
    ]
    weights = [weight(f"w{name}", 16, 16) for name in "qkvud"] + [weight("bias", 16)]
    numbers = {"root": 2**0.5, "one": 1, "half": 0.5}
    weights += [numpy_helper.from_array(np.float32(number), name) for name, number in numbers.items()]
    return graph(nodes, {"x": ["N", 6, 16]}, {"y": ["N", 6, 16]}, weights)


def test_of_an_encoder_only_what_products_with_weights_read_is_rounded(tmp_path: Path) -> None:
    source = encoder()
    result, inserted = quantized(source)
    ran = run_as(result, tmp_path)

    assert pairs(result) == {"x", "n", "gelu"}
    assert inserted.quantized == ("product_q", "product_k", "product_v", "up", "down")
    assert ran["MatMulIntegerToFloat"] == 5
    assert ran["MatMul"] + ran["FusedMatMul"] == 2
    assert sqnr_db(source, result) > 30


def test_the_residual_branch_of_an_encoder_reads_what_was_not_rounded() -> None:
    result, _ = quantized(encoder())
    [residual] = [each for each in result.graph.node if each.output[0] == "s"]

    assert list(residual.input) == ["context", "x"]


@pytest.mark.parametrize(("mode", "floats"), [("nearest", 0), ("linear", 1)])
def test_enlarging_by_repetition_stays_in_int8(mode: str, floats: int, tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("Resize", ["a", "", "scales"], ["b"], mode=mode, name="enlarge"),
        node("Conv", ["b", "w"], ["y"]),
    ]
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    source = graph(nodes, {"x": [1, 4, 4, 4]}, {"y": [1, 4, 8, 8]}, [weight("w", 4, 4, 1, 1), scales])
    result, _ = quantized(source)
    ran = run_as(result, tmp_path)

    assert (ran["QLinearConv"], ran["Resize"]) == (2, 1)
    assert ran["QuantizeLinear"] == 1 + floats
    assert sqnr_db(source, result) > 25


# TensorRT


def test_for_tensorrt_pairs_stand_before_what_reads_int8_and_nowhere_else() -> None:
    result, _ = quantized(residual(), TENSORRT_PROFILE)

    assert pairs(result) == {"x", "r0", "p0", "k1", "r1", "f"}
    assert reads(result, "sum") == ["c2", "dequantized"]
    assert reads(result, "mean") == ["c3"]
    assert {each.op_type for each in result.graph.node if each.output[0] in ("r0", "s")} == {"Relu", "Add"}


def test_for_tensorrt_the_attention_is_left_to_its_own_fusion() -> None:
    result, inserted = quantized(encoder(), TENSORRT_PROFILE)

    assert reads(result, "scores") == ["q", "kt"]
    assert reads(result, "context") == ["attention", "v"]
    assert len(inserted.quantized) == 5


@pytest.mark.parametrize(("outputs", "inputs"), [(8, 16), (16, 8)])
def test_narrow_convolutions_stay_for_tensorrt_and_say_why(outputs: int, inputs: int) -> None:
    conv = node("Conv", ["x", "w"], ["y"], name="narrow")
    wide = node("Conv", ["y", "v"], ["z"], name="wide")
    parts = [weight("w", outputs, inputs, 1, 1), weight("v", 16, outputs, 1, 1)]
    _, inserted = quantized(
        graph([conv, wide], {"x": [1, inputs, 4, 4]}, {"z": [1, 16, 4, 4]}, parts), TENSORRT_PROFILE
    )

    assert "narrow" in [each.node for each in inserted.kept]
    assert all("fewer than 16 channels" in each.why for each in inserted.kept)


# Any target


@pytest.mark.parametrize("profile", [PROFILE, TENSORRT_PROFILE])
def test_a_node_that_is_kept_computes_in_float(profile: QuantProfile) -> None:
    source = residual()
    result, inserted = quantized(source, profile, keep=frozenset({"two", "head"}))

    assert {each.node: each.why for each in inserted.kept} == {"two": "asked for", "head": "asked for"}
    assert reads(result, "two")[1:] == ["w2", "b2"]
    assert reads(result, "head")[1:] == ["w4", "b4"]
    assert sqnr_db(source, result) > 25


def test_a_node_whose_input_calibration_did_not_see_stays_and_says_so() -> None:
    _, inserted = quantized(residual(), unseen=("k1",))

    assert [each.node for each in inserted.kept] == ["one", "two"]
    assert "'k1'" in inserted.kept[0].why


def test_inner_graphs_read_what_is_named_as_before_and_stay_as_they_are() -> None:
    inner = [node("Conv", ["c", "w"], ["inner"])]
    body = onnx.helper.make_graph(inner, "then", [], [onnx.helper.make_empty_tensor_value_info("inner")])
    other = onnx.helper.make_graph(
        [node("Identity", ["c"], ["same"])], "else", [], [onnx.helper.make_empty_tensor_value_info("same")]
    )
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("If", ["flag"], ["y"], then_branch=body, else_branch=other),
    ]
    flag = numpy_helper.from_array(np.array(True), "flag")
    source = graph(nodes, {"x": [1, 4, 4, 4]}, {"y": [1, 4, 4, 4]}, [weight("w", 4, 4, 1, 1), flag])
    result, inserted = quantized(source)

    assert pairs(result) == {"x", "c"}
    assert len(inserted.quantized) == 1
    assert "w" in {tensor.name for tensor in result.graph.initializer}, "the inner convolution still reads it"
    assert sqnr_db(source, result) > 25


def embedding(rows: int = 4096) -> onnx.ModelProto:
    nodes = [node("Gather", ["table", "ids"], ["x"], name="lookup"), node("MatMul", ["x", "w"], ["y"], name="product")]
    table = numpy_helper.to_array(weight("table", rows, 16)) * np.linspace(0.01, 10, rows, dtype=np.float32)[:, None]
    parts = [numpy_helper.from_array(table, "table"), weight("w", 16, 16)]
    ids = numpy_helper.from_array(np.array([[1, 7, rows - 1]]), "ids")
    return graph(nodes, {}, {"y": [1, 3, 16]}, [*parts, ids])


def test_of_an_embedding_table_rows_have_their_own_scales() -> None:
    source = embedding()
    result, _ = quantized(source)
    tables = [tensor for tensor in result.graph.initializer if list(tensor.dims) == [4096, 16]]

    assert [tensor.data_type for tensor in tables] == [onnx.TensorProto.INT8]
    assert sqnr_db(source, result) > 35


@pytest.mark.parametrize("how", ["small", "kept", "tensorrt"])
def test_other_tables_stay_as_they_are(how: str) -> None:
    profile = TENSORRT_PROFILE if how == "tensorrt" else PROFILE
    source = embedding(64 if how == "small" else 4096)
    result, _ = quantized(source, profile, keep=frozenset({"lookup"} if how == "kept" else ()))

    assert "table" in {tensor.name for tensor in result.graph.initializer}


def attention(*, masked: bool = True, seen: bool = False) -> onnx.ModelProto:
    """Scores of queries and keys, what a Softmax makes of them, and the values that these weigh."""
    nodes = [
        node("MatMul", ["x", "wq"], ["q"], name="queries"),
        node("MatMul", ["x", "wk"], ["k"], name="keys"),
        node("MatMul", ["x", "wv"], ["v"], name="values"),
        node("Transpose", ["k"], ["turned"], perm=[0, 2, 1]),
        node("MatMul", ["q", "turned"], ["scores"], name="scores"),
        node("Mul", ["scores", "half"], ["scaled"]),
        node("Add", ["scaled", "mask"], ["moved"]) if masked else node("Tanh", ["scaled"], ["moved"]),
        node("Softmax", ["moved"], ["shares"]),
        node("MatMul", ["shares", "v"], ["y"], name="weighed"),
    ]
    weights = [weight("wq", 16, 16), weight("wk", 16, 16), weight("wv", 16, 16)]
    weights += [numpy_helper.from_array(np.full((1, 1), each, np.float32), name) for name, each in CONSTANTS.items()]
    outputs = {"y": ["N", 8, 16], **({"scores": ["N", 8, 8]} if seen else {})}
    return graph(nodes, {"x": ["N", 8, 16]}, outputs, weights)


CONSTANTS = {"half": 0.5, "mask": -0.5}


def test_openvino_reads_queries_and_keys_in_int8_around_zero() -> None:
    source = attention()
    result, inserted = quantized(source, OPENVINO)

    assert set(inserted.products) == {"queries", "keys", "values", "scores"}
    for each in result.graph.node:
        if each.op_type == "QuantizeLinear":
            (zero_point,) = (numpy_helper.to_array(t) for t in result.graph.initializer if t.name == each.input[2])
            around_zero = each.input[0] in ("q", "turned")
            assert zero_point.dtype == (np.int8 if around_zero else np.uint8)
            assert not around_zero or zero_point == 0
    assert sqnr_db(source, result) > 30


@pytest.mark.parametrize("other", [{"masked": False}, {"seen": True}], ids=["no scores", "read elsewhere"])
def test_a_product_of_two_activations_that_is_no_attentions_scores_stays_as_it_is(other: dict[str, bool]) -> None:
    _, inserted = quantized(attention(**other), OPENVINO)

    assert set(inserted.products) == {"queries", "keys", "values"}


@pytest.mark.parametrize("profile", [PROFILE, TENSORRT_PROFILE], ids=["onnxruntime", "tensorrt"])
def test_other_targets_leave_an_attentions_scores_as_they_are(profile: QuantProfile) -> None:
    _, inserted = quantized(attention(), profile)

    assert set(inserted.products) == {"queries", "keys", "values"}
