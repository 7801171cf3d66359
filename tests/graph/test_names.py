"""Names inside a graph: renamed wherever they stand, and nothing left of the machine that wrote them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from sources.onnx_files import FLOAT, MATMUL, WEIGHT, X, Y, model, node, value

from convkit.graph.census import take_census
from convkit.graph.names import name_nodes, rename_tensors, separate_outputs, strip_origins, subgraphs


def answers(proto: onnx.ModelProto, **inputs: object) -> list[np.ndarray]:
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


def branching() -> onnx.ModelProto:
    """y = relu(x) where its sum is positive, else -x; both branches read x from outside."""
    row = ["N", 4]
    then = helper.make_graph([node("Relu", ["x"], ["t"])], "then", [], [value("t", FLOAT, row)])
    other = helper.make_graph([node("Neg", ["x"], ["e"])], "else", [], [value("e", FLOAT, row)])
    zero = numpy_helper.from_array(np.float32(0), "zero")
    nodes = [
        node("ReduceSum", ["x"], ["sum"], keepdims=0),
        node("Greater", ["sum", "zero"], ["positive"]),
        node("If", ["positive"], ["y"], then_branch=then, else_branch=other),
    ]
    return model(nodes, [X], [value("y", FLOAT, row)], [zero])


def test_a_tensor_is_renamed_inside_branches_too() -> None:
    proto, rows = branching(), np.array([[1, -2, 3, 4]], np.float32)
    before = answers(proto, x=rows)
    rename_tensors(proto.graph, {"x": "input_1:0", "y": "out"})

    np.testing.assert_array_equal(answers(proto, **{"input_1:0": rows}), before)
    assert [value.name for value in proto.graph.output] == ["out"]


def test_two_tensors_swap_their_names() -> None:
    proto = model([node("Sub", ["a", "b"], ["y"])], [value(n, FLOAT, [1]) for n in "ab"], [value("y", FLOAT, [1])], [])
    rename_tensors(proto.graph, {"a": "b", "b": "a"})

    assert answers(proto, a=np.ones(1, np.float32), b=np.full(1, 5, np.float32)) == [4.0]


def test_a_tensor_that_has_the_new_name_makes_room() -> None:
    proto = model([node("MatMul", ["x", "w"], ["taken"]), node("Relu", ["taken"], ["y"])])
    rename_tensors(proto.graph, {"y": "taken", "x": "w"})

    [rows] = answers(proto, w=np.ones((1, 4), np.float32))
    assert rows == pytest.approx(numpy_helper.to_array(WEIGHT).sum(0, keepdims=True))


def test_outputs_that_are_inputs_weights_or_each_other_get_tensors_of_their_own() -> None:
    proto = model([MATMUL], [X], [Y, X, value("w", FLOAT, [4, 3])])
    separate_outputs(proto.graph)
    rows = np.ones((1, 4), np.float32)

    _, given, weight = answers(proto, x=rows)
    np.testing.assert_array_equal(given, rows)
    np.testing.assert_array_equal(weight, numpy_helper.to_array(WEIGHT))
    assert len({value.name for value in (*proto.graph.input, *proto.graph.output)}) == 4


def test_documentation_and_metadata_are_taken_out_everywhere() -> None:
    proto = branching()
    inner = proto.graph.node[2].attribute[0].g
    for holder in (proto, proto.graph, inner, inner.node[0], proto.graph.input[0], proto.graph.initializer[0]):
        holder.doc_string = "/home/somebody"
        entry = holder.metadata_props.add()
        entry.key, entry.value = "path", "/home/somebody"
    strip_origins(proto)

    assert b"somebody" not in proto.SerializeToString()


def test_every_node_gets_a_name_of_its_own_in_inner_graphs_too() -> None:
    proto = branching()
    proto.graph.node[0].name = proto.graph.node[1].name = "twice"
    proto.graph.node[2].attribute[0].g.node[0].name = "twice"
    name_nodes(proto.graph)
    names = [node.name for graph in subgraphs(proto.graph) for node in graph.node]

    assert names[0] == "twice"
    assert len(set(names)) == len(names) == 5
    assert "" not in names


def test_the_census_counts_inner_graphs_domains_and_weights() -> None:
    proto = branching()
    proto.graph.node.append(helper.make_node("Gelu", ["x"], ["g"], domain="com.microsoft"))
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((2, 5), np.int8), "bytes"))
    proto.graph.initializer.append(helper.make_tensor("nibbles", TensorProto.INT4, [4], [1, 2, 3, 4]))
    census = take_census(proto)

    assert census.nodes == 6
    assert census.operators == {
        "Greater": 1, "If": 1, "Neg": 1, "ReduceSum": 1, "Relu": 1, "com.microsoft::Gelu": 1,
    }  # fmt: skip
    assert (census.parameters, census.weight_bytes) == (1 + 10 + 4, 4 + 10 + 2)
    assert (census.opset, census.ir_version) == (20, 10)
