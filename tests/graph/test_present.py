"""The face of a graph: wire names in the order of config.txt, dimensions that are named alike where they are one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from sources.onnx_files import FLOAT, model, node, value

from convkit.errors import MetadataError
from convkit.graph.present import MAX_IR_VERSION, agreed_interface, present, wanted_interface
from convkit.spec.metadata import Metadata, TensorMetadata
from convkit.spec.options import TensorNames
from convkit.spec.tensor import DType, Interface


def tensor(name: str, *dims: int, node_name: str | None = None, dtype: DType = DType.FLOAT32) -> TensorMetadata:
    return TensorMetadata(name=name, node_name=node_name or name, dtype=dtype, dims=dims)


def wanted(
    inputs: list[TensorMetadata], outputs: list[TensorMetadata], *, batch_size: int = 0, **options: object
) -> Interface:
    names = {"names": TensorNames.NODE_NAME, "max_batch_size": None, **options}
    metadata = Metadata(batch_size=batch_size, inputs=tuple(inputs), outputs=tuple(outputs))
    return wanted_interface(metadata, **names)  # type: ignore[arg-type]


def adding() -> onnx.ModelProto:
    """sum = a + b, scaled = a * b, on rows of one symbol's length."""
    row = ["n", "m"]
    return model(
        [node("Add", ["a", "b"], ["sum"]), node("Mul", ["a", "b"], ["scaled"])],
        [value("a", FLOAT, row), value("b", FLOAT, row)],
        [value("sum", FLOAT, row), value("scaled", FLOAT, row)],
        [],
    )


def test_names_come_from_node_name_or_name_and_the_other_is_the_alias() -> None:
    given = ([tensor("image", -1, 4, node_name="input_1:0")], [tensor("probs", -1, 3, node_name="out:0")])
    by_node, by_name = wanted(*given), wanted(*given, names=TensorNames.NAME)

    assert [(spec.name, spec.alias) for spec in by_node.inputs] == [("input_1:0", "image")]
    assert [(spec.name, spec.alias) for spec in by_name.outputs] == [("probs", "out:0")]


def test_a_fixed_first_dimension_is_free_where_it_is_the_batch() -> None:
    given = ([tensor("x", 8, 4)], [tensor("y", 8, 3)])

    assert wanted(*given, batch_size=8).inputs[0].dims == ("batch", 4)
    assert wanted(*given, batch_size=0).inputs[0].dims == (8, 4)
    assert wanted(*given, batch_size=0, max_batch_size=16).max_batch_size == 16


def test_inputs_and_outputs_stand_in_the_order_of_config_txt_under_its_names() -> None:
    face = wanted([tensor("right", -1, -1), tensor("left", -1, -1)], [tensor("product", -1, -1), tensor("sum", -1, -1)])
    proto, interface = present(adding(), face, inputs=["b", "a"], outputs=["scaled", "sum"])
    onnx.checker.check_model(proto, full_check=True)

    assert [each.name for each in proto.graph.input] == ["right", "left"]
    assert [each.name for each in proto.graph.output] == ["product", "sum"]
    assert [str(spec) for spec in interface.outputs] == [
        "product float32[batch, right_1]",
        "sum float32[batch, right_1]",
    ]


def test_an_output_that_is_left_out_is_no_output_any_more() -> None:
    face = wanted([tensor("a", -1, -1), tensor("b", -1, -1)], [tensor("sum", -1, -1)])
    proto, _ = present(adding(), face, inputs=["a", "b"], outputs=["sum"])

    assert [each.name for each in proto.graph.output] == ["sum"]


@pytest.mark.parametrize(("has", "gets"), [(3, 8), (8, 8), (9, 9), (10, 10), (13, MAX_IR_VERSION)])
def test_the_ir_version_is_one_that_servers_read(has: int, gets: int) -> None:
    proto = adding()
    proto.ir_version = has
    face = wanted([tensor("a", -1, -1), tensor("b", -1, -1)], [tensor("sum", -1, -1)])

    assert present(proto, face, inputs=["a", "b"], outputs=["sum"])[0].ir_version == gets


def test_an_output_that_config_txt_leaves_free_gets_the_size_that_the_graph_knows() -> None:
    proto = model(outputs=[value("y", FLOAT, ["N", 3])])
    face = wanted([tensor("x", -1, 4)], [tensor("y", -1, -1)])

    assert agreed_interface(proto, face, inputs=["x"], outputs=["y"]).outputs[0].dims == ("batch", 3)


def test_an_input_that_config_txt_leaves_free_must_be_free() -> None:
    face = wanted([tensor("x", -1, -1)], [tensor("y", -1, 3)])

    with pytest.raises(MetadataError, match=r"input 'x': dims\[1\] is to be free, the model has it fixed at 4"):
        agreed_interface(model(), face, inputs=["x"], outputs=["y"])


def test_what_is_asked_does_not_change_the_graph() -> None:
    proto = adding()
    before = proto.SerializeToString(deterministic=True)
    face = wanted([tensor("a", -1, -1), tensor("b", -1, -1)], [tensor("sum", -1, -1)])
    agreed_interface(proto, face, inputs=["a", "b"], outputs=["sum"])

    assert proto.SerializeToString(deterministic=True) == before


def test_a_graph_answers_under_its_new_names_as_it_did_under_its_own() -> None:
    import onnxruntime

    rows = {"a": np.ones((2, 3), np.float32), "b": np.full((2, 3), 4, np.float32)}
    own = onnxruntime.InferenceSession(adding().SerializeToString()).run(["scaled"], rows)
    face = wanted([tensor("sum", -1, -1), tensor("scaled", -1, -1)], [tensor("a", -1, -1)])
    proto, _ = present(adding(), face, inputs=["a", "b"], outputs=["scaled"])
    given = {"sum": rows["a"], "scaled": rows["b"]}
    new = onnxruntime.InferenceSession(proto.SerializeToString()).run(["a"], given)

    np.testing.assert_array_equal(new, own)
