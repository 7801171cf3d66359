"""The printed JSON Schemas, held against the parsers: what convkit takes they take, and what they refuse it refuses."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import convkit
from convkit.errors import ConvkitError, MetadataError
from convkit.fleet import summarized
from convkit.report.document import Built, Report, Result, Status, failed
from convkit.request import Request, request_from
from convkit.schema import SCHEMAS, schema
from convkit.spec.meanings import meanings
from convkit.spec.metadata import parse_metadata
from convkit.spec.recipe import Layer
from schemas.validator import Validator

ROOT = Path(__file__).resolve().parents[2]

CONFIG: dict[str, Any] = {
    "batch_size": 8,
    "input": [
        {
            "name": "image",
            "data_type": "float",
            "dims": [-1, 28, 28, 1],
            "node_name": "input_1:0",
            "range": [0, 1],
            "min_dims": [1, 28, 28, 1],
            "opt_dims": [4, 28, 28, 1],
            "max_dims": [8, 28, 28, 1],
        },
        {"data_type": "TYPE_INT32", "dims": [8, -1], "node_name": "dense_1/Softmax:0"},
    ],
    "output": [{"name": "probs", "data_type": "float", "dims": [-1, 10]}],
}
ODD: tuple[Any, ...] = (None, True, -2, -1, 0, 1, 3, 2**31, 0.5, "", " x", "x", "a/../b", "/x", "C:/x", "a\\b", "\n")
ODD += ([], {}, [[]], [-1], [0], ["x"], [0.5], [1, 2, 3], {"x": 1}, "int64", "floot", "x" * 513)
SEMANTIC = {"metadata.batch", "metadata.dims", "metadata.range", "metadata.duplicate", "metadata.name"}
"""Codes of refusals that JSON Schema cannot express in general: how values go together."""


def spoilt(value: Any, whole: Any, path: tuple[Any, ...] = ()) -> Iterator[Any]:
    """Yield copies of a document, in each of which one thing is missing, odd or too much."""
    for odd in ODD:
        yield replaced(whole, path, odd)
    if isinstance(value, dict):
        yield replaced(whole, path, {**value, "unknown": 1})
        for key in value:
            yield replaced(whole, path, {name: inner for name, inner in value.items() if name != key})
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from spoilt(inner, whole, (*path, key))


def replaced(whole: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    document = copy.deepcopy(whole)
    inner = document
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    return document


def test_the_schema_of_config_takes_what_the_parser_takes_and_refuses_what_is_malformed() -> None:
    validator = Validator(schema("config"))
    verdicts = {"both take": 0, "both refuse": 0, "only the parser refuses": 0}
    for document in [CONFIG, *spoilt(CONFIG, CONFIG)]:
        try:
            parse_metadata(json.dumps(document))
            code = None
        except MetadataError as error:
            code = error.code
        taken = validator.accepts(document)
        assert taken or code is not None, f"the schema refuses what convkit takes: {document}"
        if taken and code is not None:
            assert code in SEMANTIC, f"{code}: the schema takes what convkit refuses: {document}"
        verdicts["both take" if code is None else "only the parser refuses" if taken else "both refuse"] += 1

    assert verdicts["both take"] > 20
    assert verdicts["both refuse"] > 500
    assert verdicts["only the parser refuses"] < verdicts["both refuse"] / 4


@pytest.mark.parametrize("path", sorted(ROOT.glob("sample_models/*/config.txt")), ids=lambda path: path.parent.name)
def test_the_schema_of_config_takes_the_samples(path: Path) -> None:
    assert Validator(schema("config")).accepts(json.loads(path.read_text(encoding="utf-8")))


RECIPE: dict[str, Any] = {
    "model": "m",
    "to": "tensorrt",
    "version": 3,
    "trust": ["yes"],
    "engine": "defer",
    "export": {"opset": 17, "tensor_names": "name", "max_batch_size": 0},
    "simplify": {"chain": ["onnxsim"]},
    "quantize": {"precision": "int8", "samples": 5, "allow_random": True},
    "check": {"max_error": 0.5},
    "triton": {"version_policy": "all", "gpus": [0, 1]},
    "tensorrt": {"profiles": [{"x": {"min": [1], "opt": [2], "max": [3]}}], "workspace": 1, "version_compatible": True},
    "tensorrt-rtx": {"compute_capabilities": ["8.9"]},
}


def decoded(document: Any) -> bool:
    if not isinstance(document, dict):
        return False
    try:
        msgspec.convert({"model": "m", **document}, type=Request)
    except msgspec.ValidationError:
        return False
    return True


def test_the_schema_of_recipes_takes_exactly_the_values_that_are_decoded() -> None:
    validator = Validator(schema("recipe"))
    taken = 0
    for document in [RECIPE, *spoilt(RECIPE, RECIPE)]:
        if has_null(document):  # TOML has none
            continue
        assert validator.accepts(document) == decoded(document), document
        taken += decoded(document)

    assert taken > 50


def has_null(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(has_null, value.values()))
    return value is None or (isinstance(value, list) and any(map(has_null, value)))


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("", True),
        ('extends = "base.toml"', True),
        ("extends = 3", False),
        ('env = ["A", "B"]', True),
        ('env = ["A-B"]', False),
        ('[env]\nA = "x"', True),
        ("[env]\nA = 3", False),
        ('[[model]]\nmodel = "m"\nextends = "x"\n[model.quantize]\nprecision = "int8"', True),
        ('[[model]]\nname = "m"', False),
        ('[[model]]\nmodel = "m"\n[model.quantize]\nprecision = "int9"', False),
        ('[[model]]\nmodel = "m"\nenv = ["A"]', False),
        ("model = []", False),
    ],
)
def test_the_schema_of_recipes_knows_what_only_files_hold(text: str, taken: bool) -> None:
    assert Validator(schema("recipe")).accepts(tomllib.loads(text)) is taken


@pytest.mark.parametrize("path", sorted(ROOT.glob("recipes/*.toml")), ids=lambda path: path.name)
def test_the_schema_of_recipes_takes_those_that_are_shipped(path: Path) -> None:
    assert Validator(schema("recipe")).accepts(tomllib.loads(path.read_text(encoding="utf-8")))


def test_every_key_of_a_recipe_says_what_it_is() -> None:
    found = schema("recipe")
    tables = [found, *(found["$defs"][name] for name in found["$defs"] if name.endswith("Options"))]
    silent = [
        (table.get("title"), key)
        for table in tables
        for key, value in table["properties"].items()
        if "description" not in value and "$ref" not in value and key != "model"
    ]

    assert [key for _, key in silent if key in ("to", "output", "data", "samples", "workspace")] == []
    assert meanings(Request)["to"] == "The target."


def result_of(report: Report | Result) -> Any:
    return json.loads(msgspec.json.encode(report))


def test_real_results_and_reports_hold_to_their_schemas(tmp_path: Path) -> None:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "xy"]
    weight = numpy_helper.from_array(np.eye(2, dtype=np.float32), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "model.onnx"
    )

    report = convkit.convert(tmp_path / "model.onnx", name="m", output=tmp_path / "models", cache=tmp_path / "cache")
    error = ConvkitError("m", hint="h", code="c")

    reports, results = Validator(schema("report")), Validator(schema("result"))
    assert reports.accepts(result_of(report))
    assert reports.accepts(json.loads((tmp_path / "models/m/1/convkit/report.json").read_bytes()))
    assert not reports.accepts({**result_of(report), "status": "fine"})
    assert not reports.accepts({**result_of(report), "schema": "convkit.report/2"})
    for each in (report.head(), failed(error), summarized((report, failed(error))).head()):
        assert results.accepts(json.loads(msgspec.json.encode(each)))
    assert results.accepts(result_of(Built(status=Status.OK, exit_code=0, results=(report.head(),))))  # type: ignore[arg-type]
    assert not results.accepts({**result_of(report.head()), "exit_code": "0"})


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_command_prints_the_schema(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "convkit", "schema", name], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert json.loads(done.stdout) == json.loads(msgspec.json.encode(schema(name)))
    assert json.loads(done.stdout)["$schema"].startswith("https://json-schema.org/")


def test_an_unknown_document_is_a_usage_error() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "convkit", "schema", "model"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert "'recipe', 'config', 'report', 'result'" in done.stderr


def test_a_request_is_what_the_schema_says_of_it() -> None:
    assert request_from([Layer(table=RECIPE)], {}, environment={}).version == 3
