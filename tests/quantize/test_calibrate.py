"""Calibration on small models, against the tensors themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from sources.onnx_files import FLOAT, model, node, value

from convkit.errors import InputError, StepError
from convkit.graph.model import DATA_FILE, MODEL_FILE, Model, load_model, save_model
from convkit.graph.names import name_nodes
from convkit.graph.present import interface_of
from convkit.pipeline.artifact import Artifact, gather
from convkit.pipeline.cache import Cache
from convkit.pipeline.runner import Runner
from convkit.quantize import calibrate
from convkit.quantize.calibrate import collect_ranges
from convkit.quantize.observed import observed_tensors
from convkit.quantize.ranges import Ranges, RangeTable, open_ranges
from convkit.spec.options import CalibrationMethod

INT64 = TensorProto.INT64


def weight(name: str, *shape: int) -> onnx.TensorProto:
    drawn = np.random.default_rng(len(name) + sum(shape)).standard_normal(shape) * 0.3
    return numpy_helper.from_array(drawn.astype(np.float32), name)


def saved(proto: onnx.ModelProto) -> Model:
    name_nodes(proto.graph)
    onnx.checker.check_model(proto, full_check=True)
    return save_model(proto, interface_of(proto))


def residual(batch: int | str = "N") -> Model:
    nodes = [
        node("Conv", ["x", "w1"], ["c1"], pads=[1] * 4),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2"], ["c2"], pads=[1] * 4),
        node("Add", ["c2", "r1"], ["sum"]),
        node("Relu", ["sum"], ["r2"]),
        node("GlobalAveragePool", ["r2"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        node("Gemm", ["flat", "w3"], ["y"]),
    ]
    weights = [weight("w1", 8, 3, 3, 3), weight("w2", 8, 8, 3, 3), weight("w3", 8, 5)]
    return saved(model(nodes, [value("x", FLOAT, [batch, 3, 12, 12])], [value("y", FLOAT, [batch, 5])], weights))


def attention(fill: float) -> Model:
    """Integer inputs, an embedding, and a mask that is added to the scores."""
    constants = [numpy_helper.from_array(np.float32(number), name) for name, number in (("zero", 0), ("fill", fill))]
    nodes = [
        node("Gather", ["table", "ids"], ["embedded"]),
        node("MatMul", ["embedded", "wq"], ["q"]),
        node("Transpose", ["embedded"], ["turned"], perm=[0, 2, 1]),
        node("MatMul", ["q", "turned"], ["scores"]),
        node("Cast", ["mask"], ["keep"], to=TensorProto.BOOL),
        node("Where", ["keep", "zero", "fill"], ["bias"]),
        node("Add", ["scores", "bias"], ["masked"]),
        node("Softmax", ["masked"], ["weights"]),
        node("MatMul", ["weights", "embedded"], ["y"]),
    ]
    inputs = [value("ids", INT64, ["N", "S"]), value("mask", INT64, ["N", 1, "S"])]
    weights = [weight("table", 20, 8), weight("wq", 8, 8), *constants]
    return saved(model(nodes, inputs, [value("y", FLOAT, ["N", "S", 8])], weights))


def archive(folder: Path, **arrays: np.ndarray) -> Artifact:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "data.npz", **arrays)
    return gather(folder, ["data.npz"])


def images(folder: Path, count: int = 37) -> Artifact:
    return archive(folder, x=np.random.default_rng(4).standard_normal((count, 3, 12, 12)).astype(np.float32))


def tokens(folder: Path, count: int = 20, length: int = 6) -> Artifact:
    drawn = np.random.default_rng(5)
    mask = np.ones((count, 1, length), np.int64)
    mask[::2, :, -2:] = 0
    return archive(folder, ids=drawn.integers(0, 20, (count, length)), mask=mask)


def table(source: Model, data: Artifact | None, samples: int = 512) -> RangeTable:
    return open_ranges(collect_ranges(source, data=data, samples=samples))


def whole_tensors(source: Model, data: Artifact, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Every named tensor over all rows, by a session of the plain kind."""
    import onnxruntime

    proto = load_model(source)
    known = {output.name for output in proto.graph.output}
    for name in names:
        if name not in known:
            proto.graph.output.add().name = name
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    with np.load(data.file()) as arrays:
        return dict(zip(names, session.run(list(names), dict(arrays)), strict=True))


def every_choice(found: RangeTable) -> np.ndarray:
    forms = [(method, levels, levels % 2 == 1) for method in CalibrationMethod for levels in (255, 256)]
    return np.array([found.choose(n, m, levels=k, symmetric=s) for n in found.names() for m, k, s in forms])


def test_activations_are_observed_and_what_fuses_away_is_not() -> None:
    observed = observed_tensors(load_model(residual()).graph)

    assert set(observed.names) == {"x", "r1", "c2", "r2", "flat", "y"}
    assert observed.views == {"pooled": "flat"}
    assert observed.channel_axes == {"x": 1, "r1": 1, "flat": -1}


def test_what_two_nodes_or_the_caller_read_is_observed_before_its_relu() -> None:
    nodes = [node("Conv", ["x", "w"], ["c"]), node("Relu", ["c"], ["r"]), node("Relu", ["c"], ["s"])]
    ends = [value("r", FLOAT, None), value("s", FLOAT, None)]
    twice = model(nodes, [value("x", FLOAT, ["N", 2, 3, 3])], ends, [weight("w", 2, 2, 1, 1)])
    given = model(
        nodes[:2], [value("x", FLOAT, ["N", 2, 3, 3])], [value("c", FLOAT, None), ends[0]], [weight("w", 2, 2, 1, 1)]
    )

    assert {"c"} < set(observed_tensors(twice.graph).names)
    assert {"c"} < set(observed_tensors(given.graph).names)


def test_what_is_computed_from_weights_alone_is_not_observed() -> None:
    nodes = [
        node("Transpose", ["w"], ["turned"]),
        node("Add", ["turned", "b"], ["sum"]),
        node("MatMul", ["x", "sum"], ["y"]),
    ]
    proto = model(
        nodes, [value("x", FLOAT, ["N", 4])], [value("y", FLOAT, ["N", 3])], [weight("w", 3, 4), weight("b", 3)]
    )

    observed = observed_tensors(proto.graph)

    assert set(observed.names) == {"x", "y"}
    assert observed.channel_axes == {"x": -1}


def test_extremes_are_those_of_the_whole_tensors(tmp_path: Path) -> None:
    source, data = residual(), images(tmp_path / "data")
    found = table(source, data)

    for name, tensor in whole_tensors(source, data, ("r1", "c2", "r2", "pooled", "flat", "y")).items():
        low, high = found.choose(name, CalibrationMethod.MINMAX, levels=256, symmetric=False)
        assert (low, high) == pytest.approx((min(tensor.min(), 0), max(tensor.max(), 0)), rel=1e-5)
        assert found.max_abs(name) == pytest.approx(np.abs(tensor).max(), rel=1e-5)
        assert found.spectrum(name).counts.sum() == tensor.size


def test_channels_of_what_meets_weights_are_those_of_the_whole_tensors(tmp_path: Path) -> None:
    source, data = residual(), images(tmp_path / "data")
    found = table(source, data)

    for name, tensor in whole_tensors(source, data, ("r1", "flat")).items():
        others = tuple(axis for axis in range(tensor.ndim) if axis != 1)
        np.testing.assert_allclose(found.channel_max_abs(name), np.abs(tensor).max(axis=others), rtol=1e-5)
        np.testing.assert_allclose(found.channel_mean(name), tensor.mean(axis=others, dtype=float), rtol=1e-4)
    assert found.channel_mean("r2") is None


@pytest.mark.parametrize("build", [residual, lambda: attention(-1e9)], ids=["images", "tokens"])
def test_scales_do_not_depend_on_the_batches(
    build: Callable[[], Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = build()
    data = images(tmp_path / "data") if source.interface.inputs[0].name == "x" else tokens(tmp_path / "data")
    chosen = {}
    for rows in (1, 4, 16):
        monkeypatch.setattr(calibrate, "MOST_ROWS", rows)
        chosen[rows] = every_choice(table(source, data))

    np.testing.assert_allclose(chosen[4], chosen[1], rtol=1e-5)
    np.testing.assert_allclose(chosen[16], chosen[1], rtol=1e-5)


def large(tmp_path: Path) -> tuple[Model, Artifact]:
    """A model and images whose tensors are counted in part."""
    nodes = [node("Conv", ["x", "w"], ["c"], pads=[1] * 4), node("Relu", ["c"], ["y"])]
    ends = [value("x", FLOAT, ["N", 3, 96, 96])], [value("y", FLOAT, ["N", 16, 96, 96])]
    drawn = np.random.default_rng(7).standard_normal((20, 3, 96, 96)) * np.arange(1, 21).reshape(20, 1, 1, 1)
    return saved(model(nodes, *ends, [weight("w", 16, 3, 3, 3)])), archive(tmp_path, x=drawn.astype(np.float32))


def test_of_large_tensors_an_even_part_is_counted_and_the_extremes_are_exact(tmp_path: Path) -> None:
    source, data = large(tmp_path / "data")
    found, whole = table(source, data), whole_tensors(source, data, ("y",))["y"]

    part = found.spectrum("y")
    assert 20 * (1 << 15) <= part.counts.sum() < whole.size
    assert (part.low, part.high) == pytest.approx((whole.min(), whole.max()), rel=1e-5)
    _, high = found.choose("y", CalibrationMethod.PERCENTILE, levels=256, symmetric=False)
    assert (whole > high).mean() == pytest.approx(1e-4, rel=0.5)
    np.testing.assert_allclose(found.channel_mean("x"), whole_tensors(source, data, ("x",))["x"].mean((0, 2, 3)), 1e-3)


def test_what_is_counted_of_large_tensors_does_not_depend_on_the_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, data = large(tmp_path / "data")
    chosen = {}
    for rows in (1, 4, 16):
        monkeypatch.setattr(calibrate, "MOST_ROWS", rows)
        chosen[rows] = every_choice(table(source, data))

    np.testing.assert_allclose(chosen[4], chosen[1], rtol=1e-5)
    np.testing.assert_allclose(chosen[16], chosen[1], rtol=1e-5)


def test_the_order_of_the_samples_changes_no_scale(tmp_path: Path) -> None:
    source = residual()
    rows = np.random.default_rng(6).standard_normal((20, 3, 12, 12)).astype(np.float32) * np.arange(1, 21)[
        :, None, None, None
    ].astype(np.float32)

    forwards = every_choice(table(source, archive(tmp_path / "a", x=rows)))
    backwards = every_choice(table(source, archive(tmp_path / "b", x=rows[::-1])))

    np.testing.assert_allclose(backwards, forwards, rtol=1e-5)


def test_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    source, data = residual(), images(tmp_path / "data")

    first, second = (collect_ranges(source, data=data, samples=64) for _ in range(2))

    assert first.files.digest == second.files.digest


def test_only_as_many_samples_are_used_as_asked_for(tmp_path: Path) -> None:
    source, data = residual(), images(tmp_path / "data")

    ranges = collect_ranges(source, data=data, samples=5)

    assert ranges.samples == 5
    assert open_ranges(ranges).spectrum("x").counts.sum() == 5 * 3 * 12 * 12


def test_a_model_with_a_fixed_batch_is_run_in_that(tmp_path: Path) -> None:
    ranges = collect_ranges(residual(4), data=images(tmp_path / "data"), samples=100)

    assert ranges.samples == 36
    assert open_ranges(ranges).spectrum("x").counts.sum() == 36 * 3 * 12 * 12


def test_without_data_random_rows_are_drawn() -> None:
    ranges = collect_ranges(residual(), data=None, samples=6)

    assert ranges.samples == 6
    assert open_ranges(ranges).max_abs("x") > 2


def test_weights_beside_the_graph_are_read_where_they_lie(tmp_path: Path) -> None:
    inside, data = residual(), images(tmp_path / "data")
    folder = tmp_path / "outside"
    folder.mkdir()
    onnx.save_model(
        load_model(inside), folder / MODEL_FILE, save_as_external_data=True, location=DATA_FILE, size_threshold=0
    )
    outside = Model(files=gather(folder), interface=inside.interface)
    assert set(outside.files.files) == {MODEL_FILE, DATA_FILE}

    assert collect_ranges(outside, data=data, samples=9).files.digest == (
        collect_ranges(inside, data=data, samples=9).files.digest
    )


@pytest.mark.parametrize("shift", range(4))
def test_weights_are_read_where_they_lie_in_the_graphs_own_file(shift: int, tmp_path: Path) -> None:
    plain, data = residual(), images(tmp_path / "data")
    proto = load_model(plain)
    proto.producer_name = "x" * shift  # moves the weights by so many bytes
    moved = saved(proto)

    assert collect_ranges(moved, data=data, samples=9).files.digest == (
        collect_ranges(plain, data=data, samples=9).files.digest
    )


def test_what_a_relu_made_is_known_not_to_be_below_zero() -> None:
    assert observed_tensors(load_model(residual()).graph).rectified == {"r1", "r2"}


def test_sequences_of_other_lengths_are_run_apart(tmp_path: Path) -> None:
    for number, length in enumerate((3, 3, 9)):
        tokens(tmp_path / "parts", 4, length)
        (tmp_path / "parts" / "data.npz").rename(tmp_path / "parts" / f"{number}.npz")

    found = table(attention(-1e9), gather(tmp_path / "parts"))

    assert found.spectrum("embedded").counts.sum() == (4 * 3 + 4 * 3 + 4 * 9) * 8


@pytest.mark.parametrize("fill", [-np.inf, np.finfo(np.float32).min, -1e9])
def test_the_mask_of_an_attention_has_no_range_and_all_else_has(fill: float, tmp_path: Path) -> None:
    found = table(attention(fill), tokens(tmp_path / "data"))

    assert set(found.names()) == {"embedded", "turned", "q", "scores", "weights", "y"}
    with pytest.raises(InputError) as refusal:
        found.choose("masked", CalibrationMethod.MINMAX, levels=256, symmetric=False)
    assert refusal.value.code == "calibration.unobserved"


@pytest.mark.parametrize(("bad", "kind"), [(-1.0, "NaN"), (0.0, "infinity")])
def test_a_tensor_that_is_not_finite_is_named_with_the_row(bad: float, kind: str, tmp_path: Path) -> None:
    nodes = [node("Log", ["x"], ["logs"]), node("MatMul", ["logs", "w"], ["y"])]
    source = saved(model(nodes, [value("x", FLOAT, ["N", 4])], [value("y", FLOAT, ["N", 3])], [weight("w", 4, 3)]))
    rows = np.ones((30, 4), np.float32)
    rows[17, 2] = bad

    with pytest.raises(StepError) as failure:
        collect_ranges(source, data=archive(tmp_path / "data", x=rows), samples=512)

    assert failure.value.code == "calibration.not-finite"
    assert f"'logs' holds {kind} for row 17 " in failure.value.message


def test_constant_zero_tensors_have_an_empty_range(tmp_path: Path) -> None:
    data = archive(tmp_path / "data", x=np.zeros((3, 3, 12, 12), np.float32))

    assert not every_choice(table(residual(), data)).any()


def test_half_precision_and_doubles_are_observed() -> None:
    nodes = [
        node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
        node("Relu", ["half"], ["rectified"]),
        node("Cast", ["x"], ["double"], to=TensorProto.DOUBLE),
        node("Sigmoid", ["double"], ["squashed"]),
        node("Cast", ["rectified"], ["y"], to=FLOAT),
        node("Cast", ["squashed"], ["z"], to=FLOAT),
    ]
    ends = [value("y", FLOAT, ["N", 4]), value("z", FLOAT, ["N", 4])]
    found = table(saved(model(nodes, [value("x", FLOAT, ["N", 4])], ends, [])), None, 50)

    assert set(found.names()) == {"half", "rectified", "double", "squashed"}
    assert found.max_abs("half") == pytest.approx(found.max_abs("double"), rel=1e-3)
    assert 0.5 < found.max_abs("squashed") < 1


def test_integers_between_operators_are_no_business_of_ranges() -> None:
    nodes = [node("ArgMax", ["x"], ["index"], axis=1, keepdims=0), node("Add", ["index", "index"], ["y"])]
    source = saved(model(nodes, [value("x", FLOAT, ["N", 4])], [value("y", INT64, ["N"])], []))

    assert table(source, None, 5).names() == ()


def test_a_model_that_takes_strings_is_calibrated(tmp_path: Path) -> None:
    encode = node(
        "LabelEncoder", ["x"], ["code"], domain="ai.onnx.ml", keys_strings=["a", "b"], values_floats=[1.0, 5.0]
    )
    nodes = [encode, node("MatMul", ["code", "w"], ["y"])]
    proto = model(
        nodes,
        [value("x", TensorProto.STRING, ["N", 2])],
        [value("y", FLOAT, ["N", 3])],
        [weight("w", 2, 3)],
        domains=[("ai.onnx.ml", 2)],
    )
    data = archive(tmp_path / "data", x=np.array([["a", "b"], ["a", "a"]]))

    assert table(saved(proto), data).max_abs("code") == 5


def test_ranges_are_remembered_and_serve_every_method(tmp_path: Path) -> None:
    source, data = residual(), images(tmp_path / "data")
    results: list[Ranges] = []
    for _ in range(2):
        with Runner(Cache(tmp_path / "cache"), lambda _: None) as run:
            results.append(run(collect_ranges, source, data=data, samples=64))
            cached = run.stages[-1].cached

    assert cached
    assert results[0] == results[1]
    found = open_ranges(results[1])
    ranges = {
        tuple(found.choose(name, method, levels=256, symmetric=False) for name in found.names())
        for method in CalibrationMethod
    }
    assert len(ranges) == 4
