"""SavedModels become ONNX with the names that config.txt or the signature gives, and with the same answers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from models.tf1_saved_model import make_tf1_saved_model

from convkit.errors import ConvkitError, InputError, MetadataError, StepError, UsageError
from convkit.pipeline.artifact import Artifact, gather
from convkit.pipeline.cache import Cache
from convkit.pipeline.runner import Runner
from convkit.sources.exported import Exported
from convkit.sources.tensorflow import export_saved_model, time_saved_model
from convkit.sources.tensorflow_onnx import _refuse_leftovers
from convkit.spec.metadata import Metadata, TensorMetadata, read_metadata
from convkit.spec.options import ExportOptions, TensorNames
from convkit.spec.tensor import DType
from sources.tensorflow_models import (
    TwoByTwo,
    dropout_graph,
    table_graph,
    unfed_graph,
    write_function,
    write_graph,
)

KERAS = Path(__file__).parents[2] / "sample_models" / "digits_keras"
NO_OPTIONS = ExportOptions()


def source_of(folder: Path) -> Artifact:
    members = [folder / "saved_model.pb", *folder.glob("variables/*")]
    return gather(folder, [path.relative_to(folder).as_posix() for path in members if path.is_file()])


def export(
    folder: Path,
    metadata: Metadata | None = None,
    options: ExportOptions = NO_OPTIONS,
    samples: Artifact | None = None,
) -> Exported:
    return export_saved_model(source_of(folder), folder=".", metadata=metadata, options=options, samples=samples)


def tensor(node_name: str, dims: list[int], dtype: DType = DType.FLOAT32, **keys: Any) -> TensorMetadata:
    return TensorMetadata(name=f"my {node_name}", node_name=node_name, dtype=dtype, dims=tuple(dims), **keys)


def config(inputs: list[TensorMetadata], outputs: list[TensorMetadata], batch_size: int = 0) -> Metadata:
    return Metadata(batch_size=batch_size, inputs=tuple(inputs), outputs=tuple(outputs))


def assert_equal_in_onnxruntime(exported: Exported, cases: int = 2) -> None:
    session = onnxruntime.InferenceSession(str(exported.model.path), providers=["CPUExecutionProvider"])
    interface = exported.model.interface
    assert [value.name for value in session.get_inputs()] == [spec.name for spec in interface.inputs]
    assert [value.name for value in session.get_outputs()] == [spec.name for spec in interface.outputs]
    assert len(exported.samples) == len(exported.references) == cases
    for sample, reference in zip(exported.samples, exported.references, strict=True):
        fed = {name: array.astype(object) if array.dtype.kind == "U" else array for name, array in sample.items()}
        for spec, answer in zip(interface.outputs, session.run(None, fed), strict=True):
            assert answer.shape == reference[spec.name].shape
            if spec.dtype is DType.STRING:
                assert (answer == reference[spec.name]).all()
            else:
                np.testing.assert_allclose(answer, reference[spec.name], rtol=1e-3, atol=1e-4)


def described(exported: Exported) -> tuple[list[str], list[str]]:
    interface = exported.model.interface
    return [str(spec) for spec in interface.inputs], [str(spec) for spec in interface.outputs]


@pytest.fixture(scope="module")
def tf1_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tf1")
    make_tf1_saved_model(folder)
    return folder


@pytest.fixture(scope="module")
def two_by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two_by_two")
    module = TwoByTwo()
    tf.saved_model.save(module, str(folder), signatures={"score": module.score, "project": module.project})
    return folder


@pytest.fixture(scope="module")
def score(two_by_two: Path) -> Exported:
    return export(two_by_two, options=ExportOptions(signature="score"))


# What goes over the wire


def test_a_tensorflow_1_model_answers_under_the_names_of_dl_inferences_config(tf1_folder: Path) -> None:
    exported = export(tf1_folder, read_metadata(tf1_folder / "config.txt"))

    assert described(exported) == (
        ["input_1:0 float32[batch, 16, 16, 3]"],
        ["dense_1/Softmax:0 float32[batch, 19]"],
    )
    assert exported.model.interface.max_batch_size == 0
    assert exported.matched == ()
    assert_equal_in_onnxruntime(exported)


def test_a_tensorflow_1_model_without_a_signature_gives_the_very_same_file(tf1_folder: Path, tmp_path: Path) -> None:
    make_tf1_saved_model(tmp_path / "model", signature=False)
    metadata = read_metadata(tmp_path / "model" / "config.txt")

    assert export(tmp_path / "model", metadata).model.files.digest == export(tf1_folder, metadata).model.files.digest


def test_names_of_config_txt_need_no_port(tf1_folder: Path) -> None:
    metadata = config([tensor("input_1", [-1, 16, 16, 3])], [tensor("dense_1/Softmax", [-1, 19])])

    exported = export(tf1_folder, metadata)

    assert described(exported)[0] == ["input_1 float32[batch, 16, 16, 3]"]
    assert_equal_in_onnxruntime(exported)


def test_a_keras_model_with_config_txt_answers_as_the_saved_model_loaded_by_tensorflow_2() -> None:
    exported = export(KERAS, read_metadata(KERAS / "config.txt"))
    serving = tf.saved_model.load(str(KERAS)).signatures["serving_default"]

    for sample, reference in zip(exported.samples, exported.references, strict=True):
        expected = serving(image=tf.constant(sample["image"]))["probs"].numpy()
        np.testing.assert_allclose(reference["probs"], expected, rtol=1e-5, atol=1e-6)
    assert [len(sample["image"]) for sample in exported.samples] == [1, 3]
    assert exported.parameters == 23_194
    assert_equal_in_onnxruntime(exported)


def test_a_keras_model_without_config_txt_takes_its_signatures_keys_and_a_free_batch() -> None:
    exported = export(KERAS)

    assert described(exported) == (["image float32[batch, 8, 8, 1]"], ["probs float32[batch, 10]"])
    assert exported.model.interface.max_batch_size == 8
    assert_equal_in_onnxruntime(exported)


def test_max_batch_size_of_the_command_line_wins() -> None:
    assert export(KERAS, options=ExportOptions(max_batch_size=32)).model.interface.max_batch_size == 32


def test_the_users_own_names_go_over_the_wire_when_asked_for() -> None:
    exported = export(KERAS, read_metadata(KERAS / "config.txt"), ExportOptions(tensor_names=TensorNames.NAME))

    assert_equal_in_onnxruntime(exported)


def test_several_inputs_and_outputs_with_a_free_length_are_all_there(score: Exported) -> None:
    assert described(score) == (
        ["ids int32[batch, ids_1]", "mask float32[batch, mask_1]"],
        ["pooled float32[batch, 4]", "tokens float32[batch, tokens_1, 3]"],
    )
    assert [sample["ids"].shape for sample in score.samples] == [(1, 64), (3, 96)]
    assert_equal_in_onnxruntime(score)


def test_parameters_are_the_variables_that_the_signature_uses(score: Exported) -> None:
    assert score.parameters == 20 * 4 + 4 * 3


def test_config_txt_gives_the_order_and_may_leave_outputs_out(two_by_two: Path) -> None:
    metadata = config(
        [tensor("mask", [-1, -1]), tensor("ids", [-1, -1], DType.INT32, range=(0, 19))], [tensor("tokens", [-1, -1, 3])]
    )

    exported = export(two_by_two, metadata, ExportOptions(signature="score"))

    assert [spec.name for spec in exported.model.interface.inputs] == ["mask", "ids"]
    assert [spec.name for spec in exported.model.interface.outputs] == ["tokens"]
    assert max(int(sample["ids"].max()) for sample in exported.samples) > 1
    assert_equal_in_onnxruntime(exported)


def test_a_tensor_outside_the_signature_of_a_tensorflow_1_graph_can_be_an_output(tmp_path: Path) -> None:
    write_graph(tmp_path / "model", dropout_graph)
    metadata = config([tensor("x:0", [-1, 4])], [tensor("head/logits:0", [-1, 3])])

    exported = export(tmp_path / "model", metadata)

    reference, sample = next(iter(exported.references)), next(iter(exported.samples))
    np.testing.assert_allclose(reference["head/logits:0"], sample["x:0"][:, :3], rtol=1e-6)
    assert_equal_in_onnxruntime(exported)


def test_two_keys_for_one_output_stay_two_outputs(tmp_path: Path) -> None:
    exported = export(write_graph(tmp_path / "model", dropout_graph))

    assert described(exported) == (
        ["x float32[batch, 4]"],
        ["probs float32[batch, 3]", "scores float32[batch, 3]"],
    )
    assert_equal_in_onnxruntime(exported)


def test_an_input_that_nothing_uses_stays_and_numbered_outputs_keep_their_order(tmp_path: Path) -> None:
    exported = export(write_function(tmp_path / "model", "partly_used"))

    assert [spec.name for spec in exported.model.interface.inputs] == ["unused", "x"]
    assert [spec.name for spec in exported.model.interface.outputs] == [f"out_{number}" for number in range(12)]
    assert_equal_in_onnxruntime(exported)


def test_loops_and_branches_and_scalars_are_converted(tmp_path: Path) -> None:
    exported = export(write_function(tmp_path / "model", "loop"))

    assert described(exported) == (["times int32[]", "x float32[batch, 4]"], ["y float32[batch, 4]"])
    assert exported.model.interface.max_batch_size == 0
    assert_equal_in_onnxruntime(exported)


def test_a_fixed_batch_is_one_case(tmp_path: Path) -> None:
    exported = export(write_function(tmp_path / "model", "fixed_batch"))

    assert described(exported) == (["x uint8[2, 4]"], ["y float32[2, 4]"])
    assert_equal_in_onnxruntime(exported, cases=1)


def test_strings_pass_where_samples_are_given(tmp_path: Path) -> None:
    folder = write_function(tmp_path / "model", "with_text")
    np.savez(tmp_path / "samples.npz", text=np.array(["größer", "b"]), x=np.ones((2, 2), np.float32))

    exported = export(folder, samples=gather(tmp_path, ["samples.npz"]))

    assert [case["same"].tolist() for case in exported.references] == [["größer"], ["größer", "b", "größer"]]
    assert_equal_in_onnxruntime(exported)


def test_the_content_of_a_lookup_table_is_in_the_file(tmp_path: Path) -> None:
    folder = write_graph(tmp_path / "model", table_graph)
    np.savez(tmp_path / "samples.npz", words=np.array(["two", "nine", "one"]))
    metadata = config([tensor("words", [-1], DType.STRING)], [tensor("numbers", [-1], DType.INT64)])

    exported = export(folder, metadata, samples=gather(tmp_path, ["samples.npz"]))

    assert [case["numbers"].tolist() for case in exported.references] == [[2], [2, -1, 1]]
    assert_equal_in_onnxruntime(exported)


# How config.txt's names find their tensors


def test_names_of_another_export_are_matched_by_layer_and_by_order_and_said() -> None:
    metadata = config([tensor("input_1:0", [-1, 8, 8, 1])], [tensor("dense_1/Softmax:0", [-1, 10])])

    exported = export(KERAS, metadata)

    assert described(exported) == (
        ["input_1:0 float32[batch, 8, 8, 1]"],
        ["dense_1/Softmax:0 float32[batch, 10]"],
    )
    by_order, by_layer = exported.matched
    assert by_order.startswith("input 'input_1:0' was matched to serving_default_image:0 ('image') by order")
    assert "('probs') by the layer functional_1/dense_1" in by_layer
    assert_equal_in_onnxruntime(exported)


def test_what_one_name_leaves_is_matched_by_order(two_by_two: Path) -> None:
    metadata = config(
        [tensor("mask", [-1, -1]), tensor("input_word_ids:0", [-1, -1], DType.INT32)],
        [tensor("Identity:0", [-1, 4]), tensor("Identity_1:0", [-1, -1, 3])],
    )

    exported = export(two_by_two, metadata, ExportOptions(signature="score"))

    assert [sentence.split(" was")[0] for sentence in exported.matched] == [
        "input 'input_word_ids:0'",
        "output 'Identity:0'",
        "output 'Identity_1:0'",
    ]
    assert_equal_in_onnxruntime(exported)


def test_a_name_that_fits_nothing_shows_what_the_signature_has() -> None:
    metadata = config([tensor("image", [-1, 8, 8, 1])], [tensor("logits", [-1, 11])])

    with pytest.raises(MetadataError) as caught:
        export(KERAS, metadata)

    assert "output 'logits'" in caught.value.message
    assert "probs (StatefulPartitionedCall_1:0) float32[-1, 10]" in caught.value.message


def test_an_input_of_the_signature_cannot_be_left_out(two_by_two: Path) -> None:
    metadata = config([tensor("ids", [-1, -1], DType.INT32)], [tensor("pooled", [-1, 4])])

    with pytest.raises(MetadataError, match=r"leaves out.*mask \(score_mask:0\) float32\[-1, -1\]"):
        export(two_by_two, metadata, ExportOptions(signature="score"))


def test_two_names_for_one_input_are_refused(tf1_folder: Path) -> None:
    inputs = [tensor("input_1:0", [-1, 16, 16, 3]), tensor("input_1", [-1, 16, 16, 3])]

    with pytest.raises(MetadataError, match="are one tensor, input_1:0"):
        export(tf1_folder, config(inputs, [tensor("probs", [-1, 19])]))


@pytest.mark.parametrize(
    ("image", "probs", "batch_size", "code"),
    [
        (tensor("image", [-1, 8, 8, 1], DType.UINT8), tensor("probs", [-1, 10]), 0, "metadata.type-mismatch"),
        (tensor("image", [-1, 64]), tensor("probs", [-1, 10]), 0, "metadata.rank-mismatch"),
        (tensor("image", [-1, 8, 8, 1]), tensor("probs", [-1, 11]), 0, "metadata.dims-mismatch"),
        (tensor("image", [-1, 8, 8, 1]), tensor("probs", [1, 10]), 0, "metadata.dims-mismatch"),
    ],
    ids=["type", "rank", "number", "batch of the output alone"],
)
def test_a_named_tensor_that_is_another_kind_is_refused(
    image: TensorMetadata, probs: TensorMetadata, batch_size: int, code: str
) -> None:
    with pytest.raises(MetadataError) as caught:
        export(KERAS, config([image], [probs], batch_size))

    assert caught.value.code == code


def test_a_batch_that_should_be_free_but_is_fixed_is_refused(tmp_path: Path) -> None:
    folder = write_function(tmp_path / "model", "fixed_batch")

    with pytest.raises(MetadataError, match=r"to be free, the model has it fixed at 2"):
        export(folder, config([tensor("x", [-1, 4], DType.UINT8)], [tensor("y", [-1, 4])], batch_size=4))


# The file


def test_the_opset_asked_for_is_written_and_every_server_reads_the_file() -> None:
    for asked, written in ((None, 18), (13, 13)):
        proto = onnx.load(str(export(KERAS, options=ExportOptions(opset=asked)).model.path))

        assert {entry.domain: entry.version for entry in proto.opset_import}[""] == written
        assert proto.ir_version <= 10
        onnx.checker.check_model(proto, full_check=True)


def test_an_opset_that_tf2onnx_does_not_write_is_refused() -> None:
    with pytest.raises(UsageError, match="tf2onnx writes 18 at most"):
        export(KERAS, options=ExportOptions(opset=21))


def test_no_path_of_the_machine_is_left_in_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "a-telling-name"
    shutil.copytree(KERAS, folder)

    data = export(folder).model.path.read_bytes()

    assert b"a-telling-name" not in data
    assert str(tmp_path).encode() not in data
    assert str(Path(tf.__file__).parent).encode() not in data


def test_one_model_gives_one_file_in_every_process(two_by_two: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from convkit.pipeline.artifact import gather\n"
        "from convkit.sources.tensorflow import export_saved_model\n"
        "from convkit.spec.options import ExportOptions\n"
        "for folder, signature in ((sys.argv[1], None), (sys.argv[2], 'score')):\n"
        "    exported = export_saved_model(gather(Path(folder)), folder='.', metadata=None,\n"
        "                                  options=ExportOptions(signature=signature), samples=None)\n"
        "    print(exported.model.files.digest)\n"
    )
    digests = [
        subprocess.run(
            [sys.executable, "-c", script, str(KERAS), str(two_by_two)],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(KERAS.parents[1])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for seed in ("1", "2")
    ]

    assert len(digests[0]) == 2
    assert digests[0] == digests[1]


def test_operations_without_a_counterpart_are_named(tmp_path: Path) -> None:
    with pytest.raises(StepError) as caught:
        export(write_function(tmp_path / "model", "incomplete_gamma"))

    assert caught.value.code == "export.unsupported-operator"
    assert "Igamma (" in caught.value.message
    assert "/gamma)" in caught.value.message


def test_an_operation_that_tf2onnx_left_without_a_word_is_found_in_the_graph() -> None:
    node = onnx.helper.make_node("StridedSliceGrad", ["x"], ["y"], name="body/grad")
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    proto = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y]))

    with pytest.raises(StepError, match=r"StridedSliceGrad \(body/grad\)"):
        _refuse_leftovers(proto, 18)


# What is no usable SavedModel


def refused(folder: Path, metadata: Metadata | None = None, **options: Any) -> ConvkitError:
    with pytest.raises(InputError) as caught:
        export(folder, metadata, ExportOptions(**options))
    assert caught.value.hint
    return caught.value


def test_one_of_several_signatures_must_be_chosen(two_by_two: Path) -> None:
    error = refused(two_by_two)

    assert "it has: 'project', 'score'" in error.message
    assert "--signature project" in error.hint


def test_a_signature_that_is_not_there_is_refused_with_those_that_are(two_by_two: Path) -> None:
    assert "no signature 'serve'; it has: 'project', 'score'" in refused(two_by_two, signature="serve").message


def test_the_only_signature_needs_no_name(tmp_path: Path) -> None:
    module = TwoByTwo()
    tf.saved_model.save(module, str(tmp_path / "model"), signatures={"project": module.project})

    assert described(export(tmp_path / "model")) == (["x float32[batch, 4]"], ["y float32[batch, 3]"])


def test_functions_without_a_signature_are_refused_with_the_way_to_one(tmp_path: Path) -> None:
    tf.saved_model.save(TwoByTwo(), str(tmp_path / "model"))

    assert "signatures=" in refused(tmp_path / "model").hint


def test_a_graph_without_a_signature_needs_config_txt_and_shows_its_placeholders(tmp_path: Path) -> None:
    make_tf1_saved_model(tmp_path / "model", signature=False)

    error = refused(tmp_path / "model")

    assert error.code == "source.no-signature"
    assert "input_1 (input_1:0) float32[-1, 16, 16, 3]" in error.hint


def test_a_placeholder_that_nobody_feeds_is_named(tmp_path: Path) -> None:
    assert "depend on phase" in refused(write_graph(tmp_path / "model", unfed_graph)).message


@pytest.mark.parametrize(
    ("function", "code"),
    [
        ("complex_in", "model.element-type"),
        ("any_rank", "model.unknown-rank"),
        ("with_text", "samples.strings"),
        ("only_small", "source.forward-failed"),
    ],
)
def test_what_cannot_be_served_or_tried_is_refused_with_a_code(function: str, code: str, tmp_path: Path) -> None:
    assert refused(write_function(tmp_path / "model", function)).code == code


def test_config_txt_gives_the_shape_that_the_signature_does_not_know(tmp_path: Path) -> None:
    folder = write_function(tmp_path / "model", "any_rank")

    exported = export(folder, config([tensor("x", [-1, 5])], [tensor("y", [-1, 5])]))

    assert_equal_in_onnxruntime(exported)


def test_an_output_that_comes_out_in_another_shape_than_config_txt_says_is_refused(tmp_path: Path) -> None:
    folder = write_function(tmp_path / "model", "any_rank")

    with pytest.raises(MetadataError, match=r"declared as y float32\[batch, 6\], the model answers with \[1, 5\]"):
        export(folder, config([tensor("x", [-1, 5])], [tensor("y", [-1, 6])]))


def test_a_damaged_file_and_missing_weights_are_refused(two_by_two: Path, tmp_path: Path) -> None:
    shutil.copytree(two_by_two, tmp_path / "lost")
    shutil.rmtree(tmp_path / "lost" / "variables")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "saved_model.pb").write_bytes(b"\x08\x01 not a message")

    for folder in ("lost", "damaged"):
        assert refused(tmp_path / folder, signature="score").code == "source.unreadable"


def test_a_frozen_graph_is_told_from_a_saved_model(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(tf.compat.v1.GraphDef().SerializeToString())

    assert refused(tmp_path).code == "source.no-serving-graph"


# In the pipeline


def test_the_worker_that_exported_also_times_the_model(tf1_folder: Path, tmp_path: Path) -> None:
    metadata = read_metadata(tf1_folder / "config.txt")
    source = source_of(tf1_folder)
    with Runner(Cache(tmp_path), observer=lambda event: None) as run:
        exported = run(export_saved_model, source, folder=".", metadata=metadata, options=NO_OPTIONS, samples=None)
        timing = run(
            time_saved_model,
            source,
            folder=".",
            metadata=metadata,
            options=NO_OPTIONS,
            inputs=exported.samples,
            seconds=0.05,
        )

    assert exported.framework == f"tensorflow {tf.__version__}"
    assert len(timing.latencies_ns) >= 3
    assert min(timing.latencies_ns) > 0
