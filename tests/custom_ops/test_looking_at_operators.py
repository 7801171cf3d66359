"""`inspect`, `check` and `compare` on models with operators of the user's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest
from e2e.command import Command

import convkit as library_of_convkit
from convkit.errors import UsageError
from custom_ops.operators import IN_STANDARD_OPERATORS, SHOWN, write_network

INSPECT, CHECK, COMPARE, REMEASURE = SHOWN[-4:]


@pytest.fixture
def place(published: Path, library: Path, onnx_file: Path, tmp_path: Path) -> Path:
    """A folder with what the page's last commands name."""
    shutil.copy(onnx_file, tmp_path / "my_model.onnx")
    shutil.copy(library, tmp_path / "libops.so")
    shutil.copytree(published / "scaled", tmp_path / "models" / "my_model")
    return tmp_path


def test_inspect_tells_what_a_call_costs_where_it_is_given_the_library(convkit: Command, place: Path) -> None:
    without = convkit("inspect", "my_model.onnx", "--no-roofline", "--json", cwd=place).result
    given = convkit(*INSPECT.split(), "--no-roofline", "--json", cwd=place).result

    assert without["left_out"][0]["code"] == "custom-ops.unknown"
    assert given["status"] == "ok"
    assert given["graph"]["operators"] == {"example.ops::ScaledSigmoid": 1, "Add": 1}
    assert given["work"]["bytes_moved"] > 0


def test_inspect_reads_what_is_published_with_the_library_that_lies_beside_it(convkit: Command, place: Path) -> None:
    [named] = (place / "models" / "my_model" / "custom_ops").rglob("*.so")

    told = convkit("inspect", "models/my_model", "--custom-ops", named, "--no-roofline", "--json", cwd=place).result

    assert (told["kind"], told["status"]) == ("published model", "ok")
    assert "example.ops::ScaledSigmoid" in told["graph"]["operators"]


def test_check_judges_a_model_with_the_library(convkit: Command, place: Path) -> None:
    without = convkit("check", "my_model.onnx", "--to", "onnxruntime", "--json", cwd=place)
    given = convkit(*CHECK.split(), "--json", cwd=place)

    assert without.exit_status == 5
    assert "ScaledSigmoid" in without.result["findings"][0]["reason"]
    assert (given.exit_status, given.result["findings"]) == (0, [])


def test_check_takes_the_library_that_a_recipe_names(convkit: Command, place: Path) -> None:
    (place / "recipe.toml").write_text('[export]\ncustom_ops = ["libops.so"]\n', encoding="utf-8")

    told = convkit("check", "my_model.onnx", "--to", "onnxruntime", "--recipe", "recipe.toml", cwd=place)

    assert told.exit_status == 0, told.stderr


def test_compare_runs_both_models_with_the_library(convkit: Command, place: Path) -> None:
    without = convkit("compare", "my_model.onnx", "models/my_model", "--json", cwd=place)
    given = convkit(*COMPARE.split(), "--json", cwd=place)

    assert without.result["error"]["code"] == "custom-ops.unknown"
    assert given.exit_status == 0, given.stderr
    assert {tensor["name"] for tensor in given.result["tensors"]} == {"h", "y"}
    assert all(tensor["passed"] for tensor in given.result["tensors"])


def test_what_was_published_is_measured_again_with_the_library(convkit: Command, place: Path) -> None:
    without = convkit("report", "models/my_model", "--remeasure", "--measure", "none", "--json", cwd=place)
    given = convkit(*REMEASURE.split(), "--measure", "none", "--json", cwd=place)

    assert without.result["error"]["code"] == "custom-ops.unknown"
    assert given.exit_status == 0, given.stderr
    assert {"numbers: y": "no difference"}.items() <= {
        figure["name"]: figure["change"] for figure in given.result["models"][0]["figures"]
    }.items()


def test_a_search_for_the_node_at_fault_goes_past_the_librarys_operator(place: Path) -> None:
    proto = onnx.load(place / "my_model.onnx")
    proto.graph.node[1].op_type = "Mul"
    onnx.save(proto, place / "other.onnx")

    found = library_of_convkit.compare_models(
        place / "my_model.onnx",
        place / "other.onnx",
        custom_ops=[place / "libops.so"],
        bisect=True,
        write=place / "fault.onnx",
        cache=place / "cache",
    )

    assert found.search is not None
    assert found.search.found is not None
    assert found.search.found.operator == "Mul"
    assert [node.op_type for node in onnx.load(place / "fault.onnx").graph.node] == ["Mul"]


def test_inspect_imports_the_python_file_that_registers_the_operator(convkit: Command, tmp_path: Path) -> None:
    write_network(tmp_path / "my_model")
    (tmp_path / "operators.py").write_text(IN_STANDARD_OPERATORS, encoding="utf-8")

    told = convkit(
        *("inspect", "my_model", "--trust", "--custom-ops", "operators.py", "--no-roofline", "--json"), cwd=tmp_path
    ).result

    assert told["status"] == "ok", told["left_out"]
    assert told["work"]["macs"] == 4 * 8 + 8 * 3


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("inspect", "my_model.onnx", "--custom-ops", "operators.py"), "custom-ops.source"),
        (("compare", "my_model.onnx", "models/my_model", "--custom-ops", "operators.py"), "custom-ops.source"),
        (("check", "my_model.onnx", "--to", "tensorrt", "--custom-ops", "libops.so"), "custom-ops.target"),
        (("inspect", "model.plan", "--custom-ops", "libops.so"), "custom-ops.target"),
        (("check", "models", "--custom-ops", "libops.so"), "usage.together"),
        (("compare", "models", "models", "--custom-ops", "libops.so"), "usage.together"),
        (("report", "models", "--custom-ops", "libops.so"), "usage.together"),
        (("report", "models", "--remeasure", "--custom-ops", "operators.py"), "custom-ops.source"),
    ],
)
def test_a_file_that_nothing_would_load_is_refused(
    command: tuple[str, ...], code: str, convkit: Command, place: Path
) -> None:
    (place / "operators.py").write_text("", encoding="utf-8")
    (place / "model.plan").write_bytes(b"ftrt" + bytes(28))

    refused = convkit(*command, "--json", cwd=place)

    assert refused.exit_status == UsageError("", hint="", code="").exit_status
    assert refused.result["error"]["code"] == code
