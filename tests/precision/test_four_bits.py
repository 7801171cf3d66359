"""INT4 weights in both forms: the rounding by its definition, ONNX Runtime, TensorRT-RTX's parser and OpenVINO."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from convkit.errors import StepError, UsageError
from convkit.graph.quant_profile import FourBits
from convkit.quantize.weight_only import BLOCK, quantize_weights, rounded_in_blocks
from precision.graphs import Array, answers, model_of, operators, sqnr_db

GENERATOR = np.random.default_rng(0)
FORMS: tuple[FourBits, ...] = ("MatMulNBits", "DequantizeLinear")


def weights(*shape: int) -> Array:
    return (GENERATOR.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 1000), st.floats(1e-6, 1e6))
def test_no_block_is_rounded_worse_than_by_its_largest_weight(rows: int, blocks: int, seed: int, size: float) -> None:
    weight = (np.random.default_rng(seed).standard_normal((rows, blocks * BLOCK)) * size).astype(np.float32)

    integers, scales = rounded_in_blocks(weight)

    real = integers.reshape(rows, blocks, BLOCK) * scales[..., None]
    lost = np.square(real - weight.reshape(real.shape)).sum(axis=2)
    largest = np.abs(weight.reshape(real.shape)).max(axis=2) / 7
    plain = np.clip(np.rint(weight.reshape(real.shape) / largest[..., None]), -8, 7) * largest[..., None]
    assert integers.min() >= -8
    assert integers.max() <= 7
    assert (lost <= np.square(plain - weight.reshape(real.shape)).sum(axis=2) * (1 + 1e-5) + 1e-30).all()


def network(folder: Path, *, opset: int = 21) -> tuple[onnx.ModelProto, dict[str, Array]]:
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["h"], "first_product"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "second", "bias"], ["g"], "dense", transB=1),
        helper.make_node("MatMul", ["g", "small"], ["y"], "small_product"),
    ]
    tensors = {"first": weights(128, 256), "second": weights(128, 256), "bias": weights(128), "small": weights(128, 4)}
    return (
        model_of(folder, nodes, tensors, {"x": (TensorProto.FLOAT, ["n", 128])}, {"y": ["n", 4]}, opset=opset),
        {"x": GENERATOR.standard_normal((5, 128)).astype(np.float32)},
    )


@pytest.mark.parametrize("form", FORMS)
def test_large_products_have_weights_of_four_bits(tmp_path: Path, form: FourBits) -> None:
    model, case = network(tmp_path / "m")

    done = quantize_weights(model, form=form)

    assert operators(done.model).count(form) == 2
    assert done.kept == ("small_product",)
    assert done.model.files.bytes < model.files.bytes / 5
    onnx.checker.check_model(str(done.model.path))
    [found], [wanted] = answers(done.model, case), answers(model, case)
    assert sqnr_db(found, wanted) > 14


def test_both_forms_hold_the_same_numbers(tmp_path: Path) -> None:
    model, case = network(tmp_path / "m")

    [one], [other] = (answers(quantize_weights(model, form=form).model, case) for form in FORMS)

    assert sqnr_db(one, other) > 30  # ONNX Runtime's operator rounds the activations to INT8 as well


def test_tensorrt_parses_and_openvino_runs_the_form_of_onnx(tmp_path: Path) -> None:
    import openvino
    import tensorrt_rtx

    model, case = network(tmp_path / "m")
    path = quantize_weights(model, form="DequantizeLinear").model.path

    logger = tensorrt_rtx.Logger(tensorrt_rtx.Logger.ERROR)
    builder = tensorrt_rtx.Builder(logger)
    network_ = builder.create_network(0)
    parser = tensorrt_rtx.OnnxParser(network_, logger)
    assert parser.parse_from_file(str(path)), parser.get_error(0).desc()
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert sqnr_db(compiled(case)[0], answers(model, case)[0]) > 14


def test_nothing_large_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "product")]
    model = model_of(
        tmp_path / "m", nodes, {"w": weights(32, 4)}, {"x": (TensorProto.FLOAT, ["n", 32])}, {"y": ["n", 4]}
    )

    with pytest.raises(UsageError, match="has none"):
        quantize_weights(model, form="MatMulNBits")


def test_an_opset_without_int4_is_refused_with_the_option_that_mends_it(tmp_path: Path) -> None:
    model, _ = network(tmp_path / "m", opset=17)

    with pytest.raises(StepError, match="opset 21") as refused:
        quantize_weights(model, form="DequantizeLinear")
    assert "--opset 21" in refused.value.hint
