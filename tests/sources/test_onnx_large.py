"""Large weights beside an ONNX file stay there until they are copied, one by one, into the model that goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from convkit.graph import external, session, weights
from convkit.graph.model import Model
from convkit.measure.compare import compare_outputs
from convkit.sources import onnx as onnx_source
from convkit.sources.exported import Exported
from convkit.sources.find import find_model
from convkit.sources.open import open_source
from convkit.spec.options import CheckOptions, ExportOptions, Precision
from convkit.targets.onnxruntime import time_onnxruntime

SIDE = 64


@pytest.fixture(autouse=True)
def every_model_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (external, weights):
        monkeypatch.setattr(module, "EXTERNAL_ABOVE", SIDE)
    onnx_source._runnable.clear()


def run(step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a step as a plain function."""
    return step(*args, **kwargs)


def write(folder: Path, *, opset: int = 17, ir_version: int = 8) -> Path:
    """A product and a sum, two weights in one file beside the graph, a third within a branch."""
    draw = np.random.default_rng(3).standard_normal
    arrays = {name: draw((SIDE, SIDE)).astype(np.float32) for name in ("w", "v", "inner")}
    f = TensorProto.FLOAT
    branches = {
        name: helper.make_graph(
            [helper.make_node("MatMul", ["h", "inner" if name == "then_branch" else "v"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, f, ["N", SIDE])],
            [numpy_helper.from_array(arrays["inner"], "inner")] if name == "then_branch" else [],
        )
        for name in ("then_branch", "else_branch")
    }
    total = helper.make_node("ReduceSum", ["g"], ["y"], axes=[1], keepdims=0)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "product"),
        helper.make_node("If", ["yes"], ["g"], "choice", **branches),
        total if opset < 13 else helper.make_node("ReduceSum", ["g", "axes"], ["y"], keepdims=0),
    ]
    own = [numpy_helper.from_array(arrays[name], name) for name in "wv"]
    small = [numpy_helper.from_array(np.array(True), "yes"), numpy_helper.from_array(np.array([1]), "axes")]
    ends = [helper.make_tensor_value_info("x", f, ["N", SIDE]), helper.make_tensor_value_info("y", f, ["N"])]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], own + small[: 1 if opset < 13 else 2])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    folder.mkdir(exist_ok=True)
    onnx.save(proto, folder / "net.onnx", save_as_external_data=True, location="net.bin", size_threshold=1024)
    return folder / "net.onnx"


def imported(file: Path, *, max_opset: int = 21, **options: Any) -> Exported:
    source = open_source(find_model(file), None, ExportOptions(**options), (), "convkit convert")
    made: Exported = source.export(run, samples=None, max_opset=max_opset)
    verification = compare_outputs(
        made.model, samples=made.samples, references=made.references, precision=Precision.NONE, options=CheckOptions()
    )
    assert verification.passed
    onnx.checker.check_model(made.model.path, full_check=True)
    return made


def opset_of(model: Model) -> int:
    proto = onnx.load(model.path, load_external_data=False)
    return next(entry.version for entry in proto.opset_import if not entry.domain)


def test_large_weights_are_copied_beside_the_graph_and_small_ones_into_it(tmp_path: Path) -> None:
    made = imported(write(tmp_path / "source"))

    assert made.model.files.files == ("model.onnx", "model.onnx.data")
    proto = onnx.load(made.model.path, load_external_data=False)
    beside = {weight.name for weight in proto.graph.initializer if weight.data_location == TensorProto.EXTERNAL}
    assert beside == {"w", "v"}


@pytest.mark.parametrize(
    ("has", "options", "becomes"), [(11, {}, 18), (17, {"opset": 21}, 21), (21, {"opset": 17}, 17)]
)
def test_the_opset_of_a_graph_with_weights_beside_it_is_converted_in_both_directions(
    has: int, options: dict[str, int], becomes: int, tmp_path: Path
) -> None:
    made = imported(write(tmp_path / "source", opset=has), **options)

    assert opset_of(made.model) == becomes
    assert made.parameters >= 3 * SIDE * SIDE


def test_a_newer_opset_than_the_server_reads_is_lowered_with_weights_beside_it(tmp_path: Path) -> None:
    made = imported(write(tmp_path / "source", opset=21, ir_version=10), max_opset=20)

    assert opset_of(made.model) == 20


def test_a_new_ir_version_is_lowered_with_weights_beside_it(tmp_path: Path) -> None:
    made = imported(write(tmp_path / "source", ir_version=13))

    assert onnx.load(made.model.path, load_external_data=False).ir_version == 10


def test_the_session_of_a_large_model_is_the_only_one_that_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_kept", {})
    first, second = (imported(write(tmp_path / name)) for name in "ab")
    for large, kept in ((1 << 40, 2), (SIDE, 1)):
        monkeypatch.setattr(session, "LARGE", large)
        session._kept.clear()
        for made, number in ((first, 0), (second, 1)):
            assert time_onnxruntime(made.model, inputs=made.samples, seconds=0.001, session=number).latencies_ns
        assert len(session._kept) == kept
