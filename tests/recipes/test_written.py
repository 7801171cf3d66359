"""The recipe that a command writes: it asks for the same, and says what each key is."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from test_recipe_mistakes import command_line  # noqa: F401 - a fixture
from test_recipes import EVERY_OPTION, SAMPLE

from convkit.errors import UsageError
from convkit.request import PATHS, Request, make_request
from convkit.spec.inheritance import read_chain
from convkit.written import recipe_of, toml, write_recipe

ARGUMENTS: dict[str, dict[str, Any]] = {
    "nothing but a model": {"model": "m.onnx"},
    "every table": {
        "model": "models/m.pth",
        "to": "tensorrt",
        "version": 3,
        "replace": True,
        "trust": ["yes", "sha256:00"],
        "export": {"model_def": "nets.py:make", "max_batch_size": 0},
        "simplify": {"chain": []},
        "quantize": {"precision": "int8", "data": "calibration"},
        "check": {"max_error": 1e-05, "min_sqnr": 20.5},
        "triton": {"version_policy": [1, 3], "dynamic_batching": False},
        "tensorrt": {"profiles": [{"in:0": {"min": [1], "opt": [2], "max": [3]}}], "workspace": "4GiB"},
        "tensorrt-rtx": {"compute_capabilities": ["8.9"]},
    },
    "strange names": {"model": 'a "quoted" \\ $x ${HOME} $${HOME}\t\x7f ü.onnx', "name": "${A}"},
    "no paths": {"model": "s3://bucket/m", "export": {"model_def": "pkg.nets:make"}},
    "an absolute path": {"model": "/somewhere/m.onnx", "output": "/there"},
}


def value_at(request: Request, dotted: str) -> Any:
    for part in dotted.split("."):
        request = getattr(request, part)
    return request


def without_paths(request: Request) -> Any:
    plain = msgspec.to_builtins(request)
    for dotted in PATHS:
        name, _, key = dotted.rpartition(".")
        (plain[name] if name else plain)[key] = None
    return plain


def resolved(paths: str | tuple[str, ...] | None) -> list[str]:
    return [os.path.realpath(path) for path in ((paths,) if isinstance(paths, str) else paths or ())]


def assert_same(first: Request, second: Request) -> None:
    assert without_paths(first) == without_paths(second)
    for dotted in PATHS:
        if dotted == "output" and first.output == "./models":
            continue  # by default it is where the command runs
        assert resolved(value_at(first, dotted)) == resolved(value_at(second, dotted)), dotted


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS.keys())
@pytest.mark.parametrize("folder", ["", "sub/deeper"])
def test_running_it_asks_for_the_same(
    arguments: dict[str, Any], folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(folder, "written.toml")
    path.parent.mkdir(parents=True, exist_ok=True)
    asked = make_request(arguments, environment={})

    write_recipe(asked, path)

    assert_same(asked, make_request({}, recipe=path, environment={"HOME": "/home"}))


def test_every_option_is_written_and_none_that_is_as_by_default(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(EVERY_OPTION, encoding="utf-8")
    asked = make_request({}, recipe=recipe, environment={})

    text = recipe_of(asked, tmp_path)

    assert set(tomllib.loads(text)) == set(tomllib.loads(EVERY_OPTION))
    assert_same(asked, request_of(text, tmp_path))
    assert recipe_of(Request(model="m"), Path()) == (
        "# The model: a `.pth`, a SavedModel's folder, an `.onnx` file, or a folder that holds one of them.\n"
        'model = "m"\n'
    )


def request_of(text: str, folder: Path) -> Request:
    path = folder / "again.toml"
    path.write_text(text, encoding="utf-8")
    return make_request({}, recipe=path, environment={})


def test_each_key_is_said_what_it_is(tmp_path: Path) -> None:
    text = recipe_of(make_request({"model": "m", "quantize": {"samples": 7}}, environment={}), tmp_path)

    assert "# At most this many samples of the calibration data are used.\nsamples = 7\n" in text


@pytest.mark.parametrize("value", [True, 0, -3, 0.1, 1e300, "", 'x"\\\n\x7f', [1, [2]], {"a b": {"c": ["d"]}}])
def test_a_value_is_read_back_as_it_was(value: Any) -> None:
    assert tomllib.loads(f"value = {toml(value)}")["value"] == value


def test_texts_with_dollars_are_read_back_as_they_were(tmp_path: Path) -> None:
    texts = ["$", "${A}", "$${A}", "$$${A}", "${A}${B}", "a$b${}", "${1}"]
    path = tmp_path / "r.toml"
    path.write_text(f"texts = {toml(texts)}\n", encoding="utf-8")

    assert read_chain(path, environment={})[0].table["texts"] == texts


def test_a_file_that_says_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    write_recipe(Request(model="m"), path)
    write_recipe(Request(model="m"), path)

    with pytest.raises(UsageError, match="it is there already"):
        write_recipe(Request(model="m", to="tensorrt"), path)
    with pytest.raises(UsageError, match="there is no folder"):
        write_recipe(Request(model="m"), tmp_path / "nowhere" / "recipe.toml")


def test_the_command_writes_it_and_a_dry_run_nothing_else(
    command_line: Any,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from convkit.cli import app

    path = tmp_path / "written.toml"
    line = ["convert", str(SAMPLE), "--trust", "-o", str(tmp_path / "models"), "--quantize", "dynamic"]
    monkeypatch.setattr("sys.argv", ["convkit", *line])

    status = app.run([*line, "--dry-run", "--write-recipe", str(path)])

    assert status == 0
    assert path.read_text().startswith(f"# convkit convert {SAMPLE} --trust -o ")
    asked = make_request({}, recipe=path, environment={})
    assert (asked.model, asked.trust, asked.quantize.precision.value) == (str(SAMPLE), ("yes",), "dynamic")
    capsys.readouterr()
