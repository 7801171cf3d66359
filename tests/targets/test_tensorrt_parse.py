"""The real TensorRT-RTX parser's verdict on models that it takes and on models that it does not."""

import re
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from convkit.errors import ExitStatus, StepError
from convkit.spec.tensor import DType
from convkit.targets.trt_api import Flavour
from convkit.targets.trt_findings import Finding, refuse
from convkit.targets.trt_parse import Parsed, parse_rtx
from targets.tensorrt_networks import (
    SYMMETRIC,
    conv_network,
    external_model,
    interface,
    model_of,
    network,
    quantized,
    spec,
)


def only_finding(parsed: Parsed) -> Finding:
    [finding] = parsed.findings
    return finding


def test_a_model_in_float_is_taken() -> None:
    parsed = parse_rtx(model_of(conv_network()))

    assert parsed.findings == ()
    assert parsed.layers >= 5
    assert (parsed.flavour, parsed.version[:2]) == (Flavour.TENSORRT_RTX, "1.")


def test_a_model_in_half_precision_with_float_inputs_is_taken() -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    assert parse_rtx(model_of(convert_float_to_float16(conv_network(), keep_io_types=True))).findings == ()


def test_a_signed_symmetric_int8_model_without_int32_biases_is_taken(tmp_path: Path) -> None:
    model = quantized(conv_network(), tmp_path, per_channel=True, extra_options=SYMMETRIC)

    assert parse_rtx(model_of(model)).findings == ()


def test_weights_that_lie_beside_the_model_are_found(tmp_path: Path) -> None:
    model = external_model(conv_network(), tmp_path)

    assert model.files.files == ("model.onnx", "weights.bin")
    assert parse_rtx(model).findings == ()


def test_every_node_that_tensorrt_does_not_know_is_named() -> None:
    nodes = [
        helper.make_node("Sorcery", ["x"], ["a"], name="first/spell", domain="house.made"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Alchemy", ["b"], ["y"], domain="house.made"),
    ]

    findings = parse_rtx(model_of(network(nodes, {"x": [2, 3]}, {"y": [2, 3]}))).findings

    assert [(finding.node, finding.operator) for finding in findings] == [
        ("first/spell", "Sorcery"),
        ("node 2", "Alchemy"),
    ]
    assert findings[0].reason == "TensorRT knows neither an operator nor a plugin of this name"
    assert "--to onnxruntime" in findings[0].fix


def test_asymmetric_quantization_is_named_with_the_way_out(tmp_path: Path) -> None:
    asymmetric = quantized(conv_network(), tmp_path, extra_options={"QuantizeBias": False})

    finding = only_finding(parse_rtx(model_of(asymmetric)))

    assert finding.operator == "QuantizeLinear"
    assert finding.node.endswith("_QuantizeLinear")
    assert "symmetric quantization only" in finding.reason
    assert "--quantize int8" in finding.fix


def test_an_int32_bias_is_named_with_the_way_out(tmp_path: Path) -> None:
    with_bias = quantized(
        conv_network(), tmp_path, extra_options={"ActivationSymmetric": True, "WeightSymmetric": True}
    )

    finding = only_finding(parse_rtx(model_of(with_bias)))

    assert (finding.node, finding.operator) == ("b_DequantizeLinear", "DequantizeLinear")
    assert "int32 bias" in finding.reason


def test_dynamic_quantization_is_named_node_by_node(tmp_path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    onnx.save(conv_network(), str(tmp_path / "float.onnx"))
    quantize_dynamic(str(tmp_path / "float.onnx"), str(tmp_path / "dynamic.onnx"))

    findings = parse_rtx(model_of(onnx.load(str(tmp_path / "dynamic.onnx")))).findings

    assert {finding.operator for finding in findings} == {"DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"}
    assert {finding.reason for finding in findings} == {"TensorRT has no dynamic quantization"}


def test_types_that_do_not_meet_are_told_in_tensorrts_words_without_its_source_lines() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], name="cast", to=TensorProto.FLOAT16),
        helper.make_node("Add", ["h", "x"], ["y"], name="sum"),
    ]

    finding = only_finding(parse_rtx(model_of(network(nodes, {"x": [2, 3]}, {"y": [2, 3]}))))

    assert (finding.node, finding.operator) == ("sum", "Add")
    assert (
        finding.reason
        == "sum: ElementWiseOperation SUM must have same input types. But they are of types Half and Float"
    )
    assert "Cast" in finding.fix


def test_an_input_of_a_type_that_engines_do_not_have_is_named() -> None:
    doubled = [helper.make_node("Add", ["x", "x"], ["y"], name="sum")]
    shapes: dict[str, list[int | str]] = {"x": [2, 3]}

    findings = parse_rtx(model_of(network(doubled, shapes, {"y": [2, 3]}, element_type=TensorProto.DOUBLE))).findings

    assert [(finding.node, finding.operator) for finding in findings] == [("x", "input"), ("y", "output")]
    assert findings[0].reason == "TensorRT has no float64: its engine would have FLOAT under this name"


def test_an_interface_that_is_not_the_models_is_named() -> None:
    model = model_of(conv_network())
    other = interface(
        msgspec.structs.replace(spec("x", "batch", 3, 16, 16), dtype=DType.INT32), spec("mask", "batch", 3)
    )

    findings = parse_rtx(msgspec.structs.replace(model, interface=other)).findings

    assert [finding.reason for finding in findings] == [
        "it is declared as int32, the parsed network has FLOAT",
        "the parsed network does not have it",
    ]


def test_a_file_that_is_no_model_is_one_finding() -> None:
    model = model_of(conv_network())
    model.path.write_bytes(b"not a protobuf at all")

    finding = only_finding(parse_rtx(model))

    assert (finding.node, finding.reason) == ("the model", "the file is no ONNX model")


def test_no_finding_tells_of_the_missing_driver_or_of_tensorrts_source(tmp_path: Path) -> None:
    asymmetric = quantized(conv_network(), tmp_path, extra_options={"QuantizeBias": False})
    findings = parse_rtx(model_of(asymmetric)).findings

    assert not [text for text in map(str, findings) if re.search(r"cuda|\.cpp|Error Code", text)]


def test_tensorrts_assertions_are_told_without_their_code() -> None:
    resize = helper.make_node("Resize", ["x", "", "s"], ["y"], name="grow", mode="cubic", antialias=1)
    scales = {"s": np.array([1, 1, 2, 2], np.float32)}
    model = network([resize], {"x": [1, 3, 9, 9]}, {"y": [1, 3, 18, 18]}, scales)
    model.opset_import[0].version = 18

    assert only_finding(parse_rtx(model_of(model))).reason == "Antialiasing is not supported currently."


def test_strings_are_told_by_what_they_are() -> None:
    nodes = [helper.make_node("StringNormalizer", ["x"], ["y"], name="lower")]
    model = network(nodes, {"x": [6]}, {"y": [6]}, element_type=TensorProto.STRING)

    reasons = [finding.reason for finding in parse_rtx(model_of(model)).findings]

    assert reasons == [
        "a tensor has a type that TensorRT does not know, such as strings or complex numbers",
        "TensorRT does not take StringNormalizer",
    ]


def test_what_only_lacks_a_plugin_of_tensorrt_stops_tensorrt_rtx_alone() -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["i"], name="nonzero"),
        helper.make_node("Cast", ["i"], ["y"], name="cast", to=TensorProto.FLOAT),
    ]
    parsed = parse_rtx(model_of(network(nodes, {"x": [2, 3]}, {"y": [2, "found"]})))

    assert [finding.node for finding in parsed.doubtful_for(Flavour.TENSORRT)] == ["nonzero"]
    assert parsed.doubtful_for(Flavour.TENSORRT_RTX) == ()


def test_findings_are_refused_with_the_first_ones_fix() -> None:
    findings = tuple(Finding(node=f"n{number}", operator="Op", reason="no", fix=f"fix {number}") for number in range(7))

    refuse((), Flavour.TENSORRT)
    with pytest.raises(StepError) as refused:
        refuse(findings, Flavour.TENSORRT)

    assert refused.value.code == "tensorrt.unsupported"
    assert refused.value.exit_status == ExitStatus.STEP_FAILED
    assert refused.value.hint == "fix 0"
    assert refused.value.message.splitlines() == [
        "TensorRT does not take this model:",
        *(f"  n{number} (Op): no" for number in range(5)),
        "  and 2 more",
    ]
