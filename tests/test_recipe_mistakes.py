"""What a mistake in a recipe, or in the options that could stand in one, is answered with."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_recipes import SAMPLE, VARIABLES, request_of

from convkit.cli import app
from convkit.errors import ExitStatus, InputError, UsageError
from convkit.request import make_request
from convkit.spec.options import Precision
from convkit.spec.recipe import parse_setting

MISTAKES = {
    "a value that is none of the choices": (
        'to = "onnxruntime"\n\n[quantize]\nprecision = "int9"\n',
        "recipe.toml, line 4: quantize.precision: 'int9' is none of the choices",
        "none, dynamic, int8, fp16",
    ),
    "an unknown key": (
        '[quantize]\n# a comment\npresicion = "int8"\n',
        "recipe.toml, line 3: quantize.presicion: there is no key 'presicion'",
        "did you mean 'precision'?",
    ),
    "an unknown table": (
        '\n[qantize]\nprecision = "int8"\n',
        "recipe.toml, line 2: qantize: there is no key 'qantize'",
        "did you mean 'quantize'?",
    ),
    "a key that resembles none": (
        "colour = 3\n",
        "recipe.toml, line 1: colour: there is no key 'colour'",
        "known keys: model",
    ),
    "a wrong type": (
        '[triton]\ninstances = "two"\n',
        "recipe.toml, line 2: triton.instances: expected a whole number, got a text in quotes",
        "a value of that kind",
    ),
    "a wrong type where several are right": (
        "[tensorrt]\nworkspace = [1]\n",
        "recipe.toml, line 2: tensorrt.workspace: expected a whole number or a text in quotes, got a list",
        "a value of that kind",
    ),
    "a value in place of a table": (
        "quantize = 3\n",
        "recipe.toml, line 1: quantize: expected a table, got a whole number",
        "a value of that kind",
    ),
    "a number out of range": (
        "[triton]\ninstances = 0\n",
        "recipe.toml, line 2: triton.instances: expected a whole number >= 1, got 0",
        "a value of that kind",
    ),
    "a wrong type deep inside": (
        '[[tensorrt.profiles]]\nimage = { min = [1, 1, 8, 8], opt = [4, 1, 8, 8], max = [8, 1, 8, "8"] }\n',
        "recipe.toml, line 2: tensorrt.profiles[0].image.max[3]: expected a whole number, got a text in quotes",
        "a value of that kind",
    ),
    "an unknown key deep inside": (
        "[[tensorrt.profiles]]\nimage = { min = [1], opt = [1], maxx = [1] }\n",
        "recipe.toml, line 2: tensorrt.profiles[0].image.maxx: there is no key 'maxx'",
        "did you mean 'max'?",
    ),
    "a missing key": (
        "[[tensorrt.profiles]]\nimage = { min = [1], max = [1] }\n",
        "recipe.toml, line 2: tensorrt.profiles[0].image: opt is missing",
        "give it",
    ),
    "an unknown target": (
        'to = "tensorrrt"\n',
        "recipe.toml, line 1: to: there is no target 'tensorrrt'",
        "did you mean 'tensorrt'?",
    ),
    "an unknown release": (
        '[triton]\nrelease = "2.51"\n',
        "recipe.toml, line 2: triton.release: '2.51' is not a Triton release",
        "24.10",
    ),
    "a size that is none": (
        '[tensorrt]\nworkspace = "much"\n',
        "recipe.toml, line 2: tensorrt.workspace: 'much' is not a size of memory for the workspace",
        "'4GiB'",
    ),
    "a text that is not closed": (
        'to = "onnxruntime\n',
        "recipe.toml, line 1, column 18: Illegal character",
        "a recipe is TOML",
    ),
    "a table twice": (
        "[quantize]\n[quantize]\n",
        "recipe.toml, line 2, column 10: Cannot declare",
        "a recipe is TOML",
    ),
}


@pytest.mark.parametrize(("text", "message", "hint"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_in_a_recipe_is_shown_with_its_file_line_and_key(
    text: str, message: str, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        request_of(text, tmp_path, model="m")

    assert caught.value.message.startswith(message)
    assert hint in caught.value.hint


def test_a_mistake_in_the_recipe_that_the_command_line_overrides_is_none(tmp_path: Path) -> None:
    text = '[quantize]\nprecision = "int9"\n'

    assert request_of(text, tmp_path, model="m", quantize={"precision": "int8"}).quantize.precision is Precision.INT8


def test_a_mistake_on_the_command_line_is_not_blamed_on_the_recipe(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--quantize: 'int9' is none of the choices$"):
        request_of('[quantize]\nprecision = "int8"\n', tmp_path, model="m", quantize={"precision": "int9"})


def test_a_mistake_in_the_environment_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--to: there is no target 'tensorrrt'$"):
        request_of("", tmp_path, environment={"CONVKIT_TARGET": "tensorrrt"}, model="m")


@pytest.mark.parametrize("content", [b'to = "\xff"\n', None], ids=["no UTF-8", "a folder"])
def test_a_recipe_that_cannot_be_read_is_refused(content: bytes | None, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.mkdir() if content is None else recipe.write_bytes(content)

    with pytest.raises(InputError, match=r"recipe\.toml cannot be read"):
        make_request({"model": "m"}, recipe=recipe, environment={})


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Run command lines in this process; for those that end before anything is converted."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CONVKIT_CACHE_DIR", str(tmp_path / "cache"))
    on_sigterm = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str) -> tuple[int, dict[str, Any], str]:
        status = app.run(["convert", str(SAMPLE), "--trust", "-o", str(tmp_path / "models"), "--json", *arguments])
        said = capsys.readouterr()
        return status, json.loads(said.out), said.err

    yield run
    signal.signal(signal.SIGTERM, on_sigterm)
    assert not (tmp_path / "models").exists(), "a refused command wrote something"


def test_a_mistake_in_a_recipe_ends_the_command_with_status_3(command_line: Any, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[quantize]\npresicion = "int8"\n')

    status, result, said = command_line("--recipe", str(recipe))

    assert status == ExitStatus.INPUT_REFUSED == result["exit_code"]
    assert result["status"] == "failed"
    assert result["error"] == {
        "code": "recipe.value",
        "stage": None,
        "message": "recipe.toml, line 2: quantize.presicion: there is no key 'presicion'",
        "hint": "did you mean 'precision'?",
    }
    assert said.splitlines() == [
        "error: recipe.toml, line 2: quantize.presicion: there is no key 'presicion'",
        "  hint: did you mean 'precision'?",
    ]


def test_a_missing_recipe_ends_the_command_with_status_3(command_line: Any) -> None:
    status, result, _ = command_line("--recipe", "nowhere.toml")

    assert status == ExitStatus.INPUT_REFUSED
    assert result["error"]["message"] == "--recipe nowhere.toml does not exist"


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("--set", "quantize.precision=int9"), "--quantize: 'int9' is none of the choices", "dynamic"),
        (("--set", "quantize.presicion=int8"), "quantize.presicion: there is no key 'presicion'", "'precision'?"),
        (("--set", "triton.instances=two"), "triton.instances: expected a whole number, got a text", "that kind"),
        (("--set", "triton.instances=0"), "triton.instances: expected a whole number >= 1, got 0", "that kind"),
        (("--set", "triton.instances"), "--set triton.instances: it should read TABLE.KEY=VALUE", "for example"),
        (("--set", "tensorrt.workspace=much"), "tensorrt.workspace: 'much' is not a size", "4GiB"),
        (("--to", "tensorrrt"), "--to: there is no target 'tensorrrt'", "'tensorrt'?"),
        (("--triton", "2.51"), "--triton: '2.51' is not a Triton release", "24.10"),
        (("--opset", "12"), "--opset: expected a whole number >= 13, got 12", "that kind"),
        (("--opset", "new"), "'--opset'", "--help"),
        (("--quantize", "int9"), "'--quantize': 'int9' is not one of 'none', 'dynamic'", "--help"),
        (("--quantise", "int8"), "No such option: --quantise", "--help"),
        (("--version", "newest"), "--version newest: it is no number", "auto"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_the_same_mistakes_on_the_command_line_name_the_option_and_end_with_status_2(
    command_line: Any, arguments: tuple[str, ...], message: str, hint: str
) -> None:
    status, result, _ = command_line(*arguments)

    assert status == ExitStatus.USAGE == result["exit_code"]
    assert message in result["error"]["message"]
    assert hint in result["error"]["hint"]


@pytest.mark.parametrize(
    ("setting", "table"),
    [
        ("triton.gpus=[0, 1]", {"triton": {"gpus": [0, 1]}}),
        ("tensorrt.version_compatible = true", {"tensorrt": {"version_compatible": True}}),
        ("tensorrt.workspace=4GiB", {"tensorrt": {"workspace": "4GiB"}}),
        ('quantize.data="a=b.npz"', {"quantize": {"data": "a=b.npz"}}),
        ("quantize.data=a=b.npz", {"quantize": {"data": "a=b.npz"}}),
        ("name=", {"name": ""}),
    ],
)
def test_a_setting_is_read_as_toml_and_else_as_the_text_that_it_is(setting: str, table: dict[str, Any]) -> None:
    assert parse_setting(setting) == table
