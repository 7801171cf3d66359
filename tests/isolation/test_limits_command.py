"""--memory-limit and --time-limit, and [limits] of a recipe, through the real command."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e.command import Command, hold_to_head
from e2e.digits import CNN

MODEL = (str(CNN.folder), "--trust", "--json", "--measure", "none")


@pytest.fixture
def convkit(tmp_path: Path) -> Command:
    return Command(tmp_path)


@pytest.mark.parametrize(
    ("option", "code", "status"),
    [
        (("--memory-limit", "30MB"), "worker.memory-limit", 6),
        (("--time-limit", "0.2s"), "worker.time-limit", 4),
        (("--memory-limit", "much"), "limits.memory", 2),
        (("--time-limit", "soon"), "limits.time", 2),
    ],
)
def test_a_limit_ends_the_command_with_its_own_code(
    option: tuple[str, str], code: str, status: int, convkit: Command, tmp_path: Path
) -> None:
    outcome = convkit("convert", *MODEL, "-o", tmp_path / "models", *option)

    assert outcome.exit_status == status
    hold_to_head(outcome.result)
    assert outcome.result["error"]["code"] == code
    assert not (tmp_path / "models").exists()


def test_a_recipe_may_hold_them_and_the_command_line_wins(convkit: Command, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[limits]\nmemory = "30MB"\ntime = 0.2\n')
    outcome = convkit("convert", *MODEL, "-o", tmp_path / "models", "--recipe", recipe, "--memory-limit", "8GB")

    assert outcome.result["error"]["code"] == "worker.time-limit"


def test_a_mistake_in_a_recipe_is_told_with_its_line(convkit: Command, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[limits]\ntime = "soon"\n')
    outcome = convkit("convert", *MODEL, "-o", tmp_path / "models", "--recipe", recipe)

    assert outcome.exit_status == 3
    assert "recipe.toml, line 2" in outcome.result["error"]["message"]


def test_convkit_build_takes_them_too(convkit: Command, tmp_path: Path) -> None:
    pending = tmp_path / "models" / "m" / "pending" / "1"
    pending.mkdir(parents=True)
    outcome = convkit("build", tmp_path / "models", "--json", "--time-limit", "soon")

    assert (outcome.exit_status, outcome.result["error"]["code"]) == (2, "limits.time")
