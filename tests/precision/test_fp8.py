"""FP8 E4M3: the rounding by its definition, the pairs, what ONNX Runtime makes of them, what TensorRT-RTX builds."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from e2e.command import Command
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from quantize.quantized_graphs import graph, pairs, quantized, scale_of, weight
from quantize.test_placement import encoder, residual
from sources.onnx_files import node

from convkit.errors import StepError, UsageError
from convkit.graph.model import Model, save_model
from convkit.graph.present import interface_of
from convkit.graph.quant_profile import Number
from convkit.graph.session import open_session
from convkit.graph.work import declared_work
from convkit.quantize.calibrate import collect_ranges
from convkit.quantize.grid import Grid, grid_of, round_to, round_weight
from convkit.quantize.static import quantize_static
from convkit.serving.triton import ServingOptions, parse
from convkit.serving.triton_model import triton_files
from convkit.spec.options import CalibrationMethod, Precision
from convkit.targets.onnxruntime_profile import PROFILE
from convkit.targets.target import open_target, refuse_impossible
from convkit.targets.trt_build import build_rtx
from convkit.targets.trt_options import RTX_COMPUTE_CAPABILITIES, TensorRTOptions, has_fp8, only_with_fp8
from convkit.targets.trt_profile import TENSORRT_PROFILE
from convkit.targets.trt_profiles import profiles_for
from precision.graphs import Array, one_case, sqnr_db

FP8 = TENSORRT_PROFILE.in_fp8()
E4M3 = [
    sign * value
    for sign in (-1.0, 1.0)
    for value in (
        *(mantissa / 8 * 2.0**-6 for mantissa in range(8)),
        *(
            (1 + mantissa / 8) * 2.0 ** (exponent - 7)
            for exponent in range(1, 16)
            for mantissa in range(8)
            if (exponent, mantissa) != (15, 7)  # NaN
        ),
    )
]
"""Every number of the type, from its definition: a sign, 4 bits of exponent with a bias of 7, 3 bits of mantissa."""
SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"

floats = st_numpy.arrays(
    np.float32,
    st_numpy.array_shapes(min_dims=2, max_dims=3, max_side=6),
    elements=st.floats(-1e4, 1e4, width=32),
)


def nearest(numbers: Array) -> Array:
    """What lies nearest to each number in E4M3, looked up in the list."""
    known = np.sort(np.unique(np.array(E4M3)))
    return known[np.abs(numbers.astype(np.float64)[..., None] - known).argmin(axis=-1)]


def test_the_type_is_the_one_of_its_definition() -> None:
    stored = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float64)

    assert sorted(set(stored[~np.isnan(stored)])) == sorted(set(E4M3))
    assert max(E4M3) == 448


@settings(max_examples=60, deadline=None)
@given(floats)
def test_weights_become_the_nearest_numbers_of_their_channels_scale(array: Array) -> None:
    rounded = round_weight(array, 0, number=Number.FP8)

    assert rounded.values.dtype == ml_dtypes.float8_e4m3fn
    values = rounded.values.astype(np.float64)
    assert np.isfinite(values).all()
    peaks = np.abs(array).reshape(len(array), -1).max(axis=1)
    used = peaks > 1e-27
    assert np.abs(values).reshape(len(array), -1).max(axis=1)[used] == pytest.approx(448)
    assert rounded.scale[used] == pytest.approx(peaks[used] / 448, rel=1e-6)
    steps = array / rounded.scale.reshape(-1, *[1] * (array.ndim - 1))
    np.testing.assert_allclose(np.abs(values - steps), np.abs(nearest(steps) - steps), rtol=1e-5, atol=1e-12)


@given(st.floats(-1e6, 0), st.floats(0, 1e6))
def test_an_activations_grid_ends_at_its_largest_magnitude(low: float, high: float) -> None:
    grid = grid_of(low, high, signed=True, symmetric=True, number=Number.FP8)

    peak = max(high, -low)
    assert (grid.zero_point, grid.number) == (0, Number.FP8)
    assert grid.scale == pytest.approx((peak if peak >= 1e-30 else 1.0) / 448, rel=1e-6)


def test_what_is_beyond_the_grid_comes_to_its_end_and_not_to_nan() -> None:
    found = round_to(np.array([-1e9, -3, 0, 464, 1e9], np.float32), Grid(1.0, 0, True, Number.FP8))

    assert found.astype(np.float32).tolist() == [-448, -3, 0, 448, 448]


@pytest.mark.parametrize("source", [residual(), encoder()], ids=["residual", "encoder"])
def test_pairs_stand_where_those_of_int8_do_and_weights_are_stored_in_8_bits(source: onnx.ModelProto) -> None:
    source.opset_import[0].version = 19
    low, inserted = quantized(source, FP8)
    whole, alike = quantized(source, TENSORRT_PROFILE)

    assert inserted == alike
    assert pairs(low) == pairs(whole)
    assert {tensor.name for tensor in low.graph.initializer} == {tensor.name for tensor in whole.graph.initializer}
    kinds = {tensor.name: tensor.data_type for tensor in low.graph.initializer}
    for tensor in whole.graph.initializer:
        wanted = TensorProto.FLOAT8E4M3FN if tensor.data_type == TensorProto.INT8 else tensor.data_type
        assert kinds[tensor.name] == wanted
    for name in pairs(low):
        assert scale_of(low, name) == pytest.approx(scale_of(whole, name) * 127 / 448, rel=1e-5)


def classifier(opset: int = 17) -> Model:
    """A convolution, Relu6, a pool, a residual sum and a product: all that ONNX Runtime takes for INT8."""
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4),
        node("Clip", ["c", "zero", "six"], ["r"]),
        node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p", "v", "b"], ["d"], pads=[1] * 4),
        node("Add", ["d", "p"], ["s"]),
        node("Relu", ["s"], ["q"]),
        node("Conv", ["q", "u", "b"], ["e"]),
        node("GlobalAveragePool", ["e"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("MatMul", ["f", "t"], ["y"]),
    ]
    shapes = {"w": (16, 16, 3, 3), "v": (16, 16, 3, 3), "u": (16, 16, 1, 1), "t": (16, 16), "b": (16,)}
    ends = [numpy_helper.from_array(np.float32(value), name) for name, value in (("zero", 0), ("six", 6))]
    parts = [*(weight(name, *shape) for name, shape in shapes.items()), *ends]
    proto = graph(nodes, {"x": ["N", 16, 8, 8]}, {"y": ["N", 16]}, parts)
    proto.opset_import[0].version = opset
    return save_model(proto, interface_of(proto))


def in_fp8(model: Model) -> Model:
    ranges = collect_ranges(model, data=None, samples=8)
    return quantize_static(model, ranges=ranges, profile=FP8, method=CalibrationMethod.MINMAX).model


def case() -> dict[str, Array]:
    return {"x": np.random.default_rng(5).standard_normal((4, 16, 8, 8)).astype(np.float32)}


def test_an_old_opset_is_raised_to_the_first_that_has_fp8() -> None:
    proto = onnx.load(str(in_fp8(classifier()).path))

    assert proto.opset_import[0].version == 19
    onnx.checker.check_model(proto, full_check=True)


def test_onnx_runtime_computes_what_the_graph_says() -> None:
    """Optimized, it would drop Relu and Clip before FP8 pairs, and refuse what it makes of pools and products."""
    model = classifier()
    low = in_fp8(model)

    [found], [wanted] = (open_session(each.path).run(None, case()) for each in (low, model))
    [by_reference] = ReferenceEvaluator(onnx.load(str(low.path))).run(None, case())

    assert sqnr_db(found, by_reference) > 60
    assert 18 < sqnr_db(found, wanted) < 50


def test_its_work_is_counted_as_fp8() -> None:
    work = declared_work(in_fp8(classifier()), samples=one_case(case()))

    assert list(work.macs) == ["fp8"]
    assert work.share(8) == 1.0


@pytest.mark.parametrize("capability", ["8.9", "12.0"])
def test_tensorrt_builds_it_where_there_is_fp8(capability: str) -> None:
    model = in_fp8(classifier())
    options = TensorRTOptions(compute_capabilities=(capability,))

    assert build_rtx(model, profiles_for(model.interface, options), options).files.bytes > 0


def test_tensorrt_says_what_to_do_where_there_is_none() -> None:
    model = in_fp8(classifier())
    options = TensorRTOptions(compute_capabilities=("8.6",))

    with pytest.raises(StepError, match="fp8") as refused:
        build_rtx(model, profiles_for(model.interface, options), options)
    assert "before 8.9" in refused.value.hint


def test_of_the_default_gpus_those_without_fp8_are_left_out() -> None:
    chosen = only_with_fp8(TensorRTOptions()).compute_capabilities

    assert chosen == tuple(each for each in RTX_COMPUTE_CAPABILITIES if has_fp8(each)) == ("8.9", "12.0")


def test_a_gpu_without_fp8_that_was_asked_for_is_refused() -> None:
    with pytest.raises(UsageError, match=r"compute capability 8\.6 have no FP8"):
        only_with_fp8(TensorRTOptions(compute_capabilities=("8.6", "8.9")))


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_targets_on_cpus_refuse_it_and_name_what_works(target: str) -> None:
    with pytest.raises(UsageError, match="CPUs do not compute in FP8") as refused:
        refuse_impossible(open_target(target), Precision.FP8)

    assert "--quantize int8" in refused.value.hint


def test_a_profile_of_another_target_is_made_symmetric_and_without_int32_biases() -> None:
    profile = PROFILE.in_fp8()

    assert profile.signed_activations
    assert profile.symmetric_activations
    assert not profile.quantize_bias


@pytest.mark.parametrize(("precision", "served"), [(Precision.INT8, True), (Precision.BF16, False)])
def test_a_cpu_is_offered_what_it_can_run(precision: Precision, served: bool) -> None:
    interface = classifier().interface

    files = triton_files(
        "m", interface, open_target("tensorrt"), ServingOptions(warmup=False), None, precision=precision
    )

    assert ("configs/cpu.pbtxt" in files.beside) == served


@pytest.fixture(scope="module")
def convkit(tmp_path_factory: pytest.TempPathFactory) -> Command:
    return Command(tmp_path_factory.mktemp("cache"))


def options(target: str) -> tuple[str, ...]:
    data = str(SAMPLES / "digits_cnn" / "calibration.npz")
    return ("--trust", "--to", target, "--quantize", "fp8", "--calibration-data", data)


def test_a_sample_model_is_converted_from_end_to_end(convkit: Command, tmp_path: Path) -> None:
    done = convkit.converted(SAMPLES / "digits_cnn", *options("tensorrt"), "-o", tmp_path)

    pending = tmp_path / "digits_cnn" / "pending" / "1"
    report = json.loads((pending / "report.json").read_text())
    proto = onnx.load(str(pending / "model.onnx"))
    assert done.result["engine"] == "deferred"
    assert done.result["verification"]["outputs"][0]["sqnr_db"] > 18
    assert json.loads((pending / "build.json").read_text())["precision"] == "fp8"
    assert any("8.9" in fact for fact in report["measured_how"])
    [on_cpu] = pending.rglob("cpu.pbtxt")
    assert parse(on_cpu.read_text()).optimization.graph.level == 2  # ONNX Runtime leaves the graph as it is written
    [final] = [subject for subject in report["subjects"] if subject["role"] == "final"]
    assert final["emulated"]
    assert final["macs"]["fp8"] > 0.9 * sum(final["macs"].values())
    stored = [tensor for tensor in proto.graph.initializer if tensor.data_type == TensorProto.FLOAT8E4M3FN]
    weights = [tensor for tensor in stored if tensor.name.endswith("__quantized")]
    assert sum(int(np.prod(tensor.dims)) for tensor in weights) > 20_000


def test_a_method_that_weighs_even_steps_is_refused(convkit: Command, tmp_path: Path) -> None:
    outcome = convkit.convert(
        SAMPLES / "digits_cnn", *options("tensorrt"), "--calibration-method", "entropy", "-o", tmp_path
    )

    assert outcome.exit_status == 2
    assert outcome.result["error"]["code"] == "quantize.method"
    assert outcome.result["error"]["hint"] == "use minmax or percentile"


def test_a_cpu_target_is_refused_before_anything_runs(convkit: Command, tmp_path: Path) -> None:
    outcome = convkit.convert(SAMPLES / "digits_cnn", *options("onnxruntime"), "-o", tmp_path)

    assert outcome.exit_status == 2
    assert outcome.result["error"]["code"] == "quantize.impossible"
    assert outcome.result["stages"] == []
