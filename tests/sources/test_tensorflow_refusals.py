"""What cannot be converted is refused with the reason and a way out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from models.tf1_saved_model import make_tf1_saved_model

from convkit.errors import ConvkitError, InputError, MetadataError
from convkit.spec.metadata import Metadata
from convkit.spec.options import ExportOptions
from sources.saved_models import (
    assert_equal_in_onnxruntime,
    config,
    described,
    export,
    tensor,
)
from sources.tensorflow_models import TwoByTwo, unfed_graph, write_function, write_graph


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
