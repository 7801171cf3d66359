"""`convkit convert` where a GPU is, into a model that has plans already; the machines are stood in for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from e2e.published import files_below, read_config
from serving.publications import scaled

from deferred.machines import H100, L4, NEXT, Container, Machine
from deferred.test_deferred import built, engines

On = Callable[[Machine], Container]


@pytest.fixture(scope="module")
def model(workplace: Path) -> Path:
    path = workplace / "there" / "scaled.onnx"
    path.parent.mkdir()
    onnx.save(scaled(2.0), path)
    return path


def converted(container: Container, model: Path, repository: Path) -> dict[str, Any]:
    return container.command.converted(model, "-o", repository, "--to", "tensorrt").result


def test_what_convkit_build_has_published_for_several_gpus_is_unchanged_on_each(
    prepared: Path, model: Path, on: On, tmp_path: Path
) -> None:
    repository = Path(shutil.copytree(prepared, tmp_path / "models"))
    built(on(L4), repository)
    built(on(H100), repository, "--all")
    before = files_below(repository)

    for machine in (H100, L4):
        result = converted(on(machine), model, repository)
        assert (result["status"], result["version"]) == ("unchanged", 1)
    assert files_below(repository) == before


def test_the_same_conversion_on_another_gpu_joins_the_version_and_another_model_does_not(
    model: Path, on: On, tmp_path: Path
) -> None:
    repository = tmp_path / "models"
    first = converted(on(L4), model, repository)
    plan = (repository / "scaled" / "1" / "model.plan").read_bytes()

    second = converted(on(H100), model, repository)

    version = repository / "scaled" / "1"
    assert [each["version"] for each in (first, second)] == [1, 1]
    assert engines(version) == {"model.plan": ("8.9", L4.tensorrt), "model_sm90.plan": ("9.0", H100.tensorrt)}
    assert (version / "model.plan").read_bytes() == plan
    names = read_config(repository / "scaled" / "config.pbtxt").cc_model_filenames
    assert dict(names) == {"8.9": "model.plan", "9.0": "model_sm90.plan"}
    assert [converted(on(each), model, repository)["status"] for each in (L4, H100)] == ["unchanged"] * 2
    assert on(L4).command("check", repository, "--json").exit_status == 0

    converted(on(NEXT), model, repository)
    assert engines(version)["model.plan"] == ("8.9", NEXT.tensorrt)
    onnx.save(scaled(5.0), tmp_path / "scaled.onnx")
    assert converted(on(L4), tmp_path / "scaled.onnx", repository)["version"] == 2
