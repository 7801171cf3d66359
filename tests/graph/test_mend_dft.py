"""Fourier transforms as products: the numbers of ONNX Runtime's DFT, in forms that TensorRT-RTX's parser takes."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import onnx
import pytest
from preflight.making import F, H, ints, model, node

from convkit.graph.facts import Facts
from convkit.graph.mend_dft import dft_by_products
from convkit.graph.model import save_model
from convkit.sources.hand_on import face_of
from convkit.spec.options import ExportOptions
from convkit.targets.trt_parse import parse_rtx

RANDOM_CASES = 60


def transform(
    dims: list[int | str],
    axis: int,
    *,
    opset: int = 20,
    length: int | str | None = None,
    kind: int = F,
    **attributes: int,
) -> onnx.ModelProto:
    """A model of one DFT. `length`: a number, ``own`` (the size of the axis, computed), ``input`` (an input)."""
    inputs: dict[str, Any] = {"x": (kind, dims)}
    weights: dict[str, Any] = {}
    names, nodes = ["x", "-"], []
    if isinstance(length, int):
        weights["length"], names[1] = np.int64(length), "length"
    elif length == "own":
        place = axis % len(dims)
        nodes.append(node("Shape", "x", "size", "measure", start=place, end=place + 1))
        nodes.append(node("Squeeze", "size zero", "length", "number"))
        weights["zero"], names[1] = ints(0), "length"
    elif length == "input":
        inputs["length"], names[1] = (onnx.TensorProto.INT64, []), "length"
    if opset < 20:
        attributes["axis"] = axis
    else:
        weights["axis"] = np.int64(axis)
        names.append("axis")
    nodes.append(node("DFT", " ".join(names), "y", "dft", **attributes))
    return model(nodes, inputs, {"y": (kind, [None] * len(dims))}, weights, opset=opset)  # type: ignore[list-item]


def run(proto: onnx.ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, feed)
    return np.asarray(found)


def mended(proto: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    changed = dft_by_products(copy, frozenset({"dft"}))
    onnx.checker.check_model(changed, full_check=True)
    assert "DFT" not in {each.op_type for each in changed.graph.node}
    return changed


def is_taken(proto: onnx.ModelProto) -> bool:
    interface = face_of(proto, None, ExportOptions()).interface
    return not parse_rtx(save_model(proto, interface)).findings


def random_case(seed: int) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """One of all forms that ONNX Runtime runs: it has no half spectrum of a complex signal, and none made real."""
    draw = random.Random(seed)
    rank = draw.randint(3, 5)
    parts = draw.choice((1, 2))
    inverse = draw.random() < 0.4
    shape = [draw.randint(2, 9) for _ in range(rank - 1)]
    axis = draw.randrange(1, rank - 1)
    free = draw.random() < 0.5
    dims: list[int | str] = [f"d{place}" if free and draw.random() < 0.7 else size for place, size in enumerate(shape)]
    length = draw.choice((None, None, "own", "input", draw.randint(2, 12)))
    onesided = parts == 1 and not inverse and draw.random() < 0.5
    made = transform(
        [*dims, parts],
        axis if draw.random() < 0.5 else axis - rank,
        opset=draw.choice((17, 18, 20, 21)),
        length=length,
        inverse=int(inverse),
        onesided=int(onesided),
    )
    feed = {"x": np.random.default_rng(seed).standard_normal((*shape, parts)).astype(np.float32)}
    if length == "input":
        feed["length"] = np.array(draw.randint(2, 12), np.int64)
    return made, feed


def test_random_transforms_have_the_numbers_of_onnxruntime() -> None:
    for seed in range(RANDOM_CASES):
        proto, feed = random_case(seed)

        expected, found = run(proto, feed), run(mended(proto), feed)

        assert found.shape == expected.shape, seed
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4, err_msg=str(seed))


@pytest.mark.parametrize("samples", [5, "half"])
@pytest.mark.parametrize("length", [None, 7, 8, 12, "input"])
def test_a_half_spectrum_made_real_is_numpys(samples: int | str, length: int | str | None) -> None:
    proto = transform([3, samples, 2], 1, length=length, inverse=1, onesided=1)
    parts = np.random.default_rng(0).standard_normal((3, 5, 2)).astype(np.float32)
    feed = {"x": parts} | ({"length": np.array(9, np.int64)} if length == "input" else {})

    found = run(mended(proto), feed)

    expected = np.fft.irfft(parts[..., 0] + 1j * parts[..., 1], n=9 if length == "input" else length, axis=1)
    assert found.shape == (*expected.shape, 1)
    np.testing.assert_allclose(found[..., 0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", [18, 20])
@pytest.mark.parametrize("attributes", [{}, {"inverse": 1}, {"onesided": 1}, {"inverse": 1, "onesided": 1}], ids=str)
@pytest.mark.parametrize("length", [None, 6, "own"])
@pytest.mark.parametrize("size", [8, "n"])
def test_tensorrt_rtx_takes_what_becomes_of_it(
    opset: int, attributes: dict[str, int], length: int | str | None, size: int | str
) -> None:
    parts = 2 if "inverse" in attributes else 1
    proto = transform(["batch", size, 4, parts], 1, opset=opset, length=length, **attributes)

    assert is_taken(mended(proto))


def test_transforms_of_one_free_size_share_their_matrix() -> None:
    nodes = [node("DFT", "x", "a", "first", axis=1), node("DFT", "a", "y", "second", axis=1)]
    proto = model(nodes, {"x": (F, ["n", "length", 2])}, {"y": (F, ["n", "length", 2])}, opset=18)

    changed = dft_by_products(proto, frozenset({"first", "second"}))

    count = [each.op_type for each in changed.graph.node].count
    assert (count("MatMul"), count("Cos"), count("Range")) == (2, 1, 2)


def test_a_transform_in_a_branch_is_written_there() -> None:
    sizes: list[int | str] = ["n", "length", 2]
    branches = {}
    for name, inverse in (("then_branch", 0), ("else_branch", 1)):
        inner = model(
            [node("DFT", "x", f"{name}_y", name, axis=1, inverse=inverse)], {}, {f"{name}_y": (F, sizes)}, opset=18
        )
        branches[name] = inner.graph
    inputs = {"x": (F, sizes), "c": (onnx.TensorProto.BOOL, [])}
    proto = model([node("If", "c", "y", "if", **branches)], inputs, {"y": (F, sizes)}, opset=18)  # type: ignore[arg-type]
    signal = np.random.default_rng(0).standard_normal((2, 6, 2)).astype(np.float32)
    feeds = [{"x": signal, "c": np.array(each)} for each in (True, False)]
    expected = [run(proto, feed) for feed in feeds]

    changed = dft_by_products(proto, frozenset({"then_branch", "else_branch"}))

    for feed, known in zip(feeds, expected, strict=True):
        np.testing.assert_allclose(run(changed, feed), known, rtol=1e-4, atol=1e-4)


def test_the_matrix_has_the_type_of_the_signal() -> None:
    changed = mended(transform([2, 8, 1], 1, kind=H))

    assert {weight.data_type for weight in changed.graph.initializer} == {H, onnx.TensorProto.INT64}


@pytest.mark.parametrize(
    "proto",
    [
        transform([2, 5000, 1], 1),
        transform([2, 5, "parts"], 1),
        transform([2, 5, 2], 1, onesided=1),
    ],
    ids=["its matrix would be too large", "real or complex is not known", "half of a complex spectrum"],
)
def test_what_is_no_product_with_a_known_matrix_stays(proto: onnx.ModelProto) -> None:
    before = proto.SerializeToString()

    assert dft_by_products(proto, frozenset({"dft"})).SerializeToString() == before


def test_facts_read_nothing_into_a_length_that_is_another_axis() -> None:
    proto = transform(["n", "length", 2], 1, opset=18, length="own")
    for each in proto.graph.node[0].attribute:
        each.i = {"start": 0, "end": 1}[each.name]
    signal = np.random.default_rng(0).standard_normal((3, 6, 2)).astype(np.float32)

    assert Facts(proto).dims["x"] == ("n", "length", 2)
    np.testing.assert_allclose(run(mended(proto), {"x": signal}), run(proto, {"x": signal}), rtol=1e-4, atol=1e-4)
