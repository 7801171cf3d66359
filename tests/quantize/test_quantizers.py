"""INT8 in the form that a target takes, from data that fit the model, with numbers that hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from sources.onnx_files import FLOAT, model, node, value

from convkit.errors import InputError, UsageError
from convkit.graph.model import Model, load_model, save_model, save_tensors
from convkit.graph.names import name_nodes
from convkit.graph.present import interface_of
from convkit.graph.samples import make_cases
from convkit.graph.session import open_session, run_session
from convkit.measure.compare import compare_outputs
from convkit.pipeline import events
from convkit.pipeline.artifact import Artifact, gather
from convkit.pipeline.events import Event, Warned
from convkit.quantize.calibrate import collect_ranges
from convkit.quantize.dynamic import quantize_dynamic
from convkit.quantize.result import Quantized
from convkit.quantize.static import quantize_static
from convkit.spec.options import CalibrationMethod, CheckOptions, Precision
from convkit.targets.onnxruntime_profile import PROFILE
from convkit.targets.trt_profile import TENSORRT_PROFILE


def weight(name: str, *shape: int, scale: float = 0.2) -> onnx.TensorProto:
    drawn = np.random.default_rng(len(name) + sum(shape)).standard_normal(shape) * scale
    return numpy_helper.from_array(drawn.astype(np.float32), name)


def saved(proto: onnx.ModelProto) -> Model:
    name_nodes(proto.graph)
    return save_model(proto, interface_of(proto))


def network(*, batch: int | str = "N", narrow: int = 3) -> Model:
    """A residual network in small: three convolutions, the first of few channels, and a product."""
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1] * 4, name="first"),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1] * 4, name="second"),
        node("Relu", ["c2"], ["r2"]),
        node("Conv", ["r2", "w3", "b3"], ["c3"], pads=[1] * 4, name="third"),
        node("Add", ["c3", "r2"], ["sum"], name="residual"),
        node("Relu", ["sum"], ["r3"]),
        node("GlobalAveragePool", ["r3"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        node("Gemm", ["flat", "w4", "b4"], ["y"], name="head"),
    ]
    shapes = {"w1": (32, narrow, 3, 3), "w2": (32, 32, 3, 3), "w3": (32, 32, 3, 3), "w4": (32, 10)}
    shapes |= {"b1": (32,), "b2": (32,), "b3": (32,), "b4": (10,)}
    weights = [weight(name, *shape) for name, shape in shapes.items()]
    image, answer = value("x", FLOAT, [batch, narrow, 8, 8]), value("y", FLOAT, [batch, 10])
    return saved(model(nodes, [image], [answer], weights))


def encoder() -> Model:
    """Two products with constant weights, and one of two activations."""
    nodes = [
        node("MatMul", ["x", "wq"], ["q"]),
        node("MatMul", ["x", "wk"], ["k"]),
        node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["scores"]),
        node("Softmax", ["scores"], ["y"]),
    ]
    shape = ["N", 6, 16]
    weights = [weight("wq", 16, 16), weight("wk", 16, 16)]
    return saved(model(nodes, [value("x", FLOAT, shape)], [value("y", FLOAT, ["N", 6, 6])], weights))


def static(source: Model, profile: Any = PROFILE, **options: Any) -> Quantized:
    ranges = collect_ranges(source, data=options.pop("data", None), samples=options.pop("samples", 16))
    return quantize_static(source, ranges=ranges, profile=profile, **{"method": CalibrationMethod.MINMAX, **options})


def held(source: Model, result: Quantized) -> onnx.ModelProto:
    """The INT8 graph, after ONNX's checker and a comparison with the FP32 graph's answers."""
    onnx.checker.check_model(result.model.path, full_check=True)
    cases = make_cases(source.interface, None)
    names = tuple(spec.name for spec in source.interface.outputs)
    answers = [run_session(open_session(source.path), names, case) for case in cases]
    verification = compare_outputs(
        result.model,
        samples=save_tensors(cases),
        references=save_tensors(answers),
        precision=Precision.INT8,
        options=CheckOptions(),
    )
    assert verification.passed, verification
    assert result.model.interface == source.interface
    proto = load_model(result.model)
    assert proto.ir_version == load_model(source).ir_version
    return proto


def operators(proto: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in proto.graph.node)


def zero_points(proto: onnx.ModelProto) -> dict[str, set[int]]:
    """The zero points by their types."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    found: dict[str, set[int]] = {}
    for each in proto.graph.node:
        if each.op_type in ("QuantizeLinear", "DequantizeLinear"):
            point = constants[each.input[2]] if len(each.input) > 2 else np.zeros((), np.int32)  # a bias has none
            found.setdefault(point.dtype.name, set()).update(point.ravel().tolist())
    return found


@pytest.fixture
def seen() -> Iterator[list[Event]]:
    found: list[Event] = []
    events.observe(found.append)
    yield found
    events.observe(events.nobody)


def test_for_onnx_runtime_activations_are_uint8_and_weights_int8_per_channel() -> None:
    source = network()
    proto = held(source, static(source))

    assert set(zero_points(proto)) == {"uint8", "int8", "int32"}
    assert zero_points(proto)["int8"] == {0}
    per_channel = [scale for scale in proto.graph.initializer if scale.name == "w2__scale" and list(scale.dims) == [32]]
    assert per_channel, "no weight has a scale for each channel"


def test_for_tensorrt_everything_is_int8_around_zero_and_narrow_convolutions_stay() -> None:
    source = network()
    result = static(source, TENSORRT_PROFILE)
    proto = held(source, result)

    assert zero_points(proto) == {"int8": {0}}
    assert result.kept == ("first",)
    reads = {each.name: each.input[0] for each in proto.graph.node}
    producers = {name: each.op_type for each in proto.graph.node for name in each.output}
    assert producers.get(reads["first"]) is None
    assert producers[reads["second"]] == "DequantizeLinear"


def test_of_a_residual_sum_the_branch_that_fuses_stays_as_it_is() -> None:
    source = network()
    proto = held(source, static(source, TENSORRT_PROFILE))
    producers = {name: each.op_type for each in proto.graph.node for name in each.output}
    [residual] = [each for each in proto.graph.node if each.op_type == "Add"]

    assert sorted(producers[name] for name in residual.input) == ["Conv", "DequantizeLinear"]


def test_nodes_without_names_are_told_apart(tmp_path: Path) -> None:
    """One of them is kept in floating point, and by its empty name all of them were."""
    source = network()
    proto = load_model(source)
    for each in proto.graph.node:
        each.name = ""
    result = static(saved(proto), TENSORRT_PROFILE)

    assert operators(load_model(result.model))["QuantizeLinear"] > 0
    assert len(result.kept) == 1


def test_where_nothing_can_be_quantized_that_is_said() -> None:
    relu = saved(model([node("Sin", ["x"], ["y"])], [value("x", FLOAT, ["N", 4])], [value("y", FLOAT, ["N", 4])], []))

    with pytest.raises(UsageError, match="static INT8 found nothing to quantize"):
        static(relu, TENSORRT_PROFILE)


@pytest.mark.parametrize("method", CalibrationMethod)
def test_every_calibration_method_gives_numbers_that_hold(method: CalibrationMethod) -> None:
    source = network()
    result = static(source, method=method)

    held(source, result)
    assert result.method == method.value


def test_a_range_is_what_calibration_saw() -> None:
    source = encoder()
    quiet, loud = (static(source, data=rows(1, scale=scale)) for scale in (1.0, 8.0))

    assert input_scale(loud) == pytest.approx(8 * input_scale(quiet), rel=0.01)


def rows(seed: int, *, scale: float = 1.0, count: int = 12) -> Artifact:
    from convkit.pipeline.artifact import new_folder

    folder = new_folder("data")
    drawn = np.random.default_rng(seed).standard_normal((count, 6, 16)) * scale
    np.savez(folder / "data.npz", x=drawn.astype(np.float32))
    return gather(folder)


def input_scale(result: Quantized) -> float:
    proto = load_model(result.model)
    first = next(each for each in proto.graph.node if each.op_type == "QuantizeLinear" and each.input[0] == "x")
    scales = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    return float(scales[first.input[1]])


@pytest.mark.parametrize(("asked", "used"), [(5, 5), (12, 12), (100, 12)])
def test_so_many_samples_are_used_as_were_asked_for_and_are_there(asked: int, used: int) -> None:
    assert static(encoder(), data=rows(0), samples=asked).samples == used


@pytest.mark.parametrize(("asked", "used"), [(1, 4), (6, 4), (12, 12)])
def test_a_fixed_batch_is_filled_whole(asked: int, used: int, tmp_path: Path) -> None:
    images = np.random.default_rng(0).standard_normal((13, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=images)
    result = static(network(batch=4), data=gather(tmp_path, ["data.npz"]), samples=asked)

    assert result.samples == used


def test_fewer_samples_than_a_fixed_batch_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros((3, 3, 8, 8), np.float32))

    with pytest.raises(InputError, match="3 samples, at least 4 are needed"):
        static(network(batch=4), data=gather(tmp_path, ["data.npz"]))


def test_the_same_data_give_the_same_file_and_nothing_of_this_machine(tmp_path: Path) -> None:
    source, data = encoder(), rows(0)
    one, two = (static(source, data=data) for _ in range(2))

    assert one.model.files.digest == two.model.files.digest
    assert one.model.files.files == ("model.onnx",)
    assert str(tmp_path).encode() not in one.model.path.read_bytes()


# Without data


def test_dynamic_int8_takes_products_with_constant_weights_per_column() -> None:
    source = encoder()
    result = quantize_dynamic(source)
    proto = held(source, result)

    assert operators(proto)["MatMulInteger"] == 2
    assert operators(proto)["MatMul"] == 1
    weights = [weight for weight in proto.graph.initializer if list(weight.dims) == [16, 16]]
    assert [weight.data_type for weight in weights] == [TensorProto.INT8] * 2
    assert sum(list(scale.dims) == [16] and scale.data_type == FLOAT for scale in proto.graph.initializer) == 2


def test_dynamic_int8_leaves_convolutions_and_says_so(seen: list[Event]) -> None:
    source = network()
    proto = held(source, quantize_dynamic(source))

    assert operators(proto)["Conv"] == 3
    assert [event.code for event in seen if isinstance(event, Warned)] == ["quantize.convolutions-kept"]


def test_dynamic_int8_of_convolutions_alone_is_refused_with_what_to_do() -> None:
    conv = node("Conv", ["x", "w"], ["y"])
    shape, out = ["N", 3, 8, 8], ["N", 4, 6, 6]
    source = saved(model([conv], [value("x", FLOAT, shape)], [value("y", FLOAT, out)], [weight("w", 4, 3, 3, 3)]))

    with pytest.raises(UsageError, match="works on matrix products with constant weights") as refused:
        quantize_dynamic(source)
    assert "--quantize int8" in refused.value.hint
