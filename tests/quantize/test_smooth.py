"""Outliers of single channels moved out of activations: the same numbers, and INT8 that gains by it."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from sources.onnx_files import node

from convkit.graph.model import Model, load_model
from convkit.quantize.smooth import smooth, smoothing_scales
from convkit.targets.onnxruntime_profile import PROFILE
from quantize.imbalanced import Feeds, answers, constants, int8_db, ranges_of, require_same_numbers, saved, tensor
from quantize.quantized_graphs import graph, weight

PER_TENSOR = msgspec.structs.replace(PROFILE, per_channel=False)
BOTH = pytest.mark.parametrize("profile", [PROFILE, PER_TENSOR], ids=["per channel", "per tensor"])
WIDTH, HIDDEN, ROWS = 32, 64, 6


def outliers(width: int = WIDTH) -> np.ndarray:
    """Factors of which three are far above the others, as a LayerNorm's are in language models."""
    factors = np.ones(width, np.float32)
    factors[[3, 11, 20]] = (60, 90, 40)
    return factors


def sequences(rows: int = 32) -> Feeds:
    return {"x": np.random.default_rng(1).standard_normal((rows, ROWS, WIDTH)).astype(np.float32)}


def norm(prefix: str) -> list[onnx.TensorProto]:
    drawn = np.random.default_rng(len(prefix)).standard_normal(WIDTH) * 0.1
    return [tensor(f"{prefix}_scale", outliers() * (1 + drawn)), tensor(f"{prefix}_bias", outliers() * drawn)]


def small(name: str, *shape: int) -> onnx.TensorProto:
    """Weights, the smaller the larger the channel that they read."""
    drawn = np.random.default_rng(len(name) + sum(shape)).standard_normal(shape) * 0.2
    return tensor(name, drawn / np.sqrt(outliers(shape[0]))[:, None])


def encoder() -> Model:
    """A layer of a transformer with its norms in front: attention, and two products around Relu."""
    nodes = [
        node("LayerNormalization", ["x", "n1_scale", "n1_bias"], ["n1"]),
        node("MatMul", ["n1", "wq"], ["q"]),
        node("Add", ["q", "bq"], ["query"]),
        node("MatMul", ["n1", "wk"], ["key"]),
        node("MatMul", ["n1", "wv"], ["value"]),
        node("Transpose", ["key"], ["turned"], perm=[0, 2, 1]),
        node("MatMul", ["query", "turned"], ["products"]),
        node("Mul", ["products", "eighth"], ["scores"]),
        node("Softmax", ["scores"], ["shares"]),
        node("MatMul", ["shares", "value"], ["mixed"]),
        node("MatMul", ["mixed", "wo"], ["attended"]),
        node("Add", ["x", "attended"], ["h"]),
        node("LayerNormalization", ["h", "n2_scale", "n2_bias"], ["n2"]),
        node("MatMul", ["n2", "w1"], ["m1"]),
        node("Add", ["m1", "b1"], ["a1"]),
        node("Relu", ["a1"], ["r1"]),
        node("MatMul", ["r1", "w2"], ["m2"]),
        node("Add", ["h", "m2"], ["y"]),
    ]
    weights = [*norm("n1"), *norm("n2"), small("w1", WIDTH, HIDDEN), weight("w2", HIDDEN, WIDTH)]
    weights += [small(name, WIDTH, WIDTH) for name in ("wq", "wk", "wv")]
    weights += [weight("wo", WIDTH, WIDTH), weight("bq", WIDTH), weight("b1", HIDDEN), tensor("eighth", 0.125)]
    shape = ["N", ROWS, WIDTH]
    return saved(graph(nodes, {"x": shape}, {"y": shape}, weights))


def before_product(nodes: list[onnx.NodeProto], *weights: onnx.TensorProto, outputs: tuple[str, ...] = ()) -> Model:
    """What writes `z`, and a product that reads it."""
    shapes: dict[str, list[Any]] = {"y": ["N", ROWS, 8]} | {name: ["N", ROWS, WIDTH] for name in outputs}
    product = node("MatMul", ["z", "w"], ["y"])
    return saved(graph([*nodes, product], {"x": ["N", ROWS, WIDTH]}, shapes, [small("w", WIDTH, 8), *weights]))


def smoothed(model: Model, feeds: Feeds, **options: Any) -> Model:
    return smooth(model, ranges=ranges_of(model, feeds), **options)


@BOTH
def test_an_encoder_with_outlier_channels_gains_many_decibels_in_int8(profile: Any) -> None:
    model, feeds = encoder(), sequences()
    repaired = smoothed(model, feeds)

    require_same_numbers(model, repaired, feeds)
    assert int8_db(repaired, profile, feeds) > int8_db(model, profile, feeds) + 6
    changed = {name for name, array in constants(model).items() if (array != constants(repaired)[name]).any()}
    assert changed == {"n1_scale", "n1_bias", "n2_scale", "n2_bias", "wq", "wk", "wv", "w1", "b1", "w2"}


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_any_share_leaves_the_numbers_as_they_are(alpha: float) -> None:
    model, feeds = encoder(), sequences()

    require_same_numbers(model, smoothed(model, feeds, alpha=alpha), feeds)


WRITERS: dict[str, tuple[list[onnx.NodeProto], list[onnx.TensorProto]]] = {
    "norm without a bias": ([node("LayerNormalization", ["x", "n_scale"], ["z"])], norm("n")[:1]),
    "norm written out": (
        [node("Tanh", ["x"], ["t"]), node("Mul", ["n_scale", "t"], ["m"]), node("Add", ["m", "n_bias"], ["z"])],
        norm("n"),
    ),
    "product with a vector": ([node("Mul", ["x", "n_scale"], ["z"])], norm("n")[:1]),
    "another product": (
        [node("MatMul", ["x", "v"], ["m"]), node("Add", ["m", "n_bias"], ["a"]), node("Relu", ["a"], ["z"])],
        [tensor("v", np.random.default_rng(0).standard_normal((WIDTH, WIDTH)) * outliers()), *norm("n")[1:]],
    ),
    "a gated product": (
        [
            node("MatMul", ["x", "v"], ["m"]),
            node("MatMul", ["x", "u"], ["g"]),
            node("Sigmoid", ["g"], ["s"]),
            node("Mul", ["s", "m"], ["z"]),
        ],
        [
            tensor("v", np.random.default_rng(0).standard_normal((WIDTH, WIDTH)) * outliers()),
            weight("u", WIDTH, WIDTH),
        ],
    ),
    "a view between": (
        [
            node("LayerNormalization", ["x", "n_scale", "n_bias"], ["n"]),
            node("Transpose", ["n"], ["t"], perm=[1, 0, 2]),
            node("Transpose", ["t"], ["z"], perm=[1, 0, 2]),
        ],
        norm("n"),
    ),
}


@BOTH
@pytest.mark.parametrize("name", WRITERS)
def test_whatever_has_constants_of_its_own_takes_the_scales_up(name: str, profile: Any) -> None:
    nodes, weights = WRITERS[name]
    model, feeds = before_product(nodes, *weights), sequences()
    repaired = smoothed(model, feeds)

    require_same_numbers(model, repaired, feeds)
    assert int8_db(repaired, profile, feeds) > int8_db(model, profile, feeds) + 4


STAY: dict[str, tuple[list[onnx.NodeProto], list[onnx.TensorProto]]] = {
    "an input": ([node("Identity", ["x"], ["z"])], []),
    "gelu": ([node("MatMul", ["x", "v"], ["m"]), node("Gelu", ["m"], ["z"])], [weight("v", WIDTH, WIDTH)]),
    "a factor that all channels share": (
        [node("Tanh", ["x"], ["t"]), node("Mul", ["t", "c"], ["z"])],
        [tensor("c", 3)],
    ),
    "a norm that a shortcut reads": (
        [
            node("LayerNormalization", ["x", "n_scale", "n_bias"], ["n"]),
            node("Add", ["n", "x"], ["s"]),
            node("Softmax", ["s"], ["other"]),
            node("Identity", ["n"], ["z"]),
        ],
        norm("n"),
    ),
}


@pytest.mark.parametrize("name", STAY)
def test_where_it_would_cost_a_node_the_graph_stays_as_it_is(name: str) -> None:
    nodes, weights = STAY[name]
    made = {each for one in nodes for each in one.output}
    model, feeds = before_product(nodes, *weights, outputs=("other",) if "other" in made else ()), sequences()

    assert smoothed(model, feeds) == model


def norm_behind() -> Model:
    """A layer of a transformer with its norms behind the sums, as BERT has them."""
    nodes = [
        node("LayerNormalization", ["x", "n1_scale", "n1_bias"], ["n1"]),
        node("MatMul", ["n1", "w1"], ["m1"]),
        node("Add", ["m1", "b1"], ["a1"]),
        node("Gelu", ["a1"], ["g1"]),
        node("MatMul", ["g1", "w2"], ["m2"]),
        node("Add", ["n1", "m2"], ["h"]),
        node("LayerNormalization", ["h", "n2_scale", "n2_bias"], ["n2"]),
        node("MatMul", ["n2", "w3"], ["y"]),
    ]
    weights = [*norm("n1"), *norm("n2"), small("w1", WIDTH, HIDDEN), weight("b1", HIDDEN), small("w3", WIDTH, 8)]
    shapes = {"y": ["N", ROWS, 8]}
    return saved(graph(nodes, {"x": ["N", ROWS, WIDTH]}, shapes, [*weights, weight("w2", HIDDEN, WIDTH)]))


@BOTH
def test_a_shortcut_reads_what_it_did_where_a_product_in_front_of_it_is_allowed(profile: Any) -> None:
    model, feeds = norm_behind(), sequences()
    free, repaired = smoothed(model, feeds), smoothed(model, feeds, restore=True)

    np.testing.assert_allclose(answers(repaired, feeds), answers(model, feeds), rtol=1e-4, atol=1e-3)
    assert int8_db(repaired, profile, feeds) > int8_db(free, profile, feeds) + 2
    [extra] = [each for each in load_model(repaired).graph.node if each.op_type == "Mul"]
    assert extra.input[0] == "n1"
    assert [each.op_type for each in load_model(repaired).graph.node if extra.output[0] in each.input] == ["Add"]


def test_no_product_is_added_where_no_channel_stands_out() -> None:
    model, feeds = norm_behind(), sequences()
    proto = load_model(model)
    for each in proto.graph.initializer:
        if each.name == "n1_scale":
            each.CopyFrom(tensor("n1_scale", np.ones(WIDTH)))
        if each.name == "n1_bias":
            each.CopyFrom(tensor("n1_bias", np.zeros(WIDTH)))
    even = saved(proto)

    assert smoothed(even, feeds, restore=True).files.digest == smoothed(even, feeds).files.digest


def test_the_factor_of_a_norm_that_is_scaled_again_behind_it_is_divided_once() -> None:
    nodes = [
        node("Mul", ["x", "n_scale"], ["m"]),
        node("Mul", ["m", "n_bias"], ["k"]),
        node("Add", ["m", "k"], ["z"]),
    ]
    model, feeds = before_product(nodes, *norm("n")), sequences()

    require_same_numbers(model, smoothed(model, feeds), feeds)


def test_convolutions_before_a_classifier_are_left_to_equalization() -> None:
    nodes = [
        node("Conv", ["x", "w1"], ["c"]),
        node("GlobalAveragePool", ["c"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "w2"], ["y"]),
    ]
    weights = [weight("w1", 8, 3, 1, 1), weight("w2", 8, 5)]
    model = saved(graph(nodes, {"x": ["N", 3, 4, 4]}, {"y": ["N", 5]}, weights))
    feeds = {"x": np.ones((2, 3, 4, 4), np.float32)}

    assert smoothed(model, feeds) == model


def test_scales_are_those_of_the_paper_and_dead_channels_keep_one() -> None:
    seen, weights = np.array([8.0, 2.0, 0.0, 5.0]), np.array([0.5, 2.0, 1.0, 0.0])

    halves = smoothing_scales(seen, weights, 0.5)
    np.testing.assert_allclose(halves[0] / halves[1], np.sqrt((8 / 0.5) / (2 / 2)))
    np.testing.assert_array_equal(halves[2:], 1)
    whole = smoothing_scales(seen, weights, 1.0)
    np.testing.assert_allclose(whole[0] / whole[1], 8 / 2)
