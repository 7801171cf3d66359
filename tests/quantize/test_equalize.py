"""Channels scaled between layers: the same numbers, ranges that are alike, and INT8 that gains by it."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sources.onnx_files import node

from convkit.graph.model import Model
from convkit.pipeline.artifact import use_scratch
from convkit.quantize.equalize import LARGEST, equalize
from convkit.targets.onnxruntime_profile import PROFILE
from quantize.imbalanced import (
    Feeds,
    answers,
    constants,
    int8_db,
    ranges_of,
    require_same_numbers,
    saved,
    tensor,
    uneven,
)
from quantize.quantized_graphs import graph, weight

PER_TENSOR = msgspec.structs.replace(PROFILE, per_channel=False)
BOTH = pytest.mark.parametrize("profile", [PROFILE, PER_TENSOR], ids=["per channel", "per tensor"])
WIDTH = 12


def images(rows: int = 8, channels: int = 3, size: int = 8) -> Feeds:
    return {"x": np.random.default_rng(1).standard_normal((rows, channels, size, size)).astype(np.float32)}


def scaled(name: str, shape: tuple[int, ...], factors: np.ndarray, axis: int, *, invert: bool = False) -> Any:
    drawn = np.random.default_rng(len(name) + sum(shape)).standard_normal(shape) * 0.4
    by_channel = factors.reshape([-1 if each == axis else 1 for each in range(len(shape))])
    return tensor(name, drawn / by_channel if invert else drawn * by_channel)


def pair(
    between: list[onnx.NodeProto], *more: onnx.TensorProto, decades: float = 2.0, outputs: tuple[str, ...] = ()
) -> Model:
    """Two convolutions, and what stands between `a` and `z`: their 12 channels lie two powers of ten apart."""
    factors = uneven(WIDTH, decades=decades)
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["a"], pads=[1] * 4),
        *between,
        node("Conv", ["z", "w2", "b2"], ["y"]),
    ]
    weights = [
        scaled("w1", (WIDTH, 3, 3, 3), factors, 0),
        scaled("b1", (WIDTH,), factors, 0),
        scaled("w2", (5, WIDTH, 1, 1), factors, 1, invert=True),
        weight("b2", 5),
    ]
    shapes: dict[str, list[Any]] = {"y": ["N", 5, "H", "W"]} | {name: ["N", WIDTH, "H", "W"] for name in outputs}
    return saved(graph(nodes, {"x": ["N", 3, 8, 8]}, shapes, [*weights, *more]))


def mobile(activation: str = "Relu", *bounds: onnx.TensorProto) -> Model:
    """An inverted residual: expansion, depthwise convolution, projection, a shortcut around them, and a classifier."""
    more = [each.name for each in bounds]
    first, second = uneven(WIDTH, seed=1), uneven(WIDTH, seed=2)
    nodes = [
        node("Conv", ["x", "w0", "b0"], ["stem"], pads=[1] * 4),
        node("Conv", ["stem", "w1", "b1"], ["expanded"]),
        node(activation, ["expanded", *more], ["r1"]),
        node("Conv", ["r1", "w2", "b2"], ["depthwise"], pads=[1] * 4, group=WIDTH),
        node(activation, ["depthwise", *more], ["r2"]),
        node("Conv", ["r2", "w3", "b3"], ["projected"]),
        node("Add", ["stem", "projected"], ["sum"]),
        node("GlobalAveragePool", ["sum"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        node("Gemm", ["flat", "w4", "b4"], ["y"], transB=1),
    ]
    depthwise = scaled("w2", (WIDTH, 1, 3, 3), second / first, 0)
    weights = [
        weight("w0", 4, 3, 3, 3),
        weight("b0", 4),
        scaled("w1", (WIDTH, 4, 1, 1), first, 0),
        scaled("b1", (WIDTH,), first, 0),
        depthwise,
        scaled("b2", (WIDTH,), second, 0),
        scaled("w3", (4, WIDTH, 1, 1), second, 1, invert=True),
        weight("b3", 4),
        weight("w4", 6, 4, scale=1.0),
        weight("b4", 6),
    ]
    return saved(graph(nodes, {"x": ["N", 3, 8, 8]}, {"y": ["N", 6]}, [*weights, *bounds]))


def imbalance(model: Model) -> float:
    """The largest part by which the ranges that a channel has in `w1` and in `w2` differ."""
    found = constants(model)
    written = np.abs(found["w1"]).max(axis=(1, 2, 3))
    read = np.abs(found["w2"]).reshape(5, WIDTH, -1).max(axis=(0, 2))
    ratio = written / read
    return float(ratio.max() / ratio.min() - 1)


@BOTH
@pytest.mark.parametrize("with_ranges", [False, True], ids=["weights alone", "with ranges"])
def test_a_depthwise_network_out_of_balance_is_exact_in_int8_once_it_is_equalized(
    profile: Any, with_ranges: bool
) -> None:
    model, feeds = mobile(), images(32)
    repaired = equalize(model, ranges=ranges_of(model, feeds) if with_ranges else None)

    require_same_numbers(model, repaired, feeds)
    assert int8_db(repaired, profile, feeds) > int8_db(model, profile, feeds) + 8
    assert int8_db(repaired, profile, feeds) > 30


BETWEEN: dict[str, tuple[list[onnx.NodeProto], list[onnx.TensorProto]]] = {
    "nothing": ([node("Identity", ["a"], ["z"])], []),
    "relu": ([node("Relu", ["a"], ["z"])], []),
    "leaky": ([node("LeakyRelu", ["a"], ["z"], alpha=0.2)], []),
    "prelu": ([node("PRelu", ["a", "slope"], ["z"])], [tensor("slope", 0.25)]),
    "prelu by channel": ([node("PRelu", ["a", "slope"], ["z"])], [tensor("slope", [[[i / 9]] for i in range(WIDTH)])]),
    "clip without an end": ([node("Clip", ["a", "zero"], ["z"])], [tensor("zero", 0)]),
    "max pool": ([node("MaxPool", ["a"], ["z"], kernel_shape=[2, 2])], []),
    "average pool": ([node("AveragePool", ["a"], ["z"], kernel_shape=[2, 2])], []),
    "pad": ([node("Pad", ["a", "pads"], ["z"])], [tensor("pads", [0, 0, 1, 1, 0, 0, 1, 1], np.int64)]),
    "reflect": (
        [node("Pad", ["a", "pads"], ["z"], mode="reflect")],
        [tensor("pads", [0, 0, 1, 1, 0, 0, 1, 1], np.int64)],
    ),
    "resize": ([node("Resize", ["a", "", "twice"], ["z"], mode="linear")], [tensor("twice", [1, 1, 2, 2])]),
    "mean": ([node("ReduceMean", ["a", "axes"], ["z"])], [tensor("axes", [2, 3], np.int64)]),
    "gain": ([node("Mul", ["a", "c"], ["z"])], [tensor("c", 3)]),
    "quotient": ([node("Div", ["a", "c"], ["z"])], [tensor("c", [[[i + 1]] for i in range(WIDTH)])]),
    "shift": ([node("Add", ["c", "a"], ["z"])], [tensor("c", [[[i / 9]] for i in range(WIDTH)])]),
    "the same shift": ([node("Sub", ["c", "a"], ["z"])], [tensor("c", 0.5)]),
    "two readers": ([node("Relu", ["a"], ["r"]), node("Add", ["r", "a"], ["z"])], []),
    "there and back": (
        [node("Transpose", ["a"], ["t"], perm=[0, 2, 3, 1]), node("Transpose", ["t"], ["z"], perm=[0, 3, 1, 2])],
        [],
    ),
    "gate": (
        [
            node("GlobalAveragePool", ["a"], ["pooled"]),
            node("Conv", ["pooled", "w3"], ["g"]),
            node("Sigmoid", ["g"], ["gate"]),
            node("Mul", ["a", "gate"], ["z"]),
        ],
        [weight("w3", WIDTH, WIDTH, 1, 1)],
    ),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_what_maps_each_channel_in_proportion_lets_its_scale_pass(name: str) -> None:
    nodes, weights = BETWEEN[name]
    model = pair(nodes, *weights)
    repaired = equalize(model)

    require_same_numbers(model, repaired, images())
    if name != "gate":  # whose convolution reads the channels, too
        assert imbalance(model) > 100
        assert imbalance(repaired) < 0.01


STAY: dict[str, tuple[list[onnx.NodeProto], list[onnx.TensorProto]]] = {
    "sigmoid": ([node("Sigmoid", ["a"], ["z"])], []),
    "swish": ([node("Sigmoid", ["a"], ["s"]), node("Mul", ["a", "s"], ["z"])], []),
    "square": ([node("Mul", ["a", "a"], ["z"])], []),
    "relu6": ([node("Clip", ["a", "zero", "six"], ["z"])], [tensor("zero", 0), tensor("six", 6)]),
    "hard tanh": ([node("Clip", ["a", "low", "high"], ["z"])], [tensor("low", -1), tensor("high", 1)]),
    "ones around": (
        [node("Pad", ["a", "pads", "one"], ["z"])],
        [tensor("pads", [0, 0, 1, 1, 0, 0, 1, 1], np.int64), tensor("one", 1)],
    ),
    "mean of channels": (
        [node("ReduceMean", ["a", "axes"], ["m"]), node("Sub", ["a", "m"], ["z"])],
        [tensor("axes", [1], np.int64)],
    ),
    "reciprocal": ([node("Div", ["c", "a"], ["z"])], [tensor("c", 1)]),
    "order of channels": (
        [
            node("Split", ["a"], ["left", "right"], axis=1, num_outputs=2),
            node("Concat", ["right", "left"], ["z"], axis=1),
        ],
        [],
    ),
}


@pytest.mark.parametrize("name", STAY)
def test_around_what_does_not_the_graph_stays_as_it_is(name: str) -> None:
    nodes, weights = STAY[name]
    model = pair(nodes, *weights)

    assert equalize(model) == model


def test_a_tensor_that_the_caller_sees_keeps_its_numbers() -> None:
    model = pair([node("Relu", ["a"], ["z"])], outputs=("z",))

    assert equalize(model) == model


def test_a_tensor_that_a_loop_or_branch_reads_keeps_its_numbers() -> None:
    from onnx import TensorProto, helper

    inner = helper.make_graph(
        [node("Neg", ["a"], ["negative"])],
        "branch",
        [],
        [helper.make_tensor_value_info("negative", TensorProto.FLOAT, None)],
    )
    branch = node("If", ["yes"], ["other"], then_branch=inner, else_branch=inner)
    model = pair([branch, node("Relu", ["a"], ["z"])], tensor("yes", True, np.bool_), outputs=("other",))

    assert equalize(model) == model


def test_weights_that_two_layers_share_stay() -> None:
    nodes = [node("Relu", ["a"], ["r"]), node("Conv", ["r", "w3"], ["b"]), node("Conv", ["b", "w3"], ["z"])]
    model = pair(nodes, weight("w3", WIDTH, WIDTH, 1, 1))

    assert equalize(model) == model


def test_a_bias_that_two_layers_share_is_copied_for_the_one_that_changes() -> None:
    nodes = [
        node("Conv", ["x", "w1", "b"], ["a"]),
        node("Conv", ["a", "w2", "b"], ["s"]),
        node("Sigmoid", ["s"], ["y"]),
    ]
    factors = uneven(WIDTH)
    weights = [
        scaled("w1", (WIDTH, 3, 1, 1), factors, 0),
        weight("b", WIDTH),
        scaled("w2", (WIDTH, WIDTH, 1, 1), factors, 1, invert=True),
    ]
    model = saved(graph(nodes, {"x": ["N", 3, 8, 8]}, {"y": ["N", WIDTH, 8, 8]}, weights))
    repaired = equalize(model)

    require_same_numbers(model, repaired, images())
    np.testing.assert_array_equal(constants(repaired)["b"], constants(model)["b"])
    assert set(constants(repaired)) == {"w1", "w2", "b", "b__scaled"}


def test_weights_in_constant_nodes_and_turned_ones_are_found() -> None:
    factors = uneven(WIDTH)
    nodes = [
        node("Constant", [], ["w1"], value=scaled("w1", (6, WIDTH), factors, 1)),
        node("MatMul", ["x", "w1"], ["m"]),
        node("Add", ["m", "b1"], ["a"]),
        node("Relu", ["a"], ["r"]),
        node("Transpose", ["stored"], ["w2"], perm=[1, 0]),
        node("MatMul", ["r", "w2"], ["y"]),
    ]
    weights = [scaled("b1", (WIDTH,), factors, 0), scaled("stored", (5, WIDTH), factors, 1, invert=True)]
    model = saved(graph(nodes, {"x": ["N", 4, 6]}, {"y": ["N", 4, 5]}, weights))
    feeds = {"x": np.random.default_rng(0).standard_normal((8, 4, 6)).astype(np.float32)}
    repaired = equalize(model)

    require_same_numbers(model, repaired, feeds)
    ends = [np.abs(constants(repaired)[name]).max(axis=0) for name in ("w1__scaled",)]
    ends.append(np.abs(constants(repaired)["w2__scaled"]).max(axis=1))
    ratio = ends[0] / ends[1]
    assert ratio.max() / ratio.min() < 1.01
    assert not {"w1", "stored", "w2"} & set(constants(repaired))


def test_groups_transposed_convolutions_and_flattened_images_are_scaled_channel_by_channel() -> None:
    factors, second = uneven(WIDTH), uneven(6, seed=3)
    nodes = [
        node("ConvTranspose", ["x", "w1", "b1"], ["a"], group=2, strides=[2, 2]),
        node("Relu", ["a"], ["r"]),
        node("Conv", ["r", "w2"], ["c"], group=3),
        node("ConvTranspose", ["c", "w3"], ["d"], group=2),
        node("Flatten", ["d"], ["flat"]),
        node("Gemm", ["flat", "w4", "b4"], ["y"], alpha=0.5, beta=2.0),
    ]
    weights = [
        scaled("w1", (4, WIDTH // 2, 2, 2), factors[: WIDTH // 2], 1),
        scaled("b1", (WIDTH,), factors, 0),
        scaled("w2", (6, WIDTH // 3, 1, 1), second, 0),
        scaled("w3", (6, 4, 1, 1), second, 0, invert=True),
        weight("w4", 8 * 16, 5),
        weight("b4", 5),
    ]
    model = saved(graph(nodes, {"x": ["N", 4, 2, 2]}, {"y": ["N", 5]}, weights))
    feeds = {"x": np.random.default_rng(0).standard_normal((16, 4, 2, 2)).astype(np.float32)}
    repaired = equalize(model)

    require_same_numbers(model, repaired, feeds)
    assert all((constants(model)[name] != constants(repaired)[name]).any() for name in ("w1", "w2", "w3", "w4"))
    assert int8_db(repaired, PER_TENSOR, feeds) > int8_db(model, PER_TENSOR, feeds) + 3


def test_channels_without_weights_and_those_next_to_nothing_do_no_harm() -> None:
    model = pair([node("Relu", ["a"], ["z"])])
    proto = onnx.load(model.path)
    for each in proto.graph.initializer:
        values = onnx.numpy_helper.to_array(each).copy()
        if each.name == "w1":
            values[0], values[1], values[2] = 0, 1e-20, 1e20
        if each.name == "w2":
            values[:, 3], values[:, 2], values[:, 1] = 0, 1e-22, 1
        each.CopyFrom(tensor(each.name, values))
    dead = saved(proto)
    repaired = equalize(dead)

    require_same_numbers(dead, repaired, images())
    assert all(np.isfinite(array).all() for array in constants(repaired).values())
    grown = np.abs(constants(repaired)["b1"]) / np.abs(constants(dead)["b1"])
    assert grown.max() <= LARGEST * 1.001


@BOTH
@pytest.mark.parametrize("reached", [False, True], ids=["no channel reaches the bound", "one does"])
def test_around_a_relu6_channels_are_scaled_as_far_as_calibration_shows_that_none_is_cut(
    profile: Any, reached: bool
) -> None:
    feeds = images(32)
    free = mobile()
    highest = max(_maxima(free, feeds))
    model = mobile("Clip", tensor("zero", 0), tensor("six", highest * (0.7 if reached else 1.2)))
    repaired = equalize(model, ranges=ranges_of(model, feeds))

    require_same_numbers(model, repaired, feeds)
    assert int8_db(repaired, profile, feeds) > int8_db(model, profile, feeds) + 6
    cut = np.array(_maxima(model, feeds, "r1")) >= highest * 0.7 * (1 - 1e-6)
    if reached:
        assert cut.any()
        np.testing.assert_array_equal(constants(repaired)["b1"][cut], constants(model)["b1"][cut])


def _maxima(model: Model, feeds: Feeds, *names: str) -> list[float]:
    from convkit.quantize.ranges import open_ranges

    table = open_ranges(ranges_of(model, feeds))
    rows = [table.channel_max_abs(name) for name in names or ("r1", "r2")]
    return [float(each) for row in rows if row is not None for each in row]


def test_the_mean_of_what_a_relu6_has_cut_does_not_hide_that_it_has() -> None:
    nodes = [
        node("Clip", ["a", "zero", "six"], ["c"]),
        node("GlobalAveragePool", ["c"], ["z"]),
    ]
    model = pair(nodes, tensor("zero", 0), tensor("six", 0.5))
    feeds = images()
    repaired = equalize(model, ranges=ranges_of(model, feeds))

    require_same_numbers(model, repaired, feeds)


@st.composite
def chains(draw: st.DrawFn) -> Model:
    """Convolutions of any groups, with anything between them, at the end a product."""
    numbers = np.random.default_rng(draw(st.integers(0, 1000)))
    channels, name, kept = 4, "x", "x"
    widths = {"x": 0}
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = [tensor("zero", 0), tensor("six", 1.5), tensor("third", 1 / 3)]

    def then(kind: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(node(kind, inputs, [f"t{len(nodes)}"], **attributes))
        return f"t{len(nodes) - 1}"

    def drawn(*shape: int, axis: int = 0) -> str:
        spread = np.exp(numbers.standard_normal([n if i == axis else 1 for i, n in enumerate(shape)]))
        summed = np.prod(shape[1:]) or 1  # what a Sigmoid reads must not be all rounding
        name = f"w{len(weights)}"
        weights.append(tensor(name, numbers.standard_normal(shape) * spread / np.sqrt(summed)))
        return name

    for _ in range(draw(st.integers(2, 5))):
        out = draw(st.sampled_from((4, 8)))
        groups = draw(st.sampled_from((1, 2, 4)))
        if draw(st.booleans()):
            name = then("Conv", name, drawn(out, channels // groups, 3, 3), drawn(out), group=groups, pads=[1] * 4)
        else:
            name = then("ConvTranspose", name, drawn(channels, out // groups, 1, 1), drawn(out), group=groups)
        channels = out
        match draw(st.integers(0, 9)):
            case 0:
                name = then("Relu", name)
            case 1:
                name = then("LeakyRelu", name, alpha=0.3)
            case 2:
                name = then("Clip", name, "zero", "six")
            case 3:
                name = then("Mul", name, "third")
            case 4:
                name = then("Add", name, drawn(channels, 1, 1))
            case 5:
                name = then("Sigmoid", name)
            case 6:
                name = then("MaxPool", name, kernel_shape=[3, 3], pads=[1] * 4)
            case 7:
                name = then("Mul", name, then("Sigmoid", then("GlobalAveragePool", name)))
            case 8 if widths[kept] == channels:
                name = then("Add", name, kept)
        widths[name] = channels
        kept = name if draw(st.booleans()) else kept
    flat = then("Flatten", name)
    nodes.append(node("Gemm", [flat, drawn(channels * 16, 3)], ["y"]))
    return saved(graph(nodes, {"x": ["N", 4, 4, 4]}, {"y": ["N", 3]}, weights))


@settings(max_examples=60, deadline=None)
@given(model=st.deferred(chains), with_ranges=st.booleans())
def test_any_chain_of_layers_computes_what_it_did(model: Model, with_ranges: bool) -> None:
    feeds = {"x": np.random.default_rng(7).standard_normal((8, 4, 4, 4)).astype(np.float32)}

    require_same_numbers(model, equalize(model, ranges=ranges_of(model, feeds) if with_ranges else None), feeds)


def test_the_sample_mobilenet_reads_digits_in_int8_once_it_is_equalized(tmp_path: Path) -> None:
    import torch

    from convkit.graph.simplify import simplify
    from convkit.quantize.calibrate import collect_ranges
    from convkit.quantize.static import quantize_static
    from convkit.spec.options import CalibrationMethod, Simplifier
    from quantize.imbalanced import kept_data

    use_scratch(tmp_path)
    folder = Path(__file__).parents[2] / "sample_models" / "digits_mobile"
    with np.load(folder / "heldout.npz") as held, np.load(folder / "calibration.npz") as calibration:
        held_out, labels, seen = {"image": held["image"]}, held["labels"], {"image": calibration["image"]}
    network = runpy.run_path(str(folder / "model.py"))["load_model"]()
    shapes = {"image": {0: torch.export.Dim.DYNAMIC}}
    example = (torch.from_numpy(held_out["image"][:2]),)
    torch.onnx.export(network, example, tmp_path / "m.onnx", input_names=["image"], dynamic_shapes=shapes, dynamo=True)
    exported = saved(onnx.load(tmp_path / "m.onnx"))
    model = simplify(exported, chain=(Simplifier.ONNXSLIM, Simplifier.ONNXSIM)).model

    def top1(each: Model, profile: Any) -> float:
        ranges = collect_ranges(each, data=kept_data(seen), samples=300)
        done = quantize_static(each, ranges=ranges, profile=profile, method=CalibrationMethod.MINMAX).model
        return float((answers(done, held_out).reshape(len(labels), -1).argmax(axis=1) == labels).mean())

    repaired = equalize(model, ranges=ranges_of(model, seen))

    require_same_numbers(model, repaired, held_out)
    assert top1(model, PER_TENSOR) < 0.6
    assert top1(repaired, PER_TENSOR) > 0.98
    assert top1(repaired, PROFILE) > 0.98
