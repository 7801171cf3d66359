"""Finding the node at fault, and cutting it out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from convkit.graph.model import read_npz
from convkit.graph.session import open_session
from convkit.measure.bisect import Bisection, bisect
from convkit.spec.options import CheckOptions
from tests.compare.graphs import chain, quantized_chain, samples_of, saved, saved_beside
from tests.compare.random_graphs import RandomGraph, plant_fault

FP32 = CheckOptions()


def found_in(before: onnx.ModelProto, after: onnx.ModelProto, options: CheckOptions = FP32) -> Bisection:
    return bisect(saved(before), saved(after), samples=samples_of(before), options=options)


def difference_of(found: Bisection) -> tuple[np.ndarray, np.ndarray]:
    """What the cut-out model gives for the inputs beside it, and what it should give."""
    assert found.files is not None
    assert found.found is not None
    data = read_npz(found.files.file("model.npz"))
    onnx.checker.check_model(onnx.load(found.files.file("model.onnx")), full_check=True)
    session = open_session(found.files.file("model.onnx"), plain=True)
    [given] = session.run(None, {value.name: data[value.name] for value in session.get_inputs()})
    return given, data[found.found.difference.name]


def test_of_fifty_planted_faults_at_least_48_are_named_in_about_log2_n_runs() -> None:
    missed = []
    for seed in range(50):
        model = RandomGraph(seed).model
        samples = samples_of(model, seed=seed)
        image = [case["image"] for case in samples][-1]
        spoilt, node = plant_fault(model, np.random.default_rng(seed), image)

        found = bisect(saved(model), saved(spoilt), samples=samples, options=FP32)

        assert 10 <= len(model.graph.node) <= 60
        assert found.runs <= math.ceil(math.log2(found.tensors)) + 2
        if found.found is None or found.found.node != node:
            missed.append((seed, node, found.found))
            continue
        assert found.found.nodes == (node,)
        given, expected = difference_of(found)
        assert given.shape == expected.shape
        assert np.abs(given - expected).max() == pytest.approx(found.found.difference.max_abs)
    assert len(missed) <= 2, missed


def test_the_same_model_twice_parts_nowhere() -> None:
    model = RandomGraph(3).model

    found = found_in(model, model)

    assert (found.found, found.files, found.outputs_agree) == (None, None, True)


def test_of_two_faults_one_is_named_whose_inputs_agree() -> None:
    model = chain("Relu", "Add", "Mul", "Add", "Mul", "Relu")
    spoilt = chain("Relu", "Sub", "Mul", "Add", "Div", "Relu")

    found = found_in(model, spoilt).found

    assert found is not None
    assert found.node in ("/1/Sub", "/4/Div")
    assert found.inputs == ("t0",) if found.node == "/1/Sub" else ("t3",)


def test_a_difference_that_dies_out_before_the_outputs_is_found_too() -> None:
    model, spoilt = chain("Add", "Exp", "Sign", "Mul"), chain("Sub", "Exp", "Sign", "Mul")

    found = found_in(model, spoilt)

    assert found.outputs_agree
    assert found.found is not None
    assert found.found.node == "/0/Sub"


def test_a_fault_in_a_branch_that_no_output_needs_is_none() -> None:
    model, spoilt = chain("Relu", "Add"), chain("Relu", "Add")
    for graph, operator in ((model.graph, "Exp"), (spoilt.graph, "Neg")):
        graph.node.append(helper.make_node(operator, ["t0"], ["unread"], name="/unread"))

    assert found_in(model, spoilt).found is None


def test_nodes_that_only_the_later_graph_has_belong_to_the_tensor_behind_them() -> None:
    model = chain("Relu", "Add", "Mul")
    detour = chain("Relu", "Add", "Mul")
    detour.graph.node[1].input[0] = "halved"
    detour.graph.node.insert(1, helper.make_node("Div", ["t0", "shift"], ["halved"], name="/detour"))

    found = found_in(model, detour).found

    assert found is not None
    assert (found.node, found.operator) == ("/1/Add", "Add")
    assert found.inputs == ("t0",)
    assert found.nodes == ("/detour", "/1/Add")


def test_in_a_quantized_graph_the_node_is_named_whose_rounding_costs_most() -> None:
    model = chain("Mul", "Add", "Relu", "Mul", "Add")
    good = quantized_chain("Mul", "Add", "Relu", "Mul", "Add")
    bad = quantized_chain("Mul", "Add", "Relu", "Mul", "Add", coarse=3)

    assert found_in(model, good, CheckOptions(min_sqnr=20)).found is None
    found = found_in(model, bad, CheckOptions(min_sqnr=20))
    assert found.found is not None
    assert found.found.node == "/3/Mul"
    assert found.found.nodes == ("/3/Mul", "t3/quantize", "t3/dequantize")
    assert (found.found.difference.name, found.found.against) == ("t3/rounded", "t3")
    given, expected = difference_of(found)
    assert np.abs(given - expected).max() == pytest.approx(found.found.difference.max_abs)


def test_what_the_body_of_a_condition_reads_from_around_it_becomes_an_input() -> None:
    def branching(operator: str) -> onnx.ModelProto:
        model = chain("Relu", "Add", "Mul")
        value = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
        bodies = [
            helper.make_graph([helper.make_node(kind, ["t0", "shift"], ["inner"])], "body", [], [value])
            for kind in (operator, "Mul")
        ]
        truth = helper.make_node("Constant", [], ["truth"], value=numpy_helper.from_array(np.array(True)))
        chosen = helper.make_node("If", ["truth"], ["t1"], name="/if", then_branch=bodies[0], else_branch=bodies[1])
        del model.graph.node[1]
        model.graph.node.insert(1, truth)
        model.graph.node.insert(2, chosen)
        return model

    found = found_in(branching("Add"), branching("Sub"))

    assert found.found is not None
    assert found.found.node == "/if"
    assert found.found.inputs == ("t0",)
    given, expected = difference_of(found)
    assert np.abs(given - expected).max() == pytest.approx(found.found.difference.max_abs)


def test_weights_beside_the_graph_are_read_and_come_into_the_cut_out_model() -> None:
    model, spoilt = chain("Relu", "Add", "Mul"), chain("Relu", "Sub", "Mul")

    found = bisect(saved_beside(model), saved_beside(spoilt), samples=samples_of(model), options=FP32)

    assert found.found is not None
    assert found.found.node == "/1/Sub"
    assert found.files is not None
    assert found.files.files == ("model.npz", "model.onnx")
    given, expected = difference_of(found)
    assert np.abs(given - expected).max() == pytest.approx(found.found.difference.max_abs)


def test_a_fault_that_gives_another_shape_is_found() -> None:
    model, spoilt = chain("Relu", "Transpose", "Flatten"), chain("Relu", "Transpose", "Flatten")
    spoilt.graph.node[1].attribute.append(helper.make_attribute("perm", [0, 1, 2]))

    found = found_in(model, spoilt).found

    assert found is not None
    assert found.node == "/1/Transpose"
    assert found.difference.max_abs is None


def test_nothing_is_written_but_into_the_steps_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    found_in(chain("Relu", "Add"), chain("Relu", "Sub"))

    assert list(tmp_path.iterdir()) == []
