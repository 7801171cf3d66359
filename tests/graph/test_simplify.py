"""Simplifying leaves a graph smaller or as it was, with the same face and the same answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from sources.onnx_files import FLOAT, MATMUL, WEIGHT, X, Y, model, node, value

from convkit.errors import StepError
from convkit.graph import simplify as room
from convkit.graph.model import Model, load_model, save_model
from convkit.graph.names import undefined
from convkit.graph.present import interface_of
from convkit.graph.samples import make_cases
from convkit.graph.session import open_session, run_session
from convkit.graph.simplify import Simplified, simplify, something_to_simplify
from convkit.spec.options import Simplifier

BOTH = (Simplifier.ONNXSLIM, Simplifier.ONNXSIM)
IMAGE = value("x", FLOAT, ["batch", 3, 8, 8])


def weights(*shapes: tuple[str, tuple[int, ...]]) -> list[onnx.TensorProto]:
    generator = np.random.default_rng(0)
    return [numpy_helper.from_array(np.abs(generator.standard_normal(s)).astype(np.float32), n) for n, s in shapes]


def saved(proto: onnx.ModelProto) -> Model:
    return save_model(proto, interface_of(proto))


def simplified(proto: onnx.ModelProto, chain: tuple[Simplifier, ...] = BOTH) -> Simplified:
    """Simplify, and hold the answers of both graphs against each other at two sizes."""
    before = saved(proto)
    result = simplify(before, chain=chain)
    outputs = tuple(spec.name for spec in before.interface.outputs)
    for case in make_cases(before.interface, None):
        old, new = (run_session(open_session(each.path, plain=True), outputs, case) for each in (before, result.model))
        for name in outputs:
            np.testing.assert_allclose(new[name], old[name], rtol=1e-4, atol=1e-5)
    onnx.checker.check_model(result.model.path)
    assert result.after.nodes <= result.before.nodes
    assert result.model.interface == before.interface
    return result


NORMALIZED = model(
    [
        node("Conv", ["x", "w"], ["c"]),
        node("BatchNormalization", ["c", "scale", "bias", "mean", "var"], ["n"]),
        node("Identity", ["n"], ["y"]),
    ],
    [IMAGE],
    [value("y", FLOAT, ["batch", 4, 6, 6])],
    weights(("w", (4, 3, 3, 3)), ("scale", (4,)), ("bias", (4,)), ("mean", (4,)), ("var", (4,))),
)


@pytest.mark.parametrize("chain", [BOTH, BOTH[:1], BOTH[1:]], ids=["both", "onnxslim", "onnxsim"])
def test_a_normalization_goes_into_its_convolution_and_nodes_that_do_nothing_go(chain: tuple[Simplifier, ...]) -> None:
    result = simplified(NORMALIZED, chain)

    assert result.after.operators == {"Conv": 1}
    assert result.applied[0] == f"{chain[0].value}: 3 nodes became 1"


def test_a_graph_that_is_minimal_is_handed_on_as_it_is() -> None:
    before = saved(model())
    result = simplify(before, chain=BOTH)

    assert result.model == before
    assert result.applied == tuple(
        f"{name}: left out, the graph has nothing to fold or fuse" for name in ("onnxslim", "onnxsim")
    )


def test_an_empty_chain_leaves_the_graph_as_it_was_exported() -> None:
    before = saved(NORMALIZED)

    assert simplify(before, chain=()).model == before


def test_arithmetic_on_shapes_is_folded_and_the_batch_stays_free() -> None:
    proto = model(
        [
            node("Shape", ["x"], ["shape"]),
            node("Gather", ["shape", "first"], ["batch"]),
            node("Unsqueeze", ["batch", "axis"], ["rows"]),
            node("Concat", ["rows", "rest"], ["target"], axis=0),
            node("Reshape", ["x", "target"], ["y"]),
        ],
        [value("x", FLOAT, ["batch", 3, 8, 8])],
        [value("y", FLOAT, ["batch", 192])],
        [numpy_helper.from_array(np.array(v), n) for n, v in (("first", 0), ("axis", [0]), ("rest", [-1]))],
    )
    result = simplified(proto)

    assert result.after.nodes < result.before.nodes
    assert str(result.model.interface.inputs[0]) == "x float32[batch, 3, 8, 8]"


def test_large_weights_that_nothing_folds_pass_through_untouched() -> None:
    large = numpy_helper.from_array(np.random.default_rng(0).standard_normal((4, 3000)).astype(np.float32), "w")
    proto = model(
        [node("MatMul", ["x", "w"], ["a"]), node("Identity", ["a"], ["y"])],
        outputs=[value("y", FLOAT, ["N", 3000])],
        weights=[large],
    )
    result = simplified(proto)

    assert result.after.operators == {"MatMul": 1}
    [weight] = load_model(result.model).graph.initializer
    assert (numpy_helper.to_array(weight) == numpy_helper.to_array(large)).all()


def test_branches_and_loops_hold() -> None:
    from graph.test_names import branching

    row = ["N", 4]
    body = helper.make_graph(
        [node("Identity", ["go"], ["on"]), node("Add", ["total", "x"], ["sum"])],
        "body",
        [value("i", onnx.TensorProto.INT64, []), value("go", onnx.TensorProto.BOOL, []), value("total", FLOAT, row)],
        [value("on", onnx.TensorProto.BOOL, []), value("sum", FLOAT, row)],
    )
    loop = model(
        [node("Loop", ["times", "", "x"], ["y"], body=body)],
        [X],
        [value("y", FLOAT, row)],
        [numpy_helper.from_array(np.array(3), "times")],
    )

    simplified(branching())
    simplified(loop)


def test_sparse_weights_are_not_lost() -> None:
    proto = model([node("MatMul", ["x", "w"], ["a"]), node("Identity", ["a"], ["y"])], weights=[])
    values = numpy_helper.from_array(np.array([1, 2, 3], np.float32), "w")
    places = numpy_helper.from_array(np.array([0, 5, 7]), "places")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4, 3]))

    assert "they lose sparse weights" in simplified(proto).applied[0]


def test_two_random_numbers_are_not_taken_for_one() -> None:
    proto = model(
        [
            node("RandomNormalLike", ["x"], ["a"]),
            node("RandomNormalLike", ["x"], ["b"]),
            node("Sub", ["a", "b"], ["y"]),
        ],
        outputs=[value("y", FLOAT, ["N", 4])],
        weights=[],
    )
    result = simplify(saved(proto), chain=BOTH)

    assert result.after.operators["RandomNormalLike"] == 2


def test_a_simplifier_that_gains_nothing_or_changes_the_face_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def renamed(proto: onnx.ModelProto) -> onnx.ModelProto:
        other = onnx.ModelProto()
        other.CopyFrom(proto)
        del other.graph.node[1:]
        other.graph.output[0].name = "another"
        return other

    for fake in (renamed, lambda proto: None, lambda proto: proto):
        monkeypatch.setitem(room.SIMPLIFIERS, Simplifier.ONNXSLIM, fake)
        before = saved(NORMALIZED)
        result = simplify(before, chain=BOTH[:1])
        assert result.model == before
        assert result.applied == ("onnxslim: nothing gained",)


def test_a_simplifier_that_loses_a_tensor_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def losing(proto: onnx.ModelProto) -> onnx.ModelProto:
        other = onnx.ModelProto()
        other.CopyFrom(proto)
        del other.graph.node[0]
        return other

    monkeypatch.setitem(room.SIMPLIFIERS, Simplifier.ONNXSLIM, losing)
    result = simplified(NORMALIZED)

    assert result.applied[0] == "onnxslim: left out, it would lose 'c'"
    assert result.after.nodes < result.before.nodes


def test_a_branch_may_read_what_stands_around_it_and_nothing_else() -> None:
    def branch(name: str, read: str) -> onnx.GraphProto:
        return helper.make_graph([node("Identity", [read], [name])], name, [], [value(name, FLOAT, [2])])

    condition = value("c", onnx.TensorProto.BOOL, [])
    for read, lost in (("x", None), ("hidden", "hidden")):
        both = {"then_branch": branch("t", "x"), "else_branch": branch("e", read)}
        graph = helper.make_graph(
            [node("If", ["c"], ["y"], **both)], "g", [condition, value("x", FLOAT, [2])], [value("y", FLOAT, [2])]
        )
        assert undefined(graph) == lost


def test_a_simplifier_that_fails_is_named_with_the_way_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(proto: onnx.ModelProto) -> onnx.ModelProto:
        raise IndexError("list index\nout of range")

    monkeypatch.setitem(room.SIMPLIFIERS, Simplifier.ONNXSLIM, broken)

    with pytest.raises(StepError, match="onnxslim fails on this graph: IndexError: list index out of range") as failed:
        simplify(saved(NORMALIZED), chain=BOTH)
    assert "simplify.chain=[]" in failed.value.hint


def test_the_file_that_goes_on_keeps_its_ir_version_and_tells_nothing_of_this_machine(tmp_path: Path) -> None:
    result = simplified(NORMALIZED)
    proto = load_model(result.model)

    assert proto.ir_version == NORMALIZED.ir_version
    assert str(tmp_path).encode() not in result.model.path.read_bytes()


OPPORTUNITIES = {
    "a node that does nothing (Identity)": [MATMUL, node("Identity", ["y"], ["z"])],
    "a constant expression (Neg)": [node("Neg", ["w"], ["v"]), node("MatMul", ["x", "v"], ["z"])],
    "arithmetic on shapes (Shape)": [node("Shape", ["x"], ["z"])],
    "transposes in a row": [node("Transpose", ["x"], ["t"]), node("Transpose", ["t"], ["z"])],
    "the same node twice": [node("Relu", ["x"], ["a"]), node("Relu", ["x"], ["b"]), node("Add", ["a", "b"], ["z"])],
}


@pytest.mark.parametrize("reason", OPPORTUNITIES)
def test_what_could_be_simplified_is_seen(reason: str) -> None:
    assert something_to_simplify(model(OPPORTUNITIES[reason], [X], [Y], [WEIGHT])) == reason
