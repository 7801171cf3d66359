"""Large weights lie beside an ONNX file, or are moved there, and are copied in pieces into the model that goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from convkit.errors import InputError
from convkit.graph import external, session, simplify, weights
from convkit.graph.model import Model
from convkit.graph.opset import raise_opset
from convkit.graph.set_aside import set_weights_aside
from convkit.measure.compare import compare_outputs
from convkit.sources import onnx as onnx_source
from convkit.sources import open as opening
from convkit.sources.exported import Exported
from convkit.sources.find import find_model
from convkit.sources.open import open_source
from convkit.spec.options import CheckOptions, ExportOptions, Precision, Simplifier
from convkit.targets.onnxruntime import time_onnxruntime

SIDE = 64


@pytest.fixture(autouse=True)
def every_model_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (external, weights, simplify, opening):
        monkeypatch.setattr(module, "EXTERNAL_ABOVE", SIDE)
    onnx_source._runnable.clear()


def run(step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a step as a plain function."""
    return step(*args, **kwargs)


def write(folder: Path, *, opset: int = 17, ir_version: int = 8, inside: bool = False, data: str = "net.bin") -> Path:
    """A product and a sum, two weights in one file beside the graph, or `inside` of it, a third within a branch."""
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
    if inside:
        onnx.save(proto, folder / "net.onnx")
    else:
        onnx.save(proto, folder / "net.onnx", save_as_external_data=True, location=data, size_threshold=1024)
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


@pytest.mark.parametrize("inside", [True, False])
def test_large_weights_are_copied_beside_the_graph_and_small_ones_into_it(inside: bool, tmp_path: Path) -> None:
    made = imported(write(tmp_path / "source", inside=inside))

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


def test_nothing_parses_a_large_file_before_its_weights_are_moved_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    load, check = onnx.load, onnx.checker.check_model

    def note(path: Any) -> None:
        if isinstance(path, str | Path):
            read.append(Path(path).stat().st_size)

    monkeypatch.setattr(onnx, "load", lambda path, **kwargs: (note(path), load(path, **kwargs))[1])
    monkeypatch.setattr(onnx.checker, "check_model", lambda path, **kwargs: (note(path), check(path, **kwargs))[1])
    opened = session.open_session
    monkeypatch.setattr(onnx_source, "open_session", lambda path, **kwargs: (note(path), opened(path, **kwargs))[1])
    file = write(tmp_path / "source", inside=True)
    imported(file)

    assert len(read) >= 3
    assert max(read) < file.stat().st_size - 2 * 4 * SIDE * SIDE + 1024


def light(file: Path, folder: Path) -> onnx.ModelProto:
    folder.mkdir()
    set_weights_aside(file, folder / "net.onnx", "net.onnx.data")
    return onnx.load(folder / "net.onnx", load_external_data=False)


def test_weights_moved_out_are_the_same_weights_and_everything_else_is_as_it_was(tmp_path: Path) -> None:
    file = write(tmp_path / "source", inside=True)
    proto = light(file, tmp_path / "light")

    assert [weight.data_location for weight in proto.graph.initializer] == [TensorProto.EXTERNAL] * 2 + [0] * 2
    whole = onnx.load(tmp_path / "light" / "net.onnx")
    for weight in whole.graph.initializer:
        weight.ClearField("data_location")  # what reads it says that it lies inside now
    assert whole == onnx.load(file)


def test_weights_in_typed_fields_are_moved_out_where_their_encoding_is_that_of_raw_data(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).standard_normal(SIDE * SIDE)
    kinds = {
        "f": (TensorProto.FLOAT, numbers),
        "d": (TensorProto.DOUBLE, numbers),
        "i": (TensorProto.INT64, numbers.astype(int)),
    }
    held = [helper.make_tensor(name, kind, [SIDE, SIDE], list(values)) for name, (kind, values) in kinds.items()]
    proto = helper.make_model(helper.make_graph([], "typed", [], [], held))
    file = tmp_path / "typed.onnx"
    file.write_bytes(proto.SerializeToString())

    moved = light(file, tmp_path / "light")

    beside = {weight.name: weight.data_location == TensorProto.EXTERNAL for weight in moved.graph.initializer}
    assert beside == {"f": True, "d": True, "i": False}
    for weight, before in zip(onnx.load(tmp_path / "light" / "net.onnx").graph.initializer, held, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(weight), numpy_helper.to_array(before))


def test_weights_whose_data_are_not_of_the_size_that_their_shape_asks_for_stay_for_the_checker_to_refuse(
    tmp_path: Path,
) -> None:
    file = write(tmp_path / "source", inside=True)
    proto = onnx.load(file)
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-4]
    onnx.save(proto, file)

    moved = light(file, tmp_path / "light")

    assert moved.graph.initializer[0].raw_data == proto.graph.initializer[0].raw_data
    with pytest.raises(InputError) as caught:
        imported(file)
    assert caught.value.code == "source.invalid"


def test_files_that_hold_weights_already_come_along_with_those_that_are_moved_out(tmp_path: Path) -> None:
    file = write(tmp_path / "source", data="net.onnx.data")
    proto = onnx.load(file, load_external_data=False)
    proto.graph.initializer[1].CopyFrom(onnx.load(file).graph.initializer[1])
    file.write_bytes(proto.SerializeToString())

    made = imported(file)

    assert made.model.files.files == ("model.onnx", "model.onnx.data")


def test_a_data_file_that_ends_too_early_is_named(tmp_path: Path) -> None:
    writer = weights.ModelWriter(expected_bytes=SIDE + 1)
    (tmp_path / "short").write_bytes(bytes(5000))

    with pytest.raises(InputError, match=r"'w'.*ends 3192 bytes too early"):
        writer.add_from(TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2048]), tmp_path / "short", 0, 8192)


def test_a_large_graph_is_simplified_around_its_weights(tmp_path: Path) -> None:
    made = imported(write_with_a_detour(tmp_path / "source"))

    simplified = simplify.simplify(made.model, chain=(Simplifier.ONNXSLIM,))

    assert simplified.after.nodes < simplified.before.nodes
    assert simplified.model.files.files == ("model.onnx", "model.onnx.data")
    verification = compare_outputs(
        simplified.model,
        samples=made.samples,
        references=made.references,
        precision=Precision.NONE,
        options=CheckOptions(),
    )
    assert verification.passed


def test_a_large_graph_whose_weights_a_simplifier_would_fold_is_left_as_it_is(tmp_path: Path) -> None:
    made = imported(write_with_a_detour(tmp_path / "source", of_weight=True))

    simplified = simplify.simplify(made.model, chain=(Simplifier.ONNXSLIM,))

    assert "too large" in simplified.applied[0]
    assert simplified.model == made.model


def write_with_a_detour(folder: Path, *, of_weight: bool = False) -> Path:
    """A product with a node before it that does nothing; `of_weight`: and one that can be computed of the weight."""
    numbers = np.random.default_rng(1).standard_normal((3 * SIDE, 3 * SIDE)).astype(np.float32)
    weight = numpy_helper.from_array(numbers, "w")
    f = TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(name, f, ["N", 3 * SIDE]) for name in "xy"]
    nodes = [
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node("Transpose", ["w"], ["v"], perm=[1, 0]),
        helper.make_node("MatMul", ["a", "v" if of_weight else "w"], ["y"]),
    ]
    graph = helper.make_graph(nodes if of_weight else [nodes[0], nodes[2]], "detour", ends[:1], ends[1:], [weight])
    folder.mkdir()
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "net.onnx")
    return folder / "net.onnx"


def test_the_opset_of_a_large_model_is_raised_without_its_weights(tmp_path: Path) -> None:
    made = imported(write(tmp_path / "source"))

    raised = raise_opset(made.model, opset=21)

    assert opset_of(raised) == 21
    assert raised.files.files == ("model.onnx", "model.onnx.data")
    first, second = (
        {weight.name: weight for weight in onnx.load(path).graph.initializer} for path in (raised.path, made.model.path)
    )
    assert first == second
