"""Repairs one by one: what each changes, and what it leaves."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import convkit.mended
from convkit.graph.mend import Wanted, mend
from convkit.graph.model import Model, load_model, save_model
from convkit.mended import write_mended
from convkit.spec.tensor import Interface
from preflight.corpus import corpus
from preflight.corpus_quantized import quantized_conv
from preflight.making import F, model, node

CORPUS = {broken.name: broken.model for broken in corpus()}


def mended(proto: onnx.ModelProto, repair: str, *nodes: str) -> onnx.ModelProto:
    source = save_model(proto, Interface(inputs=(), outputs=()))
    return load_model(done(source, repair, *nodes))


def done(source: Model, repair: str, *nodes: str) -> Model:
    return mend(source, wanted=(Wanted(mend=repair, nodes=nodes),)).model


def weight(proto: onnx.ModelProto, name: str) -> np.ndarray:
    (found,) = [numpy_helper.to_array(each) for each in proto.graph.initializer if each.name == name]
    return found


def test_weights_that_fit_into_int8_keep_their_values() -> None:
    raw = np.random.default_rng(0).integers(0, 256, (8, 4, 3, 3)).astype(np.uint8)
    scale = np.full(8, 0.01, np.float32)
    asymmetric = quantized_conv(weight=(raw, scale, np.full(8, 128, np.uint8)))

    proto = mended(asymmetric, "symmetric", "weight_DQ")

    (dq,) = [each for each in proto.graph.node if each.name == "weight_DQ"]
    assert (weight(proto, dq.input[0]) == raw.astype(np.int16) - 128).all()
    assert (weight(proto, dq.input[1]) == scale).all()
    assert not weight(proto, dq.input[2]).any()


def test_a_constant_in_int64_becomes_int32_where_it_fits_and_not_where_it_does_not() -> None:
    small = mended(CORPUS["integers_of_two_widths"], "one-type", "scale")
    large = onnx.ModelProto.FromString(CORPUS["integers_of_two_widths"].SerializeToString())
    large.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array([1 << 40]), "k"))
    wide = mended(large, "one-type", "scale")

    assert [each.op_type for each in small.graph.node] == ["Cast", "Mul"]
    assert [each.data_type for each in small.graph.initializer if each.name in small.graph.node[1].input] == [6]
    assert [each.op_type for each in wide.graph.node] == ["Cast", "Cast", "Mul", "Cast"]


def test_an_old_opset_is_raised_and_upsample_written_as_resize() -> None:
    scales = {"s": np.array([1, 1, 2, 2], np.float32)}
    grow = [node("Upsample", "x s", "y", "grow", mode="nearest")]
    old = model(grow, {"x": (F, [1, 1, 4, 4])}, {"y": (F, [1, 1, 8, 8])}, scales, opset=9)

    proto = mended(old, "opset", "grow")

    assert [entry.version for entry in proto.opset_import] == [18]
    assert "Resize" in {each.op_type for each in proto.graph.node}


def test_nodes_are_sorted_and_named_apart() -> None:
    nodes = [node("Relu", "a", "y", "same"), node("Relu", "x", "a", "same")]
    proto = mended(model(nodes, {"x": (F, [2])}, {"y": (F, [2])}), "sort", "same")
    proto = mended(proto, "names", "same")

    assert [each.output[0] for each in proto.graph.node] == ["a", "y"]
    assert len({each.name for each in proto.graph.node}) == 2


def test_only_the_nodes_that_are_named_are_changed() -> None:
    asymmetric = quantized_conv(zero=np.uint8(128), bias="int32")

    proto = mended(asymmetric, "float-bias", "bias_DQ")

    assert "bias_DQ" not in {each.name for each in proto.graph.node}
    assert weight(proto, "act_z") == 128
    assert weight(proto, "b").dtype == np.float32


def test_the_model_itself_is_not_touched() -> None:
    source = save_model(CORPUS["int32_bias"], Interface(inputs=(), outputs=()))
    before = source.path.read_bytes()

    done(source, "float-bias", "bias_DQ")

    assert source.path.read_bytes() == before


def test_a_disk_that_fills_up_leaves_no_half_of_a_mended_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, stream: BinaryIO) -> None:
        stream.write(source.read_bytes()[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    source = save_model(CORPUS[next(iter(CORPUS))], Interface(inputs=(), outputs=()))
    monkeypatch.setattr(convkit.mended, "copy_file", full)

    with pytest.raises(OSError, match="No space"):
        write_mended(source, tmp_path / "mended.onnx")
    assert list(tmp_path.glob("*.onnx")) == []
