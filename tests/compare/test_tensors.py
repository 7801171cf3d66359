"""Two graphs held against each other tensor by tensor."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from convkit.errors import InputError
from convkit.measure import tensors
from convkit.measure.tensors import TensorComparison, compare_tensors
from convkit.spec.options import CheckOptions, Precision
from tests.compare.graphs import chain, quantized_chain, samples_of, saved
from tests.compare.random_graphs import RandomGraph, plant_fault


def compared(before: onnx.ModelProto, after: onnx.ModelProto, options: CheckOptions | None = None) -> TensorComparison:
    samples = samples_of(before)
    return compare_tensors(saved(before), saved(after), samples=samples, options=options or CheckOptions())


def test_every_tensor_behind_a_fault_differs_and_none_before_it() -> None:
    found = compared(chain("Relu", "Add", "Mul", "Neg"), chain("Relu", "Sub", "Mul", "Neg"))

    assert [(one.name, one.operator, one.passed) for one in found.tensors] == [
        ("t0", "Relu", True),
        ("t1", "Sub", False),
        ("t2", "Mul", False),
        ("t3", "Neg", False),
    ]
    assert [one.max_abs for one in found.tensors] == pytest.approx([0, 6, 12, 12])
    assert [one.position for one in found.tensors] == [0, 1, 2, 3]
    assert [one.is_output for one in found.tensors] == [False, False, False, True]
    assert (found.cases, found.only_before, found.only_after) == (2, 0, 0)


def test_groups_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    before = RandomGraph(5).model
    image = [case["image"] for case in samples_of(before)][-1]
    after, _ = plant_fault(before, np.random.default_rng(5), image)
    whole = compared(before, after)

    monkeypatch.setattr(tensors, "_GROUP_BYTES", 1)
    one_by_one = compared(before, after)

    assert not all(one.passed for one in whole.tensors)
    assert len(whole.tensors) > 16
    assert one_by_one == whole


def test_outputs_of_other_names_are_paired_by_position() -> None:
    before, after = chain("Relu", "Add", outputs=("t0",)), chain("Relu", "Add", outputs=("t0",))
    after.graph.node[0].output[0] = after.graph.node[1].input[0] = after.graph.output[0].name = "first"
    after.graph.node[1].output[0] = after.graph.output[1].name = "second"

    found = compared(before, after)

    assert [(one.name, one.against) for one in found.tensors] == [("first", "t0"), ("second", "t1")]
    assert all(one.passed for one in found.tensors)


def test_an_output_is_not_paired_with_an_inner_tensor_of_its_name() -> None:
    before, after = chain("Relu", "Add", "Mul"), chain("Relu", "Add", "Mul")
    after.graph.node[2].output[0] = after.graph.output[0].name = "t1"
    after.graph.node[1].output[0] = after.graph.node[2].input[0] = "t2"

    found = compared(before, after)

    assert [(one.name, one.against) for one in found.tensors] == [("t0", "t0"), ("t1", "t2")]
    assert all(one.passed for one in found.tensors)


def test_models_with_other_numbers_of_outputs_are_refused() -> None:
    with pytest.raises(InputError) as refused:
        compared(chain("Relu", "Add"), chain("Relu", "Add", outputs=("t0",)))

    assert refused.value.code == "compare.interface"


def test_behind_a_rounding_pair_the_rounded_tensor_is_held_against_the_original() -> None:
    found = compared(chain("Mul", "Add", "Relu"), quantized_chain("Mul", "Add", "Relu"))

    assert found.precision is Precision.INT8
    assert [(one.name, one.against, one.node) for one in found.tensors] == [
        ("t0/rounded", "t0", "/0/Mul"),
        ("t1/rounded", "t1", "/1/Add"),
        ("t2", "t2", "/2/Relu"),
    ]
    assert 0 < (found.tensors[0].max_abs or 0) <= 0.0501
    assert found.only_after == 4


def test_a_quantized_reference_is_taken_behind_its_rounding_too() -> None:
    found = compared(quantized_chain("Mul", "Add", "Relu"), chain("Mul", "Add", "Relu"))

    assert [(one.name, one.against) for one in found.tensors] == [
        ("t0", "t0/rounded"),
        ("t1", "t1/rounded"),
        ("t2", "t2"),
    ]


def test_an_activation_that_was_left_to_the_clipping_is_compared_behind_it() -> None:
    before, after = chain("Add", "Relu", "Mul"), quantized_chain("Add", "Relu", "Mul")
    zero = next(weight for weight in after.graph.initializer if weight.name == "t1/zero")
    zero.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(zero).astype("uint8"), "t1/zero"))
    add, quantize, dequantize, relu = after.graph.node[:4]
    assert [node.op_type for node in (add, quantize, dequantize, relu)][-1] == "Relu"
    relu.op_type = "Identity"

    found = compared(before, after, CheckOptions(max_error=0.2))

    assert [(one.name, one.passed) for one in found.tensors] == [
        ("t0/rounded", True),
        ("t1/rounded", True),
        ("t2", True),
    ]


def test_half_precision_behind_a_cast_is_held_against_what_was_cast() -> None:
    before, after = chain("Relu", "Exp"), chain("Relu", "Exp")
    after.graph.node[1].input[0] = "half"
    after.graph.node[1].output[0] = "t1_half"
    after.graph.node.insert(1, helper.make_node("Cast", ["t0"], ["half"], to=TensorProto.FLOAT16))
    after.graph.node.append(helper.make_node("Cast", ["t1_half"], ["t1"], to=TensorProto.FLOAT))

    found = compared(before, after, CheckOptions(min_sqnr=50))

    assert [(one.name, one.against) for one in found.tensors] == [("t0", "t0"), ("half", "t0"), ("t1", "t1")]
    assert all(one.passed for one in found.tensors)
    assert found.tensors[1].max_abs != 0


def test_what_does_not_depend_on_the_inputs_is_a_weight_and_no_tensor() -> None:
    before, after = chain("Relu", "Add"), chain("Relu", "Add")
    after.graph.node[1].input[1] = "twice"
    after.graph.node.insert(0, helper.make_node("Mul", ["scale", "shift"], ["twice"], name="/twice"))

    found = compared(before, after)

    assert [one.name for one in found.tensors] == ["t0", "t1"]
    assert [one.passed for one in found.tensors] == [True, False]
    assert found.only_after == 0


@pytest.mark.parametrize("operator", ["SequenceConstruct", "Cast"])
def test_what_numpy_cannot_hold_is_left_out(operator: str) -> None:
    def hidden() -> onnx.ModelProto:
        model = chain("Relu", "Add")
        if operator == "Cast":
            there = helper.make_node("Cast", ["t0"], ["inner"], to=TensorProto.BFLOAT16)
            back = helper.make_node("Cast", ["inner"], ["t0_again"], to=TensorProto.FLOAT)
        else:
            there = helper.make_node("SequenceConstruct", ["t0"], ["inner"])
            back = helper.make_node("ConcatFromSequence", ["inner"], ["t0_again"], axis=0)
        model.graph.node[1].input[0] = "t0_again"
        model.graph.node.insert(1, there)
        model.graph.node.insert(2, back)
        return model

    found = compared(hidden(), hidden())

    assert [one.name for one in found.tensors] == ["t0", "t0_again", "t1"]
    assert all(one.passed for one in found.tensors)
