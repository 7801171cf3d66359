"""An ONNX file is taken as it is: checked, given its wire names, and told apart from what no server takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from convkit.errors import InputError, MetadataError, StepError
from convkit.graph.model import load_model
from convkit.measure.compare import compare_outputs
from convkit.pipeline import events
from convkit.pipeline.events import Warned
from convkit.sources import onnx as onnx_source
from convkit.sources.exported import Exported
from convkit.sources.find import find_model
from convkit.sources.onnx import time_onnx_source
from convkit.sources.open import OnnxFile, open_source
from convkit.spec.metadata import read_metadata
from convkit.spec.options import CheckOptions, ExportOptions, Precision, TensorNames
from sources.onnx_files import FLOAT, MATMUL, WEIGHT, X, Y, model, node, tensor, value, write


def run(step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a step as a plain function."""
    return step(*args, **kwargs)


@pytest.fixture
def warned() -> Iterator[list[str]]:
    """The codes of the warnings."""
    codes: list[str] = []
    events.observe(lambda event: codes.append(event.code) if isinstance(event, Warned) else None)
    yield codes
    events.observe(events.nobody)


@pytest.fixture(autouse=True)
def nothing_is_kept() -> None:
    onnx_source._runnable.clear()


def opened(file: Path, **options: Any) -> OnnxFile:
    found = find_model(file)
    metadata = read_metadata(Path(found.config)) if found.config else None
    source = open_source(found, metadata, ExportOptions(**options), (), "convkit convert")
    assert isinstance(source, OnnxFile)
    return source


def imported(file: Path, *, max_opset: int = 21, **options: Any) -> Exported:
    return opened(file, **options).export(run, samples=None, max_opset=max_opset)


def checked(made: Exported) -> onnx.ModelProto:
    """The file that goes on, after ONNX's checker and a comparison with what the source answered."""
    onnx.checker.check_model(made.model.path, full_check=True)
    verification = compare_outputs(
        made.model, samples=made.samples, references=made.references, precision=Precision.NONE, options=CheckOptions()
    )
    assert verification.passed
    proto = load_model(made.model)
    assert 8 <= proto.ir_version <= 10
    return proto


def faces(made: Exported) -> tuple[list[str], list[str], int]:
    face = made.model.interface
    return [str(spec) for spec in face.inputs], [str(spec) for spec in face.outputs], face.max_batch_size


def opset_of(proto: onnx.ModelProto) -> int:
    return next(entry.version for entry in proto.opset_import if entry.domain == "")


@pytest.mark.parametrize("batch", ["N", None, "unk__17", -1])
def test_a_free_first_dimension_is_the_batch_however_its_exporter_wrote_it(batch: Any, tmp_path: Path) -> None:
    made = imported(
        write(tmp_path, model(inputs=[value("x", FLOAT, [batch, 4])], outputs=[value("y", FLOAT, [batch, 3])]))
    )
    checked(made)

    assert faces(made) == (["x float32[batch, 4]"], ["y float32[batch, 3]"], 8)
    assert [len(case["x"]) for case in made.samples] == [1, 3]


def test_a_fixed_batch_stays_and_is_no_batch_for_the_server(tmp_path: Path) -> None:
    made = imported(write(tmp_path, model(inputs=[value("x", FLOAT, [2, 4])], outputs=[value("y", FLOAT, [2, 3])])))
    checked(made)

    assert faces(made) == (["x float32[2, 4]"], ["y float32[2, 3]"], 0)


@pytest.mark.parametrize(
    ("made", "face"),
    [
        (
            model([node("MatMul", ["x", "z"], ["y"])], [value(n, FLOAT, ["n", "n"]) for n in "xz"],
                  [value("y", FLOAT, ["n", "n"])], []),
            (["x float32[n, n]", "z float32[n, n]"], ["y float32[n, n]"], 0),
        ),
        (
            model([node("Transpose", ["x"], ["y"], perm=[1, 0])], [value("x", FLOAT, ["T", "B"])],
                  [value("y", FLOAT, ["B", "T"])], []),
            (["x float32[T, B]"], ["y float32[B, T]"], 0),
        ),
    ],
    ids=["a square matrix", "time first"],
)  # fmt: skip
def test_a_dimension_that_stands_elsewhere_too_is_no_batch(made: onnx.ModelProto, face: Any, tmp_path: Path) -> None:
    result = imported(write(tmp_path, made))
    checked(result)

    assert faces(result) == face


def test_a_file_with_the_ir_version_that_onnx_writes_today_is_taken(tmp_path: Path) -> None:
    proto = model(ir_version=None)
    assert proto.ir_version > 13  # more than ONNX Runtime reads
    file = write(tmp_path, proto)
    before = file.read_bytes()
    made = imported(file)
    checked(made)
    timing = time_onnx_source(opened(file).files, file="net.onnx", inputs=made.samples, renamed={}, seconds=0.01)

    assert len(timing.latencies_ns) >= 3
    assert file.read_bytes() == before


def test_weights_listed_as_inputs_are_weights(tmp_path: Path, warned: list[str]) -> None:
    old = model(inputs=[X, value("w", FLOAT, [4, 3])], opset=11, ir_version=3)
    made = imported(write(tmp_path, old))
    proto = checked(made)

    assert faces(made)[0] == ["x float32[batch, 4]"]
    assert opset_of(proto) == 18
    assert warned == ["source.opset-converted"]


def test_an_old_opset_is_raised_so_far_that_quantizers_can_use_it(tmp_path: Path, warned: list[str]) -> None:
    old = model(
        [MATMUL, node("ReduceSum", ["y"], ["z"], axes=[1], keepdims=0)],
        outputs=[value("z", FLOAT, ["N"])],
        opset=11,
        ir_version=6,
    )
    proto = checked(imported(write(tmp_path, old)))

    assert opset_of(proto) == 18
    assert warned == ["source.opset-converted"]


def test_the_opset_asked_for_is_written(tmp_path: Path) -> None:
    assert opset_of(checked(imported(write(tmp_path, model()), opset=17))) == 17


def test_an_opset_that_the_server_does_not_read_is_lowered(tmp_path: Path) -> None:
    proto = checked(imported(write(tmp_path, model(opset=22)), max_opset=21))

    assert opset_of(proto) == 21


def test_an_operator_that_the_server_is_too_old_for_is_told(tmp_path: Path) -> None:
    axis = numpy_helper.from_array(np.array(1), "axis")
    new = model([node("CumProd", ["x", "axis"], ["y"])], [X], [value("y", FLOAT, ["N", 4])], [axis], opset=26)

    with pytest.raises(StepError, match=r"opset 26 cannot be converted to 21: .*CumProd") as failed:
        imported(write(tmp_path, new))
    assert "--triton" in failed.value.hint


def test_an_opset_that_onnx_runtime_no_longer_runs_is_answered_for_by_a_newer_one(
    tmp_path: Path, warned: list[str]
) -> None:
    added = numpy_helper.from_array(np.float32([1, 2, 3, 4]), "w")
    add = node("Add", ["x", "w"], ["y"], broadcast=1)
    ends = [value("x", FLOAT, [2, 4]), value("w", FLOAT, [4])], [value("y", FLOAT, [2, 4])]
    file = write(tmp_path, model([add], *ends, [added], opset=6, ir_version=3))
    made = imported(file)

    assert opset_of(checked(made)) == 18
    (given,), (answered,) = made.samples, made.references
    np.testing.assert_allclose(answered["y"], given["x"] + np.float32([1, 2, 3, 4]))
    assert "source.answers-of-newer-opset" in warned
    assert time_onnx_source(opened(file).files, file="net.onnx", inputs=made.samples, renamed={}, seconds=0.0)


@pytest.mark.parametrize("declared", [True, False])
def test_slopes_of_an_old_prelu_stay_one_for_each_channel(tmp_path: Path, *, declared: bool) -> None:
    slopes = numpy_helper.from_array(np.float32([0.1, 0.5, 2]), "w")
    inputs = [value("x", FLOAT, [2, 3, 3])] + [value("w", FLOAT, [3])] * declared
    prelu = model(
        [node("Relu", ["x"], ["r"]), node("Sub", ["x", "r"], ["n"]), node("PRelu", ["n", "w"], ["y"])],
        inputs,
        [value("y", FLOAT, [2, 3, 3])],
        [slopes],
        opset=6,
        ir_version=3 if declared else 4,
    )
    made = imported(write(tmp_path, prelu))

    checked(made)
    (given,), (answered,) = made.samples, made.references
    np.testing.assert_allclose(answered["y"], np.minimum(given["x"], 0) * np.float32([[[0.1], [0.5], [2]]]), rtol=1e-6)


def test_an_old_graph_that_the_converter_gives_another_face_is_kept(tmp_path: Path, warned: list[str]) -> None:
    step = helper.make_graph(
        [node("Add", ["total", "next"], ["sum"]), node("Identity", ["sum"], ["each"])],
        "step",
        [value("total", FLOAT, [2]), value("next", FLOAT, [2])],
        [value("sum", FLOAT, [2]), value("each", FLOAT, [2])],
    )
    scan = node("Scan", ["", "first", "x"], ["y", "z"], num_scan_inputs=1, body=step)
    inputs = [value("first", FLOAT, [1, 2]), value("x", FLOAT, [1, 3, 2])]
    old = model([scan], inputs, [value("y", FLOAT, [1, 2]), value("z", FLOAT, [1, 3, 2])], [], opset=8, ir_version=3)

    assert opset_of(checked(imported(write(tmp_path, old)))) == 8
    assert warned == ["source.old-opset"]


def test_what_the_exporter_left_of_its_machine_is_taken_out(tmp_path: Path) -> None:
    proto = model()
    proto.doc_string = "made in /home/somebody"
    proto.graph.node[0].doc_string = "/home/somebody/net.py, line 3"
    helper.set_model_props(proto, {"path": "/home/somebody"})
    entry = proto.graph.node[0].metadata_props.add()
    entry.key, entry.value = "pkg.torch.onnx.stack_trace", "/home/somebody/net.py"
    made = imported(write(tmp_path, proto))

    assert b"somebody" in (tmp_path / "net.onnx").read_bytes()
    assert b"somebody" not in made.model.path.read_bytes()


# External data


def with_external_data(folder: Path, location: str = "weights/net.bin") -> Path:
    """The same model with its weight in a file of its own."""
    proto = model()
    (folder / location).parent.mkdir(parents=True, exist_ok=True)
    (folder / location).write_bytes(WEIGHT.raw_data)
    weight = proto.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, text in (("location", location), ("offset", "0"), ("length", "48")):
        entry = weight.external_data.add()
        entry.key, entry.value = key, text
    return write(folder, proto)


def test_external_data_come_along(tmp_path: Path) -> None:
    source = opened(with_external_data(tmp_path))
    made = source.export(run, samples=None, max_opset=21)
    checked(made)

    assert source.files.files == ("net.onnx", "weights/net.bin")
    assert made.model.files.files == ("model.onnx",)
    assert made.parameters == 12


def test_external_data_of_a_file_with_a_new_ir_version_come_along(tmp_path: Path) -> None:
    file = with_external_data(tmp_path)
    proto = onnx.load(file, load_external_data=False)
    proto.ir_version = 14
    file.write_bytes(proto.SerializeToString())

    checked(imported(file))


def test_a_change_of_the_external_data_is_a_change_of_the_source(tmp_path: Path) -> None:
    source = opened(with_external_data(tmp_path))
    source.export(run, samples=None, max_opset=21)
    (tmp_path / "weights" / "net.bin").write_bytes(bytes(48))
    other = opened(tmp_path / "net.onnx")
    other.export(run, samples=None, max_opset=21)

    assert source.files.digest != other.files.digest


def test_missing_external_data_are_told_by_their_name(tmp_path: Path) -> None:
    file = with_external_data(tmp_path)
    (tmp_path / "weights" / "net.bin").unlink()

    with pytest.raises(InputError, match=r"keeps its weights in weights/net\.bin, which is not there") as refused:
        imported(file)
    assert refused.value.code == "source.external-data"


@pytest.mark.parametrize("location", ["../secret.bin", "weights/../../secret.bin", "{absolute}", "..\\secret.bin"])
def test_external_data_outside_the_models_folder_are_refused(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(WEIGHT.raw_data)
    file = with_external_data(tmp_path / "model")
    proto = onnx.load(file, load_external_data=False)
    where = location.format(absolute=tmp_path / "secret.bin")
    proto.graph.initializer[0].external_data[0].value = where
    file.write_bytes(proto.SerializeToString())

    with pytest.raises(InputError, match="the weights of 'w' are said to lie in") as refused:
        imported(file)
    assert refused.value.code == "source.external-data"


def test_external_data_behind_a_link_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(WEIGHT.raw_data)
    file = with_external_data(tmp_path / "model")
    (tmp_path / "model" / "weights" / "net.bin").unlink()
    (tmp_path / "model" / "weights" / "net.bin").symlink_to(tmp_path / "secret.bin")

    with pytest.raises(InputError) as refused:
        imported(file)
    assert refused.value.code == "source.link"


# What no server takes, and what is no model


def test_sequences_maps_and_optionals_are_refused(tmp_path: Path) -> None:
    ml = [("ai.onnx.ml", 1)]
    float_map = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(FLOAT, []))
    optional = helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, ["N", 4]))
    sequence = helper.make_tensor_sequence_value_info("s", FLOAT, None)
    kinds = {
        "sequence": model([node("SequenceConstruct", ["x"], ["s"])], [X], [sequence], []),
        "map": model([node("CastMap", ["x"], ["y"], domain="ai.onnx.ml")], [helper.make_value_info("x", float_map)],
                     [value("y", FLOAT, [1, None])], [], domains=ml),
        "optional": model([node("Optional", ["x"], ["o"])], [X], [helper.make_value_info("o", optional)], []),
    }  # fmt: skip
    for kind, proto in kinds.items():
        with pytest.raises(InputError, match=f"holds a value of the kind '{kind}', not a tensor"):
            imported(write(tmp_path / kind, proto))


def test_a_type_that_no_server_takes_is_refused(tmp_path: Path) -> None:
    proto = model(
        [node("Cast", ["x"], ["y"], to=FLOAT)],
        [value("x", TensorProto.INT4, ["N"])],
        [value("y", FLOAT, ["N"])],
        [],
        opset=21,
    )

    with pytest.raises(InputError, match="'x' has ONNX's element type 22, which servers do not take"):
        imported(write(tmp_path, proto))


def test_a_dimension_of_nothing_is_refused(tmp_path: Path) -> None:
    relu = model([node("Relu", ["x"], ["y"])], [value("x", FLOAT, [0, 4])], [value("y", FLOAT, [0, 4])], [])

    with pytest.raises(InputError, match="'x' has a dimension of 0"):
        imported(write(tmp_path, relu))


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x0a", bytes(range(256)) * 40])
def test_a_file_that_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(content)

    with pytest.raises(InputError, match=r"net\.onnx is no ONNX model"):
        imported(tmp_path / "net.onnx")


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    whole = model().SerializeToString()
    for length in range(0, len(whole), 7):
        (tmp_path / "net.onnx").write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"net\.onnx is no (valid )?ONNX model"):
            imported(tmp_path / "net.onnx")


def test_a_graph_that_reads_what_nobody_writes_is_refused_with_the_tensor(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no valid ONNX model: .*'nothing'"):
        imported(write(tmp_path, model([node("MatMul", ["x", "nothing"], ["y"])])))


def test_an_operator_that_onnx_runtime_lacks_is_named(tmp_path: Path) -> None:
    proto = model([node("Mine", ["x"], ["y"], domain="my.own")], outputs=[X], weights=[], domains=[("my.own", 1)])
    proto.graph.output[0].name = "y"

    with pytest.raises(StepError, match=r"operator Mine of the domain my\.own"):
        imported(write(tmp_path, proto))


def test_strings_need_samples(tmp_path: Path) -> None:
    text = model(
        [node("Identity", ["x"], ["y"])], [value("x", TensorProto.STRING, ["N"])],
        [value("y", TensorProto.STRING, ["N"])], [],
    )  # fmt: skip

    with pytest.raises(InputError, match="'x' holds strings") as refused:
        imported(write(tmp_path, text))
    assert "--samples" in refused.value.hint


# Outputs of every form


def test_an_output_without_a_declared_shape_gets_one(tmp_path: Path) -> None:
    made = imported(write(tmp_path, model(outputs=[value("y", FLOAT, None)])))
    checked(made)

    assert faces(made)[1] == ["y float32[batch, 3]"]


def test_an_output_that_is_an_input_gets_a_name_of_its_own(tmp_path: Path, warned: list[str]) -> None:
    proto = model(outputs=[Y, X])
    made = imported(write(tmp_path, proto))
    checked(made)

    assert faces(made)[1] == ["y float32[batch, 3]", "x_output float32[batch, 4]"]
    assert warned == ["source.renamed-output"]


def test_an_output_that_is_a_weight_is_served(tmp_path: Path) -> None:
    made = imported(write(tmp_path, model(outputs=[Y, value("w", FLOAT, [4, 3])])))
    checked(made)

    assert [case["w"].shape for case in made.references] == [(4, 3), (4, 3)]


def test_a_tensor_inside_that_has_a_wire_name_makes_room(tmp_path: Path) -> None:
    config = {"batch_size": 8, "input": [tensor("image", "float", [-1, 4], "x")],
              "output": [tensor("hidden", "float", [-1, 3], "y")]}  # fmt: skip
    proto = model([node("MatMul", ["x", "w"], ["hidden"]), node("Relu", ["hidden"], ["y"])])
    made = imported(write(tmp_path, proto, config=config), tensor_names=TensorNames.NAME)
    checked(made)

    assert faces(made) == (["image float32[batch, 4]"], ["hidden float32[batch, 3]"], 8)
    assert made.renamed == {"image": "x"}


# config.txt against the graph


def config_of(inputs: list[dict[str, Any]], outputs: list[dict[str, Any]], batch_size: int = 8) -> dict[str, Any]:
    return {"batch_size": batch_size, "input": inputs, "output": outputs}


@pytest.mark.parametrize("name", ["x", "x:0"])
def test_a_node_name_is_found_with_and_without_its_port(name: str, tmp_path: Path) -> None:
    config = config_of([tensor("x", "float", [-1, 4], name)], [tensor("y", "float", [-1, 3])])
    made = imported(write(tmp_path, model(), config=config))
    checked(made)

    assert faces(made)[0] == [f"{name} float32[batch, 4]"]


def test_a_free_dimension_may_be_fixed_by_config_txt(tmp_path: Path) -> None:
    config = config_of([tensor("x", "float", [2, 4])], [tensor("y", "float", [2, 3])], 0)
    made = imported(write(tmp_path, model(), config=config))
    checked(made)

    assert faces(made) == (["x float32[2, 4]"], ["y float32[2, 3]"], 0)


def test_outputs_that_config_txt_leaves_out_are_not_served(tmp_path: Path) -> None:
    proto = model([MATMUL, node("Relu", ["y"], ["z"])], outputs=[Y, value("z", FLOAT, ["N", 3])])
    config = config_of([tensor("x", "float", [-1, 4])], [tensor("z", "float", [-1, 3])])
    made = imported(write(tmp_path, proto, config=config))
    checked(made)

    assert faces(made)[1] == ["z float32[batch, 3]"]


def test_names_that_are_not_in_the_graph_are_matched_by_order_where_types_and_shapes_agree(
    tmp_path: Path, warned: list[str]
) -> None:
    config = config_of([tensor("a", "float", [-1, 4])], [tensor("b", "float", [-1, 3])])
    made = imported(write(tmp_path, model(), config=config))
    checked(made)

    assert faces(made) == (["a float32[batch, 4]"], ["b float32[batch, 3]"], 8)
    assert warned == ["metadata.matched-by-order"] * 2


@pytest.mark.parametrize(
    ("inputs", "outputs", "batch_size", "message"),
    [
        ([tensor("q", "int", [-1, 4])], [tensor("y", "float", [-1, 3])], 8, "input 'q' is not in the model"),
        ([tensor("q", "float", [-1, 5])], [tensor("y", "float", [-1, 3])], 8, "input 'q' is not in the model"),
        ([tensor("x", "int", [-1, 4])], [tensor("y", "float", [-1, 3])], 8, "as int32, the model has float32"),
        (
            [tensor("x", "float", [-1, 5])],
            [tensor("y", "float", [-1, 3])],
            8,
            r"dims\[1\] is 5, the model has it",
        ),
        ([tensor("x", "float", [-1, 4, 1])], [tensor("y", "float", [-1, 3])], 8, "with 3 dims, the model has 2"),
        (
            [tensor("x", "float", [-1, 4])],
            [tensor("y", "float", [-1, 7])],
            8,
            r"dims\[1\] is 7, the model has it",
        ),
        (
            [tensor("x", "float", [-1, 4]), tensor("z", "float", [-1, 4])],
            [tensor("y", "float", [-1, 3])],
            8,
            "input 'z' is not in the model",
        ),
        (
            [tensor("x", "float", [-1, 4]), tensor("z", "float", [-1, 4], "x:0")],
            [tensor("y", "float", [-1, 3])],
            8,
            "two inputs name the same tensor",
        ),
    ],
)
def test_a_config_txt_that_is_not_the_graphs_is_refused_with_both_sides(
    inputs: list[dict[str, Any]], outputs: list[dict[str, Any]], batch_size: int, message: str, tmp_path: Path
) -> None:
    file = write(tmp_path, model(), config=config_of(inputs, outputs, batch_size))

    with pytest.raises(MetadataError, match=message) as refused:
        imported(file)
    assert refused.value.hint


def test_an_input_that_config_txt_leaves_out_is_told(tmp_path: Path) -> None:
    proto = model([node("Add", ["x", "z"], ["y"])], [X, value("z", FLOAT, ["N", 4])], [value("y", FLOAT, ["N", 4])], [])
    config = config_of([tensor("x", "float", [-1, 4])], [tensor("y", "float", [-1, 4])])

    with pytest.raises(MetadataError, match=r"config\.txt leaves out the input z"):
        imported(write(tmp_path, proto, config=config))


def test_a_batch_that_the_graph_fixes_is_refused_where_it_should_be_free(tmp_path: Path) -> None:
    proto = model(inputs=[value("x", FLOAT, [2, 4])], outputs=[value("y", FLOAT, [2, 3])])
    config = config_of([tensor("x", "float", [-1, 4])], [tensor("y", "float", [-1, 3])], 8)

    with pytest.raises(MetadataError, match=r"dims\[0\] is to be free, the model has it fixed at 2") as refused:
        imported(write(tmp_path, proto, config=config))
    assert "export a model whose batch is free" in refused.value.hint
