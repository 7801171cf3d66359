"""config.txt: what it says is read as meant, and every mistake is answered with its line, its key and the cure."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from convkit.errors import ExitStatus, MetadataError
from convkit.spec.metadata import (
    DATA_TYPES,
    LARGEST_DIM,
    LONGEST_NAME,
    Metadata,
    TensorMetadata,
    parse_metadata,
    read_metadata,
    render_metadata,
)
from convkit.spec.tensor import DType

from .configs import CONFIG, DL_INFERENCE_EXAMPLE, changed, refusal, with_keys

SAMPLE_MODELS = Path(__file__).parents[2] / "sample_models"


# What is read


def test_dl_inferences_own_example_is_read_as_it_stands() -> None:
    assert parse_metadata(DL_INFERENCE_EXAMPLE) == Metadata(
        batch_size=0,
        inputs=(TensorMetadata(name="image", node_name="input_1:0", dtype=DType.FLOAT32, dims=(-1, 224, 224, 3)),),
        outputs=(TensorMetadata(name="probs", node_name="dense_1/Softmax:0", dtype=DType.FLOAT32, dims=(-1, 19)),),
    )


def test_bytes_and_windows_line_ends_read_the_same_as_text() -> None:
    assert parse_metadata(CONFIG.replace("\n", "\r\n").encode()) == parse_metadata(CONFIG)


def test_the_config_of_every_sample_model_is_read() -> None:
    configs = sorted(SAMPLE_MODELS.glob("*/config.txt"))

    assert len(configs) >= 2
    assert all(read_metadata(config).inputs for config in configs)


@pytest.mark.parametrize(
    ("spelling", "dtype"),
    [
        ("bool", DType.BOOL),
        ("byte", DType.UINT8),
        ("uint8", DType.UINT8),
        ("char", DType.INT8),
        ("shrot", DType.INT16),
        ("short", DType.INT16),
        ("int", DType.INT32),
        ("long", DType.INT64),
        ("half", DType.FLOAT16),
        ("float16", DType.FLOAT16),
        ("bfloat16", DType.BFLOAT16),
        ("float", DType.FLOAT32),
        ("double", DType.FLOAT64),
        ("string", DType.STRING),
        ("uint16", DType.UINT16),
        ("uint32", DType.UINT32),
        ("uint64", DType.UINT64),
        ("float32", DType.FLOAT32),
        ("int64", DType.INT64),
        ("TYPE_FP32", DType.FLOAT32),
        ("TYPE_BF16", DType.BFLOAT16),
        ("TYPE_STRING", DType.STRING),
    ],
)
def test_a_data_type_is_known_by_dl_inferences_numpys_and_tritons_word(spelling: str, dtype: DType) -> None:
    assert DATA_TYPES[spelling] is dtype
    assert parse_metadata(changed('"float"', f'"{spelling}"')).inputs[0].dtype is dtype


def test_a_missing_name_is_the_node_name_and_the_other_way_round() -> None:
    without_name = parse_metadata(changed('"name": "image",', "")).inputs[0]
    without_node_name = parse_metadata(changed(',\n            "node_name": "input_1:0"', "")).inputs[0]

    assert (without_name.name, without_name.node_name) == ("input_1:0", "input_1:0")
    assert (without_node_name.name, without_node_name.node_name) == ("image", "image")


def test_optional_keys_are_read() -> None:
    tensor = parse_metadata(
        with_keys('"range": [-1, 0.5]', '"min_dims": [1, 3]', '"opt_dims": [4, 3]', '"max_dims": [4, 3]')
    ).inputs[0]

    assert tensor.range == (-1.0, 0.5)
    assert (tensor.min_dims, tensor.opt_dims, tensor.max_dims) == ((1, 3), (4, 3), (4, 3))


def test_a_scalar_and_dynamic_dims_anywhere_are_taken_where_batch_size_is_0() -> None:
    assert parse_metadata(with_keys(dims="[]")).inputs[0].dims == ()
    assert parse_metadata(with_keys(dims="[3, -1, -1]")).inputs[0].dims == (3, -1, -1)


def test_a_batch_written_as_the_batch_size_may_still_be_smaller() -> None:
    profile = ('"min_dims": [1, 3]', '"opt_dims": [4, 3]', '"max_dims": [8, 3]')

    assert parse_metadata(with_keys(*profile, batch_size=8, dims="[8, 3]").replace('"dims": [-1]', '"dims": [8]'))


# Mistakes of meaning


@pytest.mark.parametrize(
    ("content", "start", "code", "hint"),
    [
        ("[]", "config.txt, line 1: a list is not an object", "wrong-type", "batch_size, input, output"),
        (changed("8,", '"8",'), "config.txt, line 2: batch_size: '8' is not a whole number", "wrong-type", "0"),
        (changed("8,", "8.0,"), "config.txt, line 2: batch_size: 8.0 is not a whole number", "wrong-type", "0"),
        (changed("8,", "true,"), "config.txt, line 2: batch_size: true is not", "wrong-type", "0"),
        (changed("8,", "-1,"), "config.txt, line 2: batch_size: -1 is not a batch size", "batch", "0"),
        (changed("8,", "2147483648,"), "config.txt, line 2: batch_size: 2147483648", "batch", "0"),
        (changed('"batch_size": 8,', ""), "config.txt, line 1: batch_size: this key is missing", "missing-key", "0"),
        (changed('"input"', '"inputs"'), "config.txt, line 3: inputs: this key is unknown", "unknown-key", "'input'?"),
        (changed('"batch_size"', '"batchsize"'), "config.txt, line 2: batchsize: ", "unknown-key", "'batch_size'?"),
        (changed('"dims"', '"shape"'), "config.txt, line 7: input[0].shape: ", "unknown-key", "mean 'dims'?"),
        (changed('"dims"', '"qqq"'), "config.txt, line 7: input[0].qqq: ", "unknown-key", "here are name, data_type"),
        (
            changed('"dims": [-1, 28, 28, 1],', ""),
            "config.txt, line 4: input[0].dims: this key is missing",
            "missing-key",
            '"dims": [-1,',
        ),
        (
            changed('"data_type": "int",', ""),
            "config.txt, line 10: input[1].data_type: this key is missing",
            "missing-key",
            '"data_type": "float"',
        ),
        (
            changed('"name": "image",', "", ',\n            "node_name": "input_1:0"', ""),
            "config.txt, line 4: input[0]: neither 'name' nor 'node_name'",
            "missing-key",
            "node_name",
        ),
        (changed('"float"', '"floot"'), "config.txt, line 6: input[0].data_type: unknown data_type 'floot'",
         "unknown-type", "did you mean 'float'? convkit knows: bool, byte"),
        (changed('"float"', '"INT"'), "config.txt, line 6: input[0].data_type: ", "unknown-type", "mean 'int'?"),
        (changed('"float"', '"complex64"'), "config.txt, line 6: input[0].data_type: ", "unknown-type", "knows: bool"),
        (changed('"float"', "1"), "config.txt, line 6: input[0].data_type: 1 is not a string", "wrong-type", "float"),
        (changed("28, 28", "0, 28"), "config.txt, line 7: input[0].dims[1]: 0 is not a dim", "dims", "-1"),
        (changed("28, 28", "28,\n\n-2"), "config.txt, line 9: input[0].dims[2]: -2 is not a dim", "dims", "-1"),
        (changed("28, 28", "28, true"), "config.txt, line 7: input[0].dims[2]: true is not", "wrong-type", "-1"),
        (changed("28, 28", "28, 28.0"), "config.txt, line 7: input[0].dims[2]: 28.0 is not", "wrong-type", "-1"),
        (changed("28, 28", '28, "h"'), "config.txt, line 7: input[0].dims[2]: 'h' is not", "wrong-type", "-1"),
        (changed("28, 28", f"28, {LARGEST_DIM + 1}"), "config.txt, line 7: input[0].dims[2]: ", "dims", "real size"),
        (changed("28, 28", "2000000, 2000000"), "config.txt, line 7: input[0].dims: ", "dims", "real size"),
        (changed("[-1, 28, 28, 1]", str([1] * 33)), "config.txt, line 7: input[0].dims: 33 dims", "dims", "whole"),
        (changed("[-1, 28, 28, 1]", "28"), "config.txt, line 7: input[0].dims: 28 is not a list", "wrong-type", "[-1"),
        (changed("[-1, 28", "[4, 28"), "config.txt, line 7: input[0].dims[0]: the batch is 4", "batch", "-1 or 8"),
        (changed("[-1, 10]", "[10]"), "config.txt, line 21: output[0].dims[0]: the batch is 10", "batch", "-1 or 8"),
        (changed("[8, -1]", "[]"), "config.txt, line 13: input[1].dims: a scalar has no batch", "batch", "to 0"),
        (changed("weight", "image"), "config.txt, line 11: input[1].name: 'image' is already the name of input[0]",
         "duplicate", "own"),
        (changed("dense_1/Softmax:0", "input_1:0"), "config.txt, line 22: output[0].node_name: 'input_1:0' is already",
         "duplicate", "own"),
        ('{"batch_size": 0, "input": [],\n"output": []}', "config.txt, line 1: input: the list is empty",
         "missing-key", '"input": ['),
        ('{"batch_size": 0, "input": {},\n"output": []}', "config.txt, line 1: input: an object is not a list",
         "wrong-type", '"input": ['),
        ('{"batch_size": 0, "output": [],\n"input":\n[null]}', "config.txt, line 3: input[0]: null is not an object",
         "wrong-type", "node_name"),
    ],
)  # fmt: skip
def test_a_mistake_names_its_line_and_key_and_what_would_be_right(
    content: str, start: str, code: str, hint: str
) -> None:
    error = refusal(content)

    assert error.message.startswith(start)
    assert error.code == f"metadata.{code}"
    assert hint in error.hint
    assert error.exit_status == ExitStatus.INPUT_REFUSED


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("/etc/passwd", "is a path"),
        ("C:\\\\model", "is a path"),
        ("C:/model", "is a path"),
        ("../model", "is a path"),
        ("a/../b", "is a path"),
        ("./a", "is a path"),
        ("a\\\\b", "is a path"),
        ("a\\u0000b", "control character"),
        ("a\\nb", "control character"),
        ("a\\u2028b", "control character"),
        ("", "is empty"),
        ("  ", "is empty"),
        (" a", "white space"),
        ("x" * (LONGEST_NAME + 1), "longer than 512"),
    ],
)
def test_a_name_that_is_no_tensors_name_is_refused(name: str, problem: str) -> None:
    for key, old, line in (("name", '"image"', 5), ("node_name", '"input_1:0"', 8)):
        error = refusal(changed(old, f'"{name}"'))

        assert error.message.startswith(f"config.txt, line {line}: input[0].{key}: ")
        assert problem in error.message
        assert error.code == "metadata.name"


@pytest.mark.parametrize("name", ["dense_2/Softmax:0", "a.b-c", "i", "a..b", "model/:0", "图像", "x" * LONGEST_NAME])
def test_names_as_frameworks_give_them_are_taken(name: str) -> None:
    assert parse_metadata(changed("input_1:0", name)).inputs[0].node_name == name


@pytest.mark.parametrize(
    ("data_type", "bounds", "problem"),
    [
        ("float", "[1, 0]", "input[0].range: the first bound is above the second"),
        ("float", "[1]", "input[0].range: 1 items, not two"),
        ("float", "[0, 1, 2]", "input[0].range: 3 items, not two"),
        ("float", "1", "input[0].range: 1 is not a list"),
        ("float", "null", "input[0].range: null is not a list"),
        ("float", '[0, "1"]', "input[0].range[1]: '1' is not a number"),
        ("float", "[false, 1]", "input[0].range[0]: false is not a number"),
        ("float", "[0, 1e39]", "input[0].range[1]: 1e+39 is not a value of float32"),
        ("half", "[0, 65505]", "input[0].range[1]: 65505 is not a value of float16"),
        ("double", f"[0, {'9' * 400}]", "is not a value of float64"),
        ("uint8", "[0, 256]", "input[0].range[1]: 256 is not a value of uint8"),
        ("uint8", "[-1, 2]", "input[0].range[0]: -1 is not a value of uint8"),
        ("char", "[-129, 2]", "input[0].range[0]: -129 is not a value of int8"),
        ("int", "[0, 0.5]", "input[0].range[1]: 0.5 is not a value of int32"),
        ("long", f"[0, {2**63 - 1}]", "input[0].range[1]: 9223372036854775807 is not a value of int64"),
        ("bool", "[0, 2]", "input[0].range[1]: 2 is not a value of bool"),
        ("string", "[0, 1]", "input[0].range: strings have no range"),
    ],
)
def test_a_range_that_the_type_cannot_hold_is_refused(data_type: str, bounds: str, problem: str) -> None:
    error = refusal(with_keys(f'"range": {bounds}', data_type=data_type))

    assert error.message.startswith("config.txt, line 3: ")
    assert problem in error.message
    assert error.code in ("metadata.range", "metadata.wrong-type")
    assert error.hint


@pytest.mark.parametrize(
    ("keys", "batch_size", "problem"),
    [
        (['"min_dims": [1]'], 0, "line 3: input[0].min_dims: 1 dims, where 'dims' has 2"),
        (['"min_dims": [1, 4]'], 0, "line 3: input[0].min_dims[1]: 4, where 'dims' has the fixed 3"),
        (['"min_dims": [-1, 3]'], 0, "line 3: input[0].min_dims[0]: -1 has no place here"),
        (['"min_dims": [0, 3]'], 0, "line 3: input[0].min_dims[0]: 0 is not a dimension"),
        (['"min_dims": [5, 3]', '"opt_dims": [4, 3]'], 0, "line 3: input[0].min_dims[0]: 5 is more than 4"),
        (['"min_dims": [5, 3]', '"max_dims": [4, 3]'], 0, "line 3: input[0].min_dims[0]: 5 is more than 4"),
        (['"max_dims": [4, 3]', '"opt_dims": [5, 3]'], 0, "line 4: input[0].opt_dims[0]: 5 is more than 4"),
        (['"min_dims": [2, 3]'], 8, "line 3: input[0].min_dims[0]: the batch is 2, where batch_size 8 promises"),
        (['"max_dims": [4, 3]'], 8, "line 3: input[0].max_dims[0]: the batch is 4, where batch_size 8 promises"),
        (['"opt_dims": [9, 3]'], 8, "line 3: input[0].opt_dims[0]: the batch is 9, more than"),
    ],
)
def test_a_profile_that_does_not_fit_the_dims_is_refused(keys: list[str], batch_size: int, problem: str) -> None:
    error = refusal(with_keys(*keys, batch_size=batch_size))

    assert problem in error.message
    assert error.code in ("metadata.dims", "metadata.batch")
    assert error.hint


# Files


def test_a_file_is_read_and_its_path_stands_in_errors(tmp_path: Path) -> None:
    path = tmp_path / "config.txt"
    path.write_text(CONFIG)
    assert read_metadata(path) == parse_metadata(CONFIG)

    path.write_text(changed("28, 28", "0, 28"))
    with pytest.raises(MetadataError) as caught:
        read_metadata(path)
    assert caught.value.message.startswith(f"{path}, line 7: input[0].dims[1]: ")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: os.mkfifo(path), "is not a file"),
        (lambda path: path.write_bytes(b" " * (2**18 + 1)), "larger than 256 KiB"),
    ],
)
def test_what_is_no_readable_file_is_refused(tmp_path: Path, make: Callable[[Path], object], problem: str) -> None:
    path = tmp_path / "config.txt"
    make(path)

    with pytest.raises(MetadataError) as caught:
        read_metadata(path)

    assert str(path) in caught.value.message
    assert problem in caught.value.message
    assert (caught.value.code, bool(caught.value.hint)) == ("metadata.file", True)


def test_a_path_that_the_system_refuses_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MetadataError, match="cannot be read: File name too long"):
        read_metadata(tmp_path / ("x" * 300))


def test_what_is_written_looks_like_dl_inferences_files() -> None:
    assert (
        render_metadata(parse_metadata(with_keys('"range": [0, 255]', data_type="byte")))
        == """\
{
    "batch_size": 0,
    "input": [
        {
            "name": "i",
            "data_type": "uint8",
            "dims": [-1, 3],
            "node_name": "i",
            "range": [0, 255]
        }
    ],
    "output": [
        {
            "name": "o",
            "data_type": "float32",
            "dims": [-1],
            "node_name": "o"
        }
    ]
}
"""
    )


def test_reading_a_config_imports_nothing_heavy() -> None:
    script = "import sys, convkit.spec.metadata; print({'numpy', 'onnx', 'torch', 'tensorflow'} & set(sys.modules))"

    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "set()"
