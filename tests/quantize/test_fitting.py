"""Weights rounded together: never worse than to the nearest, and often as good as any way of rounding can be."""

from __future__ import annotations

import itertools

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from sources.onnx_files import node

from convkit.graph.model import Model, load_model, save_model
from convkit.graph.names import name_nodes
from convkit.graph.present import interface_of
from convkit.graph.quant_profile import QuantProfile
from convkit.quantize import moments as moments_module
from convkit.quantize.fitting import error_of, fit_rounding, metric_of
from convkit.quantize.grid import WEIGHT_STEPS, Rounded, round_weight
from convkit.quantize.moments import Moments, collect_moments, columns_of, open_moments, windows_of
from convkit.quantize.static import quantize_static
from convkit.spec.options import CalibrationMethod
from convkit.targets.onnxruntime_profile import PROFILE
from convkit.targets.openvino_profile import PROFILE as OPENVINO
from quantize.imbalanced import answers, kept_data, ranges_of, sqnr_db
from quantize.quantized_graphs import graph, weight

SUMS = 256


def alike(groups: int, sums: int, *, points: int = 400, seed: int = 0) -> np.ndarray:
    """Covariances [groups, sums, sums] of numbers of which neighbours are nearly the same."""
    drawn = np.random.default_rng(seed).standard_normal((groups, sums, points))
    walk = np.cumsum(0.3 * drawn, axis=1) + drawn[:, :1]
    walk -= walk.mean(axis=2, keepdims=True)
    covariance: np.ndarray = walk @ walk.transpose(0, 2, 1) / points
    return covariance


def nearest(drawn: np.ndarray) -> Rounded:
    """A weight [groups, channels, sums] rounded one by one, with a scale for each channel."""
    found = round_weight(drawn.reshape(-1, drawn.shape[2]), 0)
    return Rounded(found.values.reshape(drawn.shape), found.scale.reshape(drawn.shape[:2]))


def error(drawn: np.ndarray, rounded: Rounded, metric: np.ndarray) -> np.ndarray:
    found = rounded.values.astype(np.float64) * rounded.scale[..., None].astype(np.float64)
    return error_of(drawn.astype(np.float64), found, metric)


@pytest.mark.parametrize(("groups", "channels", "sums"), [(1, 8, 27), (12, 1, 9), (3, 4, 40), (1, 2, 1)])
@pytest.mark.parametrize("seed", range(5))
def test_no_channel_has_a_larger_error_than_rounded_to_the_nearest(
    groups: int, channels: int, sums: int, seed: int
) -> None:
    drawn = np.random.default_rng(seed).standard_normal((groups, channels, sums)).astype(np.float32)
    metric = metric_of(alike(groups, sums, seed=seed), 400, 0.02)
    before = nearest(drawn)

    after = fit_rounding(drawn, metric, before)

    assert (error(drawn, after, metric) <= error(drawn, before, metric)).all()
    assert after.values.dtype == np.int8
    assert np.abs(after.values.astype(int)).max() <= WEIGHT_STEPS
    assert after.scale.dtype == np.float32


def test_where_neighbours_are_alike_much_less_of_the_error_is_left() -> None:
    drawn = np.random.default_rng(1).standard_normal((1, 16, 27)).astype(np.float32)
    metric = metric_of(alike(1, 27), 100_000, 0.0)
    before = nearest(drawn)

    after = fit_rounding(drawn, metric, before)

    assert error(drawn, after, metric).sum() < 0.3 * error(drawn, before, metric).sum()


def test_of_three_weights_at_one_scale_no_way_of_rounding_is_better_by_much() -> None:
    metric = metric_of(alike(1, 3, seed=4), 100_000, 0.0)
    drawn = np.random.default_rng(2).standard_normal((1, 40, 3)).astype(np.float32)
    found = fit_rounding(drawn, metric, nearest(drawn))
    steps = np.rint(drawn[0] / found.scale[0, :, None])
    best = np.full(40, np.inf)
    for move in itertools.product((-3, -2, -1, 0, 1, 2, 3), repeat=3):
        tried = Rounded(np.clip(steps + move, -WEIGHT_STEPS, WEIGHT_STEPS)[None], found.scale)
        best = np.minimum(best, error(drawn, tried, metric)[0])

    assert (error(drawn, found, metric)[0] >= best * (1 - 1e-9)).all()
    assert error(drawn, found, metric).sum() < 1.5 * best.sum()


def test_scales_stay_above_what_a_bias_needs() -> None:
    drawn = np.random.default_rng(3).standard_normal((1, 6, 9)).astype(np.float32)
    least = nearest(drawn).scale * np.float32(1.01)
    before = Rounded(np.rint(drawn / least[..., None]).astype(np.int8), least)

    after = fit_rounding(drawn, metric_of(alike(1, 9), 4000, 0.0), before, least)

    assert (after.scale >= least).all()


def test_what_few_points_have_in_common_counts_for_little() -> None:
    covariance = alike(1, 20)
    own = covariance * np.eye(20)

    of_few, of_many = (metric_of(covariance, points, 0.0) for points in (2, 10**6))

    assert np.abs(of_few - own).max() < 0.06 * np.abs(covariance - own).max()
    np.testing.assert_allclose(of_many, covariance, rtol=1e-3, atol=1e-3)


# Moments


def images(rows: int, *, seed: int = 0) -> np.ndarray:
    """Smooth images [rows, 3, 16, 16]."""
    coarse = np.random.default_rng(seed).standard_normal((rows, 3, 4, 4))
    smooth: np.ndarray = coarse.repeat(4, axis=2).repeat(4, axis=3).astype(np.float32)
    return smooth + 0.1 * np.random.default_rng(seed + 1).standard_normal(smooth.shape).astype(np.float32)


def network() -> onnx.ModelProto:
    """A convolution with uneven pads and strides, a depthwise one with gaps, one of a point, and a Gemm."""
    nodes = [
        node("Conv", ["x", "w0", "b0"], ["c0"], strides=[2, 1], pads=[1, 0, 2, 1]),
        node("Relu", ["c0"], ["r0"]),
        node("Conv", ["r0", "w1", "b1"], ["c1"], group=16, pads=[2, 2, 2, 2], dilations=[2, 2]),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2", "b2"], ["c2"]),
        node("Relu", ["c2"], ["r2"]),
        node("GlobalAveragePool", ["r2"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        node("Gemm", ["flat", "w3", "b3"], ["y"], transB=1),
    ]
    parts = [
        weight("w0", 16, 3, 3, 3),
        weight("w1", 16, 1, 3, 3, scale=0.4),
        weight("w2", 24, 16, 1, 1),
        weight("w3", 10, 24),
        *(weight(f"b{number}", size) for number, size in enumerate((16, 16, 24, 10))),
    ]
    return graph(nodes, {"x": ["N", 3, 16, 16]}, {"y": ["N", 10]}, parts)


def saved(proto: onnx.ModelProto) -> Model:
    return save_model(proto, interface_of(proto))


def int8(source: Model, feeds: dict[str, np.ndarray], moments: Moments | None, profile: QuantProfile) -> Model:
    ranges = ranges_of(source, feeds)
    return quantize_static(source, ranges=ranges, profile=profile, method=CalibrationMethod.MSE, moments=moments).model


@pytest.mark.parametrize("number", [0, 1, 2])
def test_weights_times_the_columns_are_what_the_convolution_gives(number: int) -> None:
    import onnxruntime

    proto = network()
    [conv] = [each for each in proto.graph.node if f"w{number}" in each.input]
    proto.graph.output.add().name = conv.output[0]
    proto.graph.output.add().name = conv.input[0]
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {"x": images(2)}
    given = dict(zip((each.name for each in session.get_outputs()), session.run(None, feeds), strict=True)) | feeds
    values = {each.name: numpy_helper.to_array(each) for each in proto.graph.initializer}

    columns = columns_of(given[conv.input[0]], windows_of(proto.graph, SUMS)[conv.name], row=0)

    assert columns is not None
    groups, sums, _ = columns.shape
    products = values[f"w{number}"].reshape(groups, -1, sums) @ columns
    wanted = (given[conv.output[0]] - values[f"b{number}"][:, None, None]).transpose(1, 0, 2, 3)
    np.testing.assert_allclose(products.reshape(len(wanted), -1), wanted.reshape(len(wanted), -1), atol=1e-4)


def test_each_row_of_a_large_image_shows_other_points_and_as_many() -> None:
    window = windows_of(network().graph, SUMS)[network().graph.node[4].name]
    array = np.arange(16 * 60 * 60, dtype=np.float32).reshape(1, 16, 60, 60)

    first, second = (columns_of(array, window, row=row) for row in (0, 1))

    assert first is not None
    assert second is not None
    assert first.shape == second.shape == (1, 16, moments_module.POINTS)
    assert len(np.unique(first[0, 0])) == moments_module.POINTS
    assert not set(first[0, 0]) & set(second[0, 0])


def test_moments_are_those_of_the_numbers_and_the_same_again() -> None:
    source, data = saved(network()), kept_data({"x": images(8)})
    gemm = load_model(source).graph.node[-1].name

    first, again = (collect_moments(source, data=data, sums=SUMS) for _ in range(2))

    assert first.files.digest == again.files.digest
    moment = open_moments(first).of(gemm)
    assert moment is not None
    assert moment.points == 8
    proto = network()
    proto.graph.output.add().name = "flat"
    flat = answers_of(proto, "flat", images(8)).astype(np.float64)
    np.testing.assert_allclose(moment.covariance[0], np.cov(flat.T, bias=True), atol=1e-6)


def answers_of(proto: onnx.ModelProto, name: str, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run([name], {"x": x})[0]
    return found


def test_large_weights_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = set(windows_of(network().graph, SUMS))
    few = set(windows_of(network().graph, 20))
    monkeypatch.setattr(moments_module, "MOST_WEIGHTS", 200)
    small = set(windows_of(network().graph, SUMS))

    names = [each.name for each in network().graph.node if each.op_type in ("Conv", "Gemm")]
    assert everything == set(names)
    assert few == {names[1], names[2]}
    assert small == {names[1]}


# Quantized graphs


@pytest.mark.parametrize("profile", [PROFILE, OPENVINO])
def test_what_is_multiplied_alike_leaves_less_noise_and_the_same_graph(profile: QuantProfile) -> None:
    profile = msgspec.structs.replace(profile, thin_channels=0)  # the entry in INT8, too
    source, feeds = saved(network()), {"x": images(32)}
    moments = collect_moments(source, data=kept_data(feeds), sums=SUMS)
    held_out = {"x": images(64, seed=9)}
    wanted = answers(source, held_out)

    plain, fitted = (int8(source, feeds, each, profile) for each in (None, moments))

    one, other = (load_model(each).graph for each in (plain, fitted))
    assert [(each.op_type, *each.input, *each.output) for each in one.node] == [
        (each.op_type, *each.input, *each.output) for each in other.node
    ]
    changed = {
        first.name
        for first, second in zip(one.initializer, other.initializer, strict=True)
        if first.raw_data != second.raw_data
    }
    assert {"w0__quantized", "w1__quantized", "w2__quantized"} <= changed
    assert sqnr_db(wanted, answers(fitted, held_out)) > sqnr_db(wanted, answers(plain, held_out))


def test_the_same_moments_give_the_same_bytes() -> None:
    source, feeds = saved(network()), {"x": images(16)}
    moments = collect_moments(source, data=kept_data(feeds), sums=SUMS)

    first, again = (int8(source, feeds, moments, PROFILE) for _ in range(2))

    assert first.files.digest == again.files.digest


def test_a_weight_that_two_nodes_share_is_rounded_to_the_nearest() -> None:
    nodes = [
        node("Conv", ["x", "w", "b"], ["c0"], pads=[1, 1, 1, 1]),
        node("Relu", ["c0"], ["r0"]),
        node("Conv", ["r0", "w", "b"], ["y"], pads=[1, 1, 1, 1]),
    ]
    proto = graph(nodes, {"x": ["N", 8, 16, 16]}, {"y": ["N", 8, 16, 16]}, [weight("w", 8, 8, 3, 3), weight("b", 8)])
    name_nodes(proto.graph)
    source, feeds = saved(proto), {"x": np.repeat(images(4)[:, :1], 8, axis=1)}
    moments = collect_moments(source, data=kept_data(feeds), sums=SUMS)

    plain, fitted = (int8(source, feeds, each, PROFILE) for each in (None, moments))

    assert plain.files.digest == fitted.files.digest
