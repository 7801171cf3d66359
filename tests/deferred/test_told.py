"""What `convkit build` tells a person who has to know at once which model it is about, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from deferred.conftest import Prepare
from deferred.machines import L4, Container, Machine
from deferred.test_deferred import built

On = Callable[[Machine], Container]


def test_an_error_names_the_model_and_the_version_and_those_before_it_stay_published(
    converter: Prepare, workplace: Path, tmp_path: Path
) -> None:
    """The first engine stands in the cache with right answers; the second is made while every new one answers wrong."""
    container = Container(L4, workplace, "told")
    for factor, name in ((2.0, "first"), (3.0, "second")):
        converter(tmp_path / "models", factor, asked=("--name", name))
        if name == "first":
            converter(tmp_path / "rehearsal", factor, asked=("--name", name))
            built(container, tmp_path / "rehearsal")

    wrong = {"STAND_IN_WRONG": "run"}
    told = container.command("build", tmp_path / "models", variables=wrong).stderr
    outcome = container.command("build", tmp_path / "models", "--json", variables=wrong)

    assert "first version 1: Publish" in told
    assert "second version 1: Build the TensorRT engine" in told
    assert outcome.exit_status == 5
    assert (outcome.result["name"], outcome.result["version"]) == ("second", 1)
    assert outcome.result["repository"] == str(tmp_path / "models")
    error = outcome.result["error"]
    assert error["message"].startswith("second version 1: the built engine: the output 'y'")
    assert (tmp_path / "models" / "first" / "1" / "model.plan").is_file()
    assert (tmp_path / "models" / "second" / "pending" / "1").is_dir()


def test_where_nothing_is_pending_the_user_hears_of_live_versions(repository: Path, on: On) -> None:
    built(on(L4), repository)

    assert "--all" in on(L4).command("build", repository).stdout
    assert "--all" not in on(L4).command("build", repository, "--all").stdout
