"""Where the time goes: what the profilers tell, and how the report says it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from convkit.graph.model import Model, save_model, save_tensors
from convkit.graph.operator_times import Ran, middle_half, operator_times
from convkit.measure.operators import profile_onnxruntime
from convkit.report.document import Profile
from convkit.report.operator_sheet import operator_sections, short_name
from convkit.report.render import Format, render
from convkit.sources.source import Profiling
from convkit.sources.tensorflow_open import TensorFlowModel
from convkit.sources.torch_file import ProgramFile, TorchFile
from convkit.sources.torch_profile import profiled_calls
from convkit.spec.tensor import DType, Interface, TensorSpec
from tests.report.samples import INT8, faster_report, with_verdict


def network() -> Model:
    """A convolution, a Relu that can be fused into it, and a Softmax that cannot."""
    weights = numpy_helper.from_array(np.ones((16, 8, 3, 3), np.float32), "weights")
    nodes = [
        helper.make_node("Conv", ["x", "weights"], ["sums"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["sums"], ["positive"], name="second"),
        helper.make_node("Softmax", ["positive"], ["y"], name="third"),
    ]
    dims = {"x": [1, 8, 64, 64], "y": [1, 16, 64, 64]}
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in dims.items()}
    graph = helper.make_graph(nodes, "g", [values["x"]], [values["y"]], [weights])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(proto)
    x, y = (TensorSpec(name=name, dtype=DType.FLOAT32, dims=tuple(shape)) for name, shape in dims.items())
    return save_model(proto, Interface(inputs=(x,), outputs=(y,)))


def test_onnxruntime_tells_what_is_slow_and_what_it_fused() -> None:
    inputs = save_tensors([{"x": np.ones((1, 8, 64, 64), np.float32)}])

    times = profile_onnxruntime(network(), inputs=inputs, seconds=0.02)

    assert times.written == {"Conv": 1, "Relu": 1, "Softmax": 1}
    assert times.ran == {"FusedConv": 1, "Softmax": 1}
    assert {"Conv", "Softmax"} <= {each.operator for each in times.types}
    assert sum(each.ms for each in times.types) == pytest.approx(times.total_ms)
    assert sum(each.ms for each in times.slowest) == pytest.approx(times.total_ms)
    assert [each.ms for each in times.slowest] == sorted((each.ms for each in times.slowest), reverse=True)
    assert times.seen_by.startswith("ONNX Runtime ")


def test_torchs_profiler_tells_operators_by_their_shapes_and_counts_no_time_twice() -> None:
    torch = pytest.importorskip("torch")
    layer = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())

    times = profiled_calls(lambda: layer(torch.ones(1, 3, 32, 32)), 0.02)

    convolution = next(each for each in times.slowest if "conv" in each.operator)
    assert convolution.name == "1x3x32x32 4x3x3x3"
    assert sum(each.ms for each in times.types) == pytest.approx(times.total_ms)


@pytest.mark.parametrize("source", [TensorFlowModel, TorchFile, ProgramFile])
def test_every_framework_of_our_own_can_be_profiled(source: type) -> None:
    assert issubclass(source, Profiling)


def test_calls_that_a_neighbour_disturbed_do_not_count() -> None:
    calls = [[Ran("a", "Conv", ms)] for ms in (1.0, 900.0, 1.1, 0.2)]

    assert [call[0].ms for call in middle_half(calls)] == [1.0, 1.1]
    assert middle_half(calls[:1]) == calls[:1]


def test_times_are_those_of_one_call_and_an_operator_in_a_loop_counts_all_its_runs() -> None:
    runs = [Ran("a", "Conv", 2.0), Ran("a", "Conv", 4.0), Ran("b", "Conv", 1.0), Ran("c", "Relu", 1.0)]

    times = operator_times(runs, calls=2, seen_by="someone")

    assert [(each.name, each.ms) for each in times.slowest] == [("a", 3.0), ("b", 0.5), ("c", 0.5)]
    assert [(each.operator, each.ms, each.count) for each in times.types] == [("Conv", 3.5, 2), ("Relu", 0.5, 1)]
    assert times.total_ms == 4.0
    assert times.share(times.slowest[0].ms) == 0.75


def test_the_report_names_slow_operators_their_types_and_what_was_fused() -> None:
    times = operator_times(
        [Ran("features/conv1/Conv", "FusedConv", 3.0), Ran("probs", "Softmax", 1.0)],
        calls=1,
        seen_by="ONNX Runtime 1.31.1",
        written={"Conv": 1, "Relu": 1, "Softmax": 1},
        ran={"FusedConv": 1, "Softmax": 1},
    )
    report = with_verdict(faster_report(), profiles=(Profile(label=INT8, times=times),))

    (section,) = operator_sections(report)
    assert section.lines == (
        "By type: FusedConv 75.0 % (1), Softmax 25.0 % (1).",
        "The optimizer made 2 operators of 3. Made: 1 FusedConv. Gone: 1 Conv, 1 Relu.",
    )
    assert section.table is not None
    assert section.table.rows[0] == ("features/conv1/Conv", "FusedConv", "3.00 ms", "75.0 %")
    for form in (Format.TERMINAL, Format.MARKDOWN, Format.HTML):
        assert "Where the time goes: ONNX INT8" in render(report, form)
    assert max(map(len, render(report, Format.TERMINAL, width=60).splitlines())) <= 60


def test_a_long_name_keeps_its_end() -> None:
    assert short_name("a/" * 40 + "Conv").endswith("a/a/Conv")
    assert len(short_name("a" * 200)) == 48
    assert short_name("short") == "short"
