"""SavedModels become ONNX with the names that config.txt or the signature gives, and with the same answers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import tensorflow as tf
from models.tf1_saved_model import make_tf1_saved_model

from convkit.errors import StepError, UsageError
from convkit.pipeline.artifact import gather
from convkit.pipeline.cache import Cache
from convkit.pipeline.runner import Runner
from convkit.sources.exported import Exported
from convkit.sources.tensorflow import export_saved_model, time_saved_model
from convkit.sources.tensorflow_onnx import _refuse_leftovers
from convkit.spec.metadata import read_metadata
from convkit.spec.options import ExportOptions, TensorNames
from convkit.spec.tensor import DType
from sources.saved_models import (
    KERAS,
    NO_OPTIONS,
    assert_equal_in_onnxruntime,
    config,
    described,
    export,
    source_of,
    tensor,
)
from sources.tensorflow_models import dropout_graph, table_graph, write_function, write_graph


@pytest.fixture(scope="module")
def score(two_by_two: Path) -> Exported:
    return export(two_by_two, options=ExportOptions(signature="score"))


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
