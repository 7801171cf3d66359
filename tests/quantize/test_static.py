"""The step: files in and out, one weight at a time; what cannot be is refused with what works instead."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from sources.onnx_files import node

from convkit.errors import UsageError
from convkit.graph import weights as weight_files
from convkit.graph.model import DATA_FILE, MODEL_FILE, Model, save_model
from convkit.graph.present import interface_of
from convkit.graph.quant_profile import QuantProfile
from convkit.pipeline import events
from convkit.pipeline.events import Event, Warned
from convkit.quantize.calibrate import collect_ranges
from convkit.quantize.result import Quantized
from convkit.quantize.static import quantize_static
from convkit.spec.options import CalibrationMethod
from convkit.targets.onnxruntime_profile import PROFILE
from convkit.targets.trt_profile import TENSORRT_PROFILE
from quantize.quantized_graphs import graph, sqnr_db, weight
from quantize.test_placement import encoder, residual


@pytest.fixture
def warned() -> Iterator[list[str]]:
    found: list[Event] = []
    codes: list[str] = []
    events.observe(lambda event: (found.append(event), codes.append(event.code) if isinstance(event, Warned) else None))
    yield codes
    events.observe(events.nobody)


def static(proto: onnx.ModelProto, profile: QuantProfile = PROFILE, **options: object) -> Quantized:
    model = save_model(proto, interface_of(proto))
    ranges = collect_ranges(model, data=None, samples=8)
    arguments = {"method": CalibrationMethod.MINMAX, **options}
    return quantize_static(model, ranges=ranges, profile=profile, **arguments)  # type: ignore[arg-type]


def deep(layers: int, width: int) -> onnx.ModelProto:
    nodes = [
        each
        for number in range(layers)
        for each in (
            node("MatMul", [f"r{number}", f"w{number}"], [f"m{number}"]),
            node("Relu", [f"m{number}"], [f"r{number + 1}"]),
        )
    ]
    parts = [weight(f"w{number}", width, width, scale=width**-0.5) for number in range(layers)]
    return graph(nodes, {"r0": ["N", width]}, {f"r{layers}": ["N", width]}, parts)


@pytest.mark.parametrize("outside", [False, True])
def test_peak_memory_is_that_of_the_result_and_of_one_weight(monkeypatch: pytest.MonkeyPatch, outside: bool) -> None:
    proto = deep(12, 512)
    source = save_model(proto, interface_of(proto))
    ranges = collect_ranges(source, data=None, samples=4)
    if outside:
        monkeypatch.setattr(weight_files, "EXTERNAL_ABOVE", 1_000_000)
    tracemalloc.start()
    result = quantize_static(source, ranges=ranges, profile=PROFILE, method=CalibrationMethod.MINMAX)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 0.75 * source.files.bytes
    assert set(result.model.files.files) == ({MODEL_FILE, DATA_FILE} if outside else {MODEL_FILE})
    assert sqnr_db(proto, onnx.load(str(result.model.path))) > 20


def test_weights_beside_the_graph_are_read_and_those_that_stay_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Sub", ["h", "offsets"], ["y"])]
    proto = graph(nodes, {"x": [64, 64]}, {"y": [64, 64]}, [weight("w", 64, 64), weight("offsets", 64, 64)])
    source = external(proto)
    ranges = collect_ranges(source, data=None, samples=4)
    monkeypatch.setattr(weight_files, "EXTERNAL_ABOVE", 10_000)
    result = quantize_static(source, ranges=ranges, profile=PROFILE, method=CalibrationMethod.MINMAX)
    written = onnx.load(str(result.model.path))

    assert DATA_FILE in result.model.files.files
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in written.graph.initializer}["offsets"]
    assert np.array_equal(kept, numpy_helper.to_array(weight("offsets", 64, 64)))
    assert sqnr_db(proto, written) > 30


def external(proto: onnx.ModelProto) -> Model:
    from convkit.pipeline.artifact import gather, new_folder

    folder, interface, copy = new_folder("external"), interface_of(proto), onnx.ModelProto()
    copy.CopyFrom(proto)
    onnx.save_model(copy, str(folder / MODEL_FILE), save_as_external_data=True, location="w.bin", size_threshold=0)
    return Model(files=gather(folder), interface=interface)


@pytest.mark.parametrize("profile", [PROFILE, TENSORRT_PROFILE])
def test_a_graph_of_an_older_opset_is_raised_to_one_that_has_scales_for_channels(profile: QuantProfile) -> None:
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"]),
        node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "v"], ["d"]),
        node("GlobalAveragePool", ["d"], ["g"]),
        helper.make_node("Squeeze", ["g"], ["y"], axes=[2, 3]),
    ]
    parts = [weight("w", 16, 16, 3, 3), weight("b", 16), weight("v", 16, 16, 1, 1)]
    proto = graph(nodes, {"x": ["N", 16, 8, 8]}, {"y": ["N", 16]}, parts, opset=11, ir_version=6)
    result = onnx.load(str(static(proto, profile).model.path))

    onnx.checker.check_model(result, full_check=True)
    assert result.opset_import[0].version == 13
    assert sum(each.op_type == "QuantizeLinear" for each in result.graph.node) >= 2
    assert sqnr_db(proto, result) > 25


def test_a_graph_that_is_quantized_already_is_refused_with_what_to_do() -> None:
    done = onnx.load(str(static(residual()).model.path))

    with pytest.raises(UsageError, match="quantized already: it has DequantizeLinear, QuantizeLinear") as refused:
        static(done)
    assert "leave --quantize out" in refused.value.hint


def test_where_everything_is_kept_the_refusal_says_why() -> None:
    narrow = graph(
        [node("Conv", ["x", "w"], ["y"], name="stem")],
        {"x": [1, 3, 8, 8]},
        {"y": [1, 8, 6, 6]},
        [weight("w", 8, 3, 3, 3)],
    )

    with pytest.raises(UsageError, match="stem: fewer than 16 channels gain nothing"):
        static(narrow, TENSORRT_PROFILE)


def test_products_in_loops_and_branches_stay_and_that_is_said(warned: list[str]) -> None:
    branches = [
        helper.make_graph([node(kind, ["c", "w"], [kind])], kind, [], [helper.make_empty_tensor_value_info(kind)])
        for kind in ("Conv", "Conv")
    ]
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("If", ["flag"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    flag = numpy_helper.from_array(np.array(True), "flag")
    proto = graph(nodes, {"x": [1, 4, 4, 4]}, {"y": [1, 4, 4, 4]}, [weight("w", 4, 4, 1, 1), flag])
    proto.graph.node[1].attribute[1].g.node[0].output[0] = "other"
    proto.graph.node[1].attribute[1].g.output[0].name = "other"
    static(proto)

    assert "quantize.inner-graphs" in warned


def test_the_same_ranges_serve_two_targets_and_the_same_bytes_come_twice() -> None:
    model = save_model(encoder(), interface_of(encoder()))
    ranges = collect_ranges(model, data=None, samples=8)
    digests = [
        quantize_static(model, ranges=ranges, profile=profile, method=CalibrationMethod.MINMAX).model.files.digest
        for profile in (PROFILE, TENSORRT_PROFILE, PROFILE)
    ]

    assert digests[0] == digests[2] != digests[1]
