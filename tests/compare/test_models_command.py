"""`convkit compare` on two models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from e2e.command import Command
from e2e.digits import MOBILE

import convkit as library
from convkit.graph.session import open_session
from tests.compare.graphs import chain


@pytest.fixture(scope="module")
def convkit(tmp_path_factory: pytest.TempPathFactory) -> Command:
    return Command(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """good.onnx, and bad.onnx with a fault in its second node."""
    onnx.save(chain("Relu", "Add", "Mul"), tmp_path / "good.onnx")
    onnx.save(chain("Relu", "Sub", "Mul"), tmp_path / "bad.onnx")
    return tmp_path


def test_models_that_differ_end_with_5_and_the_tensor_where_it_starts(convkit: Command, tmp_path: Path) -> None:
    onnx.save(chain("Relu", "Add", "Sign"), tmp_path / "good.onnx")
    onnx.save(chain("Relu", "Sub", "Sign"), tmp_path / "bad.onnx")

    told = convkit("compare", "good.onnx", "bad.onnx", cwd=tmp_path)

    assert told.exit_status == 5
    assert "The difference starts at 't1', made by the node '/1/Sub' (Sub)" in told.stdout
    rows = [line.split()[0] for line in told.stdout.splitlines() if line.endswith(("FAILED", "passed"))]
    assert rows == ["t2", "t1", "t0"]  # worst first
    assert "error: the output 't2' differs: largest difference 2" in told.stderr
    assert "--bisect" in told.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.onnx", "good.onnx"]


def test_equal_models_end_with_0_and_json_is_one_object(convkit: Command, models: Path) -> None:
    equal = convkit("compare", "good.onnx", "good.onnx", "--json", cwd=models)
    different = convkit("compare", "good.onnx", "bad.onnx", "--json", cwd=models)

    assert equal.exit_status == 0
    assert (equal.result["schema"], equal.result["status"]) == ("convkit.model-comparison/1", "ok")
    assert (equal.result["starts"], equal.result["error"]) == (None, None)
    assert [tensor["passed"] for tensor in equal.result["tensors"]] == [True, True, True]
    assert different.exit_status == different.result["exit_code"] == 5
    assert different.result["starts"]["name"] == "t1"
    assert different.result["error"]["code"] == "compare.models-differ"
    assert {"name", "max_abs", "max_rel", "cosine", "sqnr_db", "node"} <= different.result["tensors"][0].keys()


def test_more_difference_is_allowed_where_that_is_asked_for(convkit: Command, models: Path) -> None:
    assert convkit("compare", "good.onnx", "bad.onnx", "--max-error", "13", cwd=models).exit_status == 0
    assert convkit("compare", "good.onnx", "bad.onnx", "--max-error", "11", cwd=models).exit_status == 5


def test_samples_decide_what_is_seen(convkit: Command, models: Path) -> None:
    onnx.save(chain("Abs", "Add", "Mul"), models / "other.onnx")
    for name, sign in (("positive", 1), ("negative", -1)):
        np.savez(models / f"{name}.npz", x=np.full((3, 4, 4), sign, np.float32))

    same = convkit("compare", "good.onnx", "other.onnx", "--samples", "positive.npz", cwd=models)
    other = convkit("compare", "good.onnx", "other.onnx", "--samples", "negative.npz", cwd=models)

    assert (same.exit_status, other.exit_status) == (0, 5)


def test_bisect_writes_the_node_with_its_inputs_and_never_over_a_file(convkit: Command, models: Path) -> None:
    first = convkit("compare", "good.onnx", "bad.onnx", "--bisect", cwd=models)
    second = convkit("compare", "good.onnx", "bad.onnx", "--bisect", "--json", cwd=models)

    assert (first.exit_status, second.exit_status) == (5, 5)
    assert "/1/Sub (Sub)" in first.stdout
    search = second.result["search"]
    assert (search["found"]["node"], search["model"], search["data"]) == ("/1/Sub", "1_Sub-2.onnx", "1_Sub-2.npz")
    for stem in ("1_Sub", "1_Sub-2"):
        [node] = onnx.load(models / f"{stem}.onnx").graph.node
        assert (node.name, node.op_type) == ("/1/Sub", "Sub")
        with np.load(models / f"{stem}.npz") as data:
            [given] = open_session(models / f"{stem}.onnx").run(None, {"t0": data["t0"]})
            np.testing.assert_allclose(data["t1"] - given, 6, rtol=1e-5)


def test_bisect_writes_where_it_is_told_to_and_refuses_what_exists(convkit: Command, models: Path) -> None:
    arguments = ("compare", "good.onnx", "bad.onnx", "--bisect", "--write")

    written = convkit(*arguments, "fault.onnx", cwd=models)
    again = convkit(*arguments, "fault.onnx", "--json", cwd=models)
    nowhere = convkit(*arguments, "nowhere/fault.onnx", "--json", cwd=models)
    alone = convkit("compare", "good.onnx", "bad.onnx", "--write", "fault.onnx", "--json", cwd=models)

    assert written.exit_status == 5
    assert {path.name for path in models.iterdir()} == {"good.onnx", "bad.onnx", "fault.onnx", "fault.npz"}
    assert (again.exit_status, again.result["error"]["code"]) == (2, "compare.write-exists")
    assert (nowhere.exit_status, nowhere.result["error"]["code"]) == (2, "compare.write-name")
    assert (alone.exit_status, alone.result["error"]["code"]) == (2, "usage.together")


def test_a_difference_that_dies_out_is_shown_and_no_failure(convkit: Command, tmp_path: Path) -> None:
    onnx.save(chain("Add", "Exp", "Sign"), tmp_path / "good.onnx")
    onnx.save(chain("Sub", "Exp", "Sign"), tmp_path / "bad.onnx")

    searched = convkit("compare", "good.onnx", "bad.onnx", "--bisect", cwd=tmp_path)
    shown = convkit("compare", "good.onnx", "bad.onnx", cwd=tmp_path)

    assert (searched.exit_status, shown.exit_status) == (0, 0)
    assert "All outputs agree; a difference inside dies out." in searched.stdout
    assert (tmp_path / "0_Sub.onnx").is_file()
    assert "starts at 't0'" in shown.stdout


@pytest.mark.parametrize("form", ["md", "json"])
def test_other_forms_have_every_tensor(form: str, convkit: Command, tmp_path: Path) -> None:
    operators = ["Neg"] * 40
    onnx.save(chain(*operators, "Add"), tmp_path / "good.onnx")
    onnx.save(chain(*operators, "Sub"), tmp_path / "bad.onnx")

    brief = convkit("compare", "good.onnx", "bad.onnx", cwd=tmp_path)
    whole = convkit("compare", "good.onnx", "bad.onnx", "--format", form, cwd=tmp_path)

    assert "11 more tensors differ less" in brief.stdout
    assert all(f"t{number}" in whole.stdout for number in range(41))


def test_a_report_option_does_not_go_with_models_nor_a_models_option_with_reports(
    convkit: Command, models: Path
) -> None:
    for version in ("a", "b"):
        (models / f"{version}.json").write_text("{}")

    regression = convkit("compare", "good.onnx", "bad.onnx", "--fail-on-regression", "--json", cwd=models)
    tolerance = convkit("compare", "a.json", "b.json", "--max-error", "1", "--json", cwd=models)

    assert [done.exit_status for done in (regression, tolerance)] == [2, 2]
    assert {done.result["error"]["code"] for done in (regression, tolerance)} == {"usage.together"}


def test_code_beside_a_model_runs_under_trust_alone(convkit: Command, models: Path) -> None:
    refused = convkit("compare", MOBILE.folder, "good.onnx", "--json", cwd=models)

    assert (refused.exit_status, refused.result["error"]["code"]) == (3, "trust.required")
    assert "convkit compare " in refused.result["error"]["hint"]


def test_a_published_version_is_compared_with_its_source_on_the_samples_recorded_with_it(
    convkit: Command, models: Path
) -> None:
    np.savez(models / "ones.npz", x=np.ones((1, 4, 4), np.float32))
    convkit.converted(models / "good.onnx", "-o", models / "repository", "--samples", models / "ones.npz")
    onnx.save(chain("Abs", "Add", "Mul"), models / "good_where_positive.onnx")
    published = Path("repository", "good")

    source = convkit("compare", "good.onnx", published, "--json", cwd=models)
    elsewhere = convkit("compare", "good_where_positive.onnx", published, "--json", cwd=models)
    version = convkit("compare", "repository", published / "1", "--tensors", "--json", cwd=models)
    reports = convkit("compare", published, published / "1", "--json", cwd=models)

    assert [done.exit_status for done in (source, elsewhere, version, reports)] == [0, 0, 0, 0]
    assert [len(done.result["tensors"]) for done in (source, elsewhere, version)] == [3, 3, 3]
    assert version.result["cases"] == 2
    assert reports.result["schema"] == "convkit.comparison/1"


def test_of_a_model_for_openvino_the_outputs_are_compared(convkit: Command, models: Path) -> None:
    convkit.converted(models / "good.onnx", "-o", models / "repository", "--to", "openvino")

    good = convkit("compare", "good.onnx", "repository/good", "--json", cwd=models)
    bad = convkit("compare", "repository/good", "bad.onnx", cwd=models)
    searched = convkit("compare", "good.onnx", "repository/good", "--bisect", "--json", cwd=models)

    assert (good.exit_status, bad.exit_status, searched.exit_status) == (0, 5, 3)
    assert [(tensor["name"], tensor["is_output"]) for tensor in good.result["tensors"]] == [("t2", True)]
    assert "the output 't2' differs: largest difference 12" in bad.stderr
    assert searched.result["error"]["code"] == "compare.no-graph"


def test_of_a_repository_the_model_must_be_plain_and_have_a_graph(convkit: Command, models: Path) -> None:
    for name in ("one", "two"):
        (models / "repository" / name / "1").mkdir(parents=True)

    several = convkit("compare", "good.onnx", "repository", "--json", cwd=models)
    none = convkit("compare", "good.onnx", "repository/one", "--json", cwd=models)
    missing = convkit("compare", "good.onnx", "nothing.onnx", "--json", cwd=models)

    assert [done.exit_status for done in (several, none, missing)] == [3, 3, 3]
    codes = [done.result["error"]["code"] for done in (several, none, missing)]
    assert codes == ["compare.several-models", "compare.no-graph", "source.missing"]


def test_a_script_gets_the_same(models: Path, tmp_path: Path) -> None:
    found = library.compare_models(
        models / "good.onnx", models / "bad.onnx", bisect=True, write=models / "fault.onnx", cache=tmp_path / "cache"
    )

    assert (found.exit_code, found.error is not None and found.error.code) == (5, "compare.models-differ")
    assert found.search is not None
    assert found.search.found is not None
    assert found.search.found.inputs == ("t0",)
    assert found.search.found.nodes == ("/1/Sub",)
