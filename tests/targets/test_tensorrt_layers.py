"""What an engine really runs: TensorRT-RTX's own layers on this machine, and the inspector's JSON as documented."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from convkit.graph.engine_layers import EngineLayer, EngineLayers, place, work_of
from convkit.graph.model import Model, save_tensors
from convkit.graph.samples import make_cases
from convkit.graph.work import NodeWork, node_work
from convkit.targets.trt_build import build_rtx
from convkit.targets.trt_inspect import memory_in, parse_json
from convkit.targets.trt_options import TensorRTOptions
from convkit.targets.trt_profiles import profiles_for
from targets.tensorrt_networks import SYMMETRIC, conv_network, model_of, quantized

ADA = TensorRTOptions(compute_capabilities=("8.9",))


def layers_of(model: Model, options: TensorRTOptions = ADA) -> EngineLayers | None:
    return build_rtx(model, profiles_for(model.interface, options), options).inspected


def work_by_node(model: Model) -> dict[str, NodeWork]:
    return node_work(model, samples=save_tensors(make_cases(model.interface, None)))


@pytest.fixture
def int8(tmp_path: Path) -> Model:
    return model_of(quantized(conv_network(), tmp_path, per_channel=True, extra_options=SYMMETRIC))


def test_a_real_int8_engine_is_seen_to_run_in_int8_on_a_machine_without_a_gpu(int8: Model) -> None:
    found = layers_of(int8)

    assert found is not None
    assert found.seen_by.startswith("TensorRT-RTX 1.")
    assert found.told_by == "the build's log"
    placed = {each.node: each for each in place(work_by_node(int8), found)}
    assert {node: each.runs_in for node, each in placed.items()} == {"conv": "int8", "classify": "int8"}
    assert not any(each.fell_back for each in placed.values())
    work = work_of(tuple(placed.values()), found)
    assert work is not None
    assert work.macs == {"int8": 3 * 16 * 9 * 16 * 16 + 16 * 10}


def test_a_real_engine_tells_what_is_fused_and_what_memory_it_takes(int8: Model) -> None:
    found = layers_of(int8)

    assert found is not None
    quantizing = next(layer for layer in found.layers if "pool" in layer.nodes)
    assert {"relu", "pool", "r_QuantizeLinear"} <= set(quantizing.nodes)
    assert quantizing.kind == "kgen"
    assert quantizing.outputs == ("int8",)
    assert found.fused >= 3
    assert found.memory["weights"] >= 16 * 4 * 9 + 160
    assert found.memory["activations"] > 0


def test_a_real_half_precision_engine_is_seen_to_run_in_fp16() -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    half = model_of(convert_float_to_float16(conv_network(), keep_io_types=True))
    found = layers_of(half)

    assert found is not None
    assert {each.runs_in for each in place(work_by_node(half), found)} == {"fp16"}


def test_a_model_of_which_only_a_part_is_quantized_shows_the_part_that_is_not(tmp_path: Path) -> None:
    part = model_of(
        quantized(conv_network(), tmp_path, per_channel=True, extra_options=SYMMETRIC, nodes_to_exclude=["classify"])
    )
    found = layers_of(part)

    assert found is not None
    assert {each.node: each.runs_in for each in place(work_by_node(part), found)} == {
        "conv": "int8",
        "classify": "fp32",
    }


def test_an_engine_for_several_gpus_lists_its_layers_once(int8: Model) -> None:
    one, three = layers_of(int8), layers_of(int8, TensorRTOptions())

    assert one is not None
    assert three is not None
    assert [layer.nodes for layer in three.layers] == [layer.nodes for layer in one.layers]


@pytest.mark.parametrize("verbosity", ["NONE", "LAYER_NAMES_ONLY"])
def test_an_engine_that_is_built_to_tell_less_tells_no_layers(int8: Model, verbosity: str) -> None:
    assert layers_of(int8, TensorRTOptions(compute_capabilities=("8.9",), profiling_verbosity=verbosity)) is None


DETAILED = {
    "Layers": [
        {
            "Name": "Reformatting CopyNode for Input Tensor 0 to conv1",
            "LayerType": "Reformat",
            "Inputs": [{"Name": "x", "Dimensions": [1, 3, 8, 8], "Format/Datatype": "Row major linear FP32"}],
            "Outputs": [{"Name": "r", "Dimensions": [1, 3, 8, 8], "Format/Datatype": "Four wide channel Int8 format"}],
            "ParameterType": "Reformat",
            "Origin": "REFORMAT",
            "Metadata": "",
        },
        {
            "Name": "conv1 + relu1",
            "LayerType": "CaskConvolution",
            "Inputs": [{"Name": "r", "Dimensions": [1, 3, 8, 8], "Format/Datatype": "Four wide channel Int8 format"}],
            "Outputs": [{"Name": "c", "Dimensions": [1, 8, 8, 8], "Format/Datatype": "Row major linear FP32"}],
            "ParameterType": "Convolution",
            "Weights": {"Type": "Int8", "Count": 216},
            "Bias": {"Type": "Float", "Count": 8},
            "Activation": "RELU",
            "TacticName": "sm80_xmma_fprop_implicit_gemm",
            "Metadata": "[ONNX Layer: conv1]\x1e[ONNX Layer: relu1]",
        },
        {
            "Name": "conv2",
            "LayerType": "CaskConvolution",
            "Inputs": [{"Name": "c", "Datatype": "Half", "Format": "(NHWC) Channel major format"}],
            "Outputs": [{"Name": "y", "Datatype": "Half"}],
            "ParameterType": "Convolution",
            "Weights": {"Type": "Half", "Count": 576},
            "Metadata": "[ONNX Layer: conv2]",
        },
    ],
    "Bindings": ["x", "y"],
}
"""The inspector's JSON as NVIDIA's documentation and `trtexec --exportLayerInfo` show it: a stand-in, since an engine
cannot be loaded here. Measured is only TensorRT-RTX's log."""


def told(document: Any) -> EngineLayers:
    layers = tuple(parse_json(json.dumps(document)))
    return EngineLayers(layers=layers, seen_by="TensorRT 11.4", told_by="the engine inspector")


def test_a_documented_inspector_shows_the_layer_that_fell_back() -> None:
    work = {
        "conv1": NodeWork(macs=1000, precision="int8"),
        "conv2": NodeWork(macs=3000, precision="int8"),
        "folded": NodeWork(macs=5, precision="int8"),
    }

    found = told(DETAILED)
    placed = place(work, found)

    assert [layer.precision for layer in found.layers] == ["fp32", "int8", "fp16"]
    assert found.fused == 1
    assert [(each.node, each.runs_in, each.fell_back) for each in placed] == [
        ("conv1", "int8", False),
        ("conv2", "fp16", True),
    ]
    counted = work_of(placed, found)
    assert counted is not None
    assert counted.macs == {"int8": 1000, "fp16": 3000}
    assert counted.share(8) == 0.25


def test_a_documented_inspector_that_tells_names_alone_is_understood() -> None:
    found = told({"Layers": ["conv1 + relu1", "conv2"], "Bindings": ["x", "y"]})

    assert [layer.nodes for layer in found.layers] == [("conv1", "relu1"), ("conv2",)]
    assert work_of(place({"conv2": NodeWork(macs=1, precision="int8")}, found), found) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"Layers": 3}', '{"Layers": [3]}', '{"Layers": []}'])
def test_what_is_no_listing_gives_no_layers(text: str) -> None:
    assert list(parse_json(text)) == []


def test_a_layer_with_keys_of_other_types_is_still_a_layer() -> None:
    odd = {"Layers": [{"Name": "conv1", "Inputs": "none", "Outputs": [3], "Weights": [], "Metadata": None}]}

    [layer] = told(odd).layers

    assert (layer.name, layer.kind, layer.precision) == ("conv1", "", "")


def test_four_bit_weights_count_as_such_whatever_the_data_are() -> None:
    layer = EngineLayer(name="m", kind="gemm", inputs=("fp16",), weights=("int4", "fp16"))

    assert layer.precision == "int4"


def test_the_last_word_on_memory_counts() -> None:
    remarks = ["Total Weights Memory: 10 bytes", "Max Scratch Memory: 7 bytes", "Total Weights Memory: 12 bytes"]

    assert memory_in(remarks) == {"weights": 12, "scratch": 7}
