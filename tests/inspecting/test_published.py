"""What is told of a published version and of a serialized engine."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from cli.program import Program
from sources.onnx_files import model, write

from convkit.api import convert
from convkit.errors import InputError
from convkit.inspecting import inspect_model
from convkit.report.inspection import Inspection
from convkit.report.inspection_sheet import sections
from convkit.report.terminal import sections_to_terminal
from convkit.request import make_request


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("published")
    source = write(folder / "net", model())
    convert(source, output=folder / "models", name="net", measure={"mode": "none"}, cache=cache_folder)
    return folder / "models"


def told_of(path: Path, **options: bool) -> Inspection:
    return inspect_model(make_request({"model": str(path)}, environment={}), roofline=False, **options)


@pytest.mark.parametrize("below", ["", "net", "net/1"])
def test_a_repository_a_model_and_a_version_tell_the_same(repository: Path, below: str) -> None:
    told = told_of(repository / below)

    assert (told.name, told.kind) == ("net", "published model")
    assert told.published is not None
    assert (told.published.version, told.published.target, told.published.backend) == (1, "onnxruntime", "onnxruntime")
    assert list(told.files) == ["model.onnx"]
    assert [tensor.name for tensor in told.inputs] == ["x"]
    assert told.inputs[0].dims is not None
    assert told.inputs[0].dims[0] == "batch"
    assert told.work is not None
    assert told.untrusted == told.left_out == ()


def test_a_repository_of_several_models_asks_for_one(repository: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "1").mkdir(parents=True)

    with pytest.raises(InputError, match="holds 2 models: a, b"):
        told_of(tmp_path)


@pytest.mark.parametrize(("magic", "flavour"), [(b"vtrt", "TensorRT-RTX"), (b"ftrt", "TensorRT")])
def test_an_engine_names_the_version_that_built_it(tmp_path: Path, magic: bytes, flavour: str) -> None:
    (tmp_path / "net.engine").write_bytes(magic + bytes(20) + bytes((1, 7, 1, 116)) + bytes(100))

    told = told_of(tmp_path / "net.engine")

    assert told.engine is not None
    assert (told.engine.flavour, told.engine.version, told.engine.bytes) == (flavour, "1.7.1.116", 128)
    assert [left_out.what for left_out in told.left_out] == ["inputs and outputs"]


def test_an_engine_in_a_repository_has_the_inputs_of_its_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "net" / "1"
    folder.mkdir(parents=True)
    (folder / "model.plan").write_bytes(b"ftrt" + bytes(20) + bytes((10, 16, 1, 11)))
    (tmp_path / "net" / "config.pbtxt").write_text(
        'platform: "tensorrt_plan" max_batch_size: 4 '
        'input [{ name: "x" data_type: TYPE_FP16 dims: [3, -1] }] '
        'output [{ name: "y" data_type: TYPE_INT64 dims: [1] }]'
    )

    for told in (told_of(folder / "model.plan"), told_of(tmp_path / "net")):
        assert told.engine is not None
        assert told.engine.version == "10.16.1.11"
        assert [(tensor.name, tensor.dtype, tensor.dims) for tensor in (*told.inputs, *told.outputs)] == [
            ("x", "float16", ("batch", 3, "x_2")),
            ("y", "int64", ("batch", 1)),
        ]
        assert [(dim.name, dim.low, dim.high) for dim in told.dynamic] == [("batch", 1, 4), ("x_2", None, None)]


@pytest.mark.parametrize("width", [60, 120])
def test_no_line_is_wider_than_the_terminal(repository: Path, width: int) -> None:
    told = inspect_model(make_request({"model": str(repository)}, environment={}))

    told = msgspec.structs.replace(told, model="models/net")  # a path may be as long as it likes
    lines = sections_to_terminal(sections(told), width=width).splitlines()

    assert max(map(len, lines)) <= width
    assert {"Inputs and outputs", "Operators", "Dynamic dimensions"} <= set(lines)
    assert any(line.startswith("Bound by ") for line in lines)


def test_the_command_shows_it_and_writes_the_draft(tmp_path: Path, cache_folder: Path) -> None:
    write(tmp_path, model())
    convkit = Program(tmp_path, cache_folder)

    shown = convkit("inspect", "net.onnx", "--no-roofline", "--write")
    again = convkit("inspect", "net.onnx", "--no-roofline", "--write")
    quick = convkit("inspect", "net.onnx", "--quick", "--json")

    assert shown.status == 0
    assert "multiply-accumulates" in shown.out
    assert (tmp_path / "config.txt").is_file()
    assert again.status == 2
    assert "exists" in again.err
    assert quick.result["config"] == str(tmp_path / "config.txt")
    assert quick.result["work"] is None
