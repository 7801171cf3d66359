"""The sample models in every precision to every target, by command line: what is said, written and emitted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from e2e.command import Command, hold_to_head
from e2e.matrix import CASES, ENGINES, Case, Conversion, Matrix
from e2e.published import (
    accuracy,
    answers,
    files_below,
    hold_config_to_model,
    hold_statement_to_disk,
    operators,
    read_config,
)

REPORTS = {"report.json", "report.html", "report.md"}
CONFIGURATIONS = {
    "onnxruntime": {"config.pbtxt": ("onnxruntime", "model.onnx", "KIND_CPU")},
    "tensorrt": {
        "config.pbtxt": ("tensorrt", "model.plan", "KIND_GPU"),
        "configs/cpu.pbtxt": ("onnxruntime", "convkit/model.onnx", "KIND_CPU"),
    },
    "tensorrt-rtx": {},
}
"""What each target's configurations load, and where they run it. Triton does not load TensorRT-RTX's engines."""
STAGES = {"fp32": set(), "fp16": {"precision"}, "dynamic": {"quantize"}, "int8": {"calibrate", "quantize"}}


@pytest.fixture(params=CASES, ids=str)
def conversion(request: pytest.FixtureRequest, matrix: Matrix) -> Conversion:
    made = matrix[request.param]
    assert made.outcome.exit_status == 0, made.outcome.stderr
    return made


def test_the_result_says_what_was_made_and_where(conversion: Conversion) -> None:
    case, result = conversion.case, conversion.result

    hold_to_head(result)
    assert result["status"] == "ok"
    assert result["exit_code"] == 0
    assert result["repository"] == str(conversion.repository)
    assert result["model"] == str(conversion.model)
    assert result["name"] == case.name
    assert result["version"] == 1
    assert result["engine"] == ENGINES[case.target]
    assert result["report"] == str(conversion.records / "report.json")
    assert result["candidate"] is None
    assert result["verification"]["passed"] is True
    assert [output["name"] for output in result["verification"]["outputs"]] == list(case.digits.outputs)
    compiled = {"compile"} if case.target != "onnxruntime" else set()
    ran = {stage["name"] for stage in result["stages"]} - {"publish"}
    assert ran == {"source", "simplify", "check"} | STAGES[case.precision] | compiled


def test_nothing_but_the_result_is_on_standard_output_and_no_traceback_anywhere(conversion: Conversion) -> None:
    assert conversion.outcome.stdout.startswith("{")
    assert conversion.outcome.stdout.endswith("}\n")
    assert "Traceback" not in conversion.outcome.stderr


def test_the_files_are_those_that_the_contract_lists(conversion: Conversion) -> None:
    found = set(files_below(conversion.model))

    match conversion.case.target:
        case "onnxruntime":
            records = {f"1/convkit/{name}" for name in {"manifest.json"} | REPORTS}
            wanted = {"config.pbtxt", "1/model.onnx"} | records
            further = ("warmup/", "1/convkit/")
        case "tensorrt":
            pending = {f"pending/1/{name}" for name in {"model.onnx", "build.json", "manifest.json"} | REPORTS}
            wanted = {"config.pbtxt", "configs/cpu.pbtxt"} | pending
            further = ("warmup/", "pending/1/")
        case _:
            records = {f"1/convkit/{name}" for name in {"manifest.json", "model.onnx", "build.json"} | REPORTS}
            wanted = {"1/model.engine", "1/model_ctx.onnx", "1/README.md"} | records
            further = ("1/convkit/",)  # and no config.pbtxt
    assert wanted - found == set()
    assert [name for name in sorted(found - wanted) if not name.startswith(further)] == []


def test_the_report_on_the_disk_begins_with_the_result(conversion: Conversion) -> None:
    report = json.loads((conversion.records / "report.json").read_text(encoding="utf-8"))

    assert report["schema"] == "convkit.report/1"
    assert {**report, "schema": "convkit.result/1"}.items() >= conversion.result.items()


def test_the_manifest_is_an_in_toto_statement_whose_digests_hold(conversion: Conversion) -> None:
    case = conversion.case

    hold_statement_to_disk(
        conversion.records / "manifest.json", conversion.version, conversion.model, case.digits.sources
    )


def test_the_configuration_is_the_models(conversion: Conversion) -> None:
    for file, (backend, served, kind) in CONFIGURATIONS[conversion.case.target].items():
        config = read_config(conversion.model / file)
        hold_config_to_model(config, conversion.onnx)
        assert config.name == conversion.case.name
        assert config.max_batch_size == conversion.case.digits.max_batch_size
        assert config.HasField("dynamic_batching") == (config.max_batch_size > 0)
        assert config.version_policy.latest.num_versions == 1
        assert (config.backend, config.default_model_filename) == (backend, served)
        [group] = config.instance_group
        assert group.Kind.Name(group.kind) == kind
        assert [len(request.inputs) for request in config.model_warmup] == [len(conversion.case.digits.inputs)]


def test_the_model_is_whole_and_old_enough_for_triton_24_10(conversion: Conversion) -> None:
    model = onnx.load(conversion.onnx)

    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= 10
    assert {entry.domain: entry.version for entry in model.opset_import}[""] <= 21
    assert {node.domain for node in model.graph.node} == {""}


def test_the_graph_is_in_the_precision_asked_for(conversion: Conversion) -> None:
    model = onnx.load(conversion.onnx)
    weights = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) > 1}
    found = operators(conversion.onnx)

    match conversion.case.precision:
        case "fp32":
            assert weights == {onnx.TensorProto.FLOAT}
            assert not found & {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}
        case "fp16":
            assert weights == {onnx.TensorProto.FLOAT16}
        case "dynamic":
            assert {"DynamicQuantizeLinear", "MatMulInteger"} <= found
            assert onnx.TensorProto.INT8 in weights
        case _:
            assert {"QuantizeLinear", "DequantizeLinear"} <= found
            assert "DynamicQuantizeLinear" not in found
            assert onnx.TensorProto.INT8 in weights


@pytest.mark.parametrize("case", [case for case in CASES if case.target != "onnxruntime"], ids=str)
def test_no_zero_point_for_tensorrt_is_other_than_signed_and_0(case: Case, matrix: Matrix) -> None:
    model = onnx.load(matrix[case].onnx)
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]

    assert bool(nodes) == (case.precision == "int8")
    for node in nodes:
        zero_point = values[node.input[2]]
        assert zero_point.dtype == np.int8
        assert not zero_point.any(), node.name


def test_the_model_reads_held_out_digits_as_well_as_its_source(conversion: Conversion) -> None:
    digits = conversion.case.digits

    scores = answers(conversion.onnx, digits.inputs)[digits.output]

    assert accuracy(scores, digits.labels) >= accuracy(digits.scores, digits.labels) - 0.01


def test_nothing_that_is_published_names_a_path_of_this_machine(conversion: Conversion) -> None:
    naming = {
        name
        for name in files_below(conversion.model)
        if Path(name).name not in REPORTS
        and any(path in (conversion.model / name).read_bytes() for path in machine_paths(conversion))
    }

    assert naming == set()


def machine_paths(conversion: Conversion) -> list[bytes]:
    source = conversion.case.digits.folder
    paths = [Path.home(), source.parents[1], conversion.repository.parent]
    return [str(path).encode() for path in paths if path != path.parent] + [b"site-packages"]


@pytest.mark.parametrize("case", [case for case in CASES if case.precision == "int8"], ids=str)
def test_the_same_command_again_publishes_nothing_and_says_so(case: Case, matrix: Matrix, convkit: Command) -> None:
    first = matrix[case]
    before = {path: path.stat().st_mtime_ns for path in first.repository.rglob("*")}
    logs = set((convkit.cache / "logs").iterdir())

    again = convkit.convert(case.digits.folder, *case.arguments, "--name", case.name, "-o", first.repository)

    assert again.exit_status == 0
    hold_to_head(again.result)
    assert again.result["status"] == "unchanged"
    assert again.result["version"] == 1
    assert again.result["report"] == first.result["report"]
    assert {path: path.stat().st_mtime_ns for path in first.repository.rglob("*")} == before
    assert set((convkit.cache / "logs").iterdir()) == logs, "a worker was started"
