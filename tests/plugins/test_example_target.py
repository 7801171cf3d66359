"""A target of someone else: installed as any package, found by its entry point, and converted with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from convkit.testing import TARGET_CHECKS, _small_model

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip has installed the example."""
    folder = tmp_path_factory.mktemp("plugin")
    source, target = folder / "source", folder / "installed"
    shutil.copytree(HERE / "example_target", source)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", target]
    subprocess.run([*map(str, command), str(source)], check=True, capture_output=True, text=True)
    return target


def python(installed: Path | None, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a Python that finds the installed example."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CONVKIT_", "SOURCE_MODEL"))}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(installed or ""), "CONVKIT_CACHE_DIR": str(cwd / "cache")},
    )


def convert(installed: Path | None, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ("-m", "convkit", "convert", _small_model(folder), "--json", "--measure", "none", "-o", folder / "models")
    return python(installed, *command, *arguments, cwd=folder)


def test_a_model_is_converted_for_it_in_its_own_worker(installed: Path, tmp_path: Path) -> None:
    done = convert(installed, tmp_path, "--to", "example", "--set", "example.level=9")
    again = convert(installed, tmp_path, "--to", "example", "--set", "example.level=9")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["engine"] == "built"
    assert json.loads(again.stdout)["status"] == "unchanged"
    packed = (tmp_path / "models/small/1/model.packed").read_bytes()
    assert packed.startswith(b"set"), "the worker has the environment's settings"
    assert zlib.decompress(packed[3:]) == (tmp_path / "models/small/1/convkit/model.onnx").read_bytes()
    manifest = (tmp_path / "models/small/1/convkit/manifest.json").read_text()
    assert '"level": 9' in manifest or '"level":9' in manifest


def test_its_table_stands_in_a_recipe_and_its_mistakes_name_the_line(installed: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('to = "example"\n[example]\nlevel = 0\n', encoding="utf-8")
    done = convert(installed, tmp_path, "--recipe", str(recipe))
    assert done.returncode == 0, done.stderr
    size = (tmp_path / "models/small/1/model.packed").stat().st_size
    assert size > (tmp_path / "models/small/1/convkit/model.onnx").stat().st_size, "level 0 packs nothing"

    for text, message in (
        ("[example]\nlevel = 10\n", "recipe.toml, line 2: example.level: expected a whole number <= 9, got 10"),
        ("[example]\nlevle = 1\n", "recipe.toml, line 2: example.levle: there is no key 'levle'"),
    ):
        recipe.write_text(text, encoding="utf-8")
        refused = convert(installed, tmp_path, "--recipe", str(recipe), "--to", "example")
        assert refused.returncode == 3
        assert json.loads(refused.stdout)["error"]["message"] == message


def test_its_table_may_stand_in_a_recipe_for_another_target(installed: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[example]\nlevel = 1\n", encoding="utf-8")

    assert convert(installed, tmp_path, "--recipe", str(recipe), "--dry-run", "--quiet").returncode == 0
    absent = convert(None, tmp_path, "--recipe", str(recipe))
    assert json.loads(absent.stdout)["error"]["message"] == "recipe.toml, line 1: example: there is no key 'example'"


def test_the_schema_of_recipes_has_its_table(installed: Path, tmp_path: Path) -> None:
    with_it, without = (
        json.loads(python(where, "-m", "convkit", "schema", "recipe", cwd=tmp_path).stdout)
        for where in (installed, None)
    )

    assert "example" not in without["properties"]
    assert with_it["properties"].keys() - without["properties"].keys() == {"example"}
    assert "example" in with_it["properties"]["model"]["anyOf"][1]["items"]["properties"]
    level = with_it["$defs"]["ExampleOptions"]["properties"]["level"]
    assert level["description"] == "How hard zlib tries."
    assert (level["minimum"], level["maximum"]) == (0, 9)


def test_without_it_the_target_is_not_there(tmp_path: Path) -> None:
    done = convert(None, tmp_path, "--to", "example")

    assert (done.returncode, "there is no target 'example'" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("precision", "reason"),
    [
        ("fp16", "it computes in FP32 and INT8 only"),
        ("fp8", "Example takes no FP8"),
        ("int4", "Example reads no INT4 weights"),
    ],
)
def test_what_it_or_its_profile_refuses_is_refused(
    installed: Path, tmp_path: Path, precision: str, reason: str
) -> None:
    done = convert(installed, tmp_path, "--to", "example", "--quantize", precision)

    assert done.returncode == 2
    assert f"--quantize {precision} --to example: {reason}" in done.stderr


def test_a_fleet_converts_for_it(installed: Path, tmp_path: Path) -> None:
    _small_model(tmp_path)
    fleet = tmp_path / "fleet.toml"
    fleet.write_text('to = "example"\n[example]\nlevel = 1\n[[model]]\nmodel = "small.onnx"\n', encoding="utf-8")

    done = python(installed, "-m", "convkit", "convert", fleet, "--measure", "none", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "models/small/1/model.packed").is_file()


def test_another_version_of_its_code_is_not_taken_for_the_same(installed: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(installed, mine)
    assert convert(mine, tmp_path, "--to", "example").returncode == 0
    target = mine / "convkit_example" / "target.py"
    target.write_text(target.read_text().replace("header + zlib", 'b"new" + zlib'), encoding="utf-8")

    assert json.loads(convert(mine, tmp_path, "--to", "example").stdout)["version"] == 2
    assert (tmp_path / "models/small/2/model.packed").read_bytes().startswith(b"new")


@pytest.mark.parametrize("damage", ["import nowhere\n", "def broken(:\n", "Nothing = 1\n"])
def test_one_that_cannot_be_loaded_is_missing_here(installed: Path, tmp_path: Path, damage: str) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(installed, mine)
    (mine / "convkit_example" / "target.py").write_text(damage, encoding="utf-8")

    done = convert(mine, tmp_path, "--to", "example")

    assert done.returncode == 6
    assert json.loads(done.stdout)["error"]["code"] == "plugin.broken"


CHECK = """
import sys
from pathlib import Path
from convkit import testing

check = getattr(testing, sys.argv[1])
check("example", Path(sys.argv[2]))
"""


def conformance(installed: Path, check: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return python(installed, "-c", CHECK, check, folder, cwd=folder)


@pytest.mark.parametrize("check", [check.__name__ for check in TARGET_CHECKS])
def test_it_conforms(installed: Path, tmp_path: Path, check: str) -> None:
    done = conformance(installed, check, tmp_path)

    assert done.returncode == 0, done.stderr


FAULTS: dict[str, tuple[str, str, str]] = {
    "it_is_found_and_says_what_it_is": ('title = "Example"', "title = 3", "title is 3"),
    "importing_it_loads_nothing_heavy": ("import msgspec", "import msgspec\nimport numpy", "importing it loads numpy"),
    "its_table_is_sound": ("] = 6", "]", "options has no default for level"),
    "what_it_needs_is_said_politely": ("raise UsageError(", "raise NoSuchError(", "NoSuchError"),
    "it_converts_and_does_nothing_twice": ("filename: packed", '"other": packed', "model.packed was not published"),
    "every_precision_works_or_is_refused": (
        "        packed = run(",
        "        if job.precision is Precision.DYNAMIC:\n"
        "            raise UsageError('never', hint='h', code='c')\n"
        "        packed = run(",
        "dynamic: never; and refusals does not say so",
    ),
}


@pytest.mark.parametrize("check", FAULTS)
def test_a_fault_is_found(installed: Path, tmp_path: Path, check: str) -> None:
    mine, (old, new, said) = tmp_path / "mine", FAULTS[check]
    shutil.copytree(installed, mine)
    target = mine / "convkit_example" / "target.py"
    text = target.read_text()
    changed = text.replace("self.filename: packed", '"other": packed') if "filename" in old else text.replace(old, new)
    assert changed != text
    target.write_text(changed, encoding="utf-8")

    done = conformance(mine, check, tmp_path)

    assert done.returncode == 1
    assert said in done.stderr


def test_every_check_has_a_fault_that_it_finds() -> None:
    assert set(FAULTS) == {check.__name__ for check in TARGET_CHECKS}


def test_names_of_convkits_own_look_up_no_entry_points(tmp_path: Path) -> None:
    program = (
        "import sys; from convkit.request import make_request; "
        "make_request({'model': 'm', 'to': 'tensorrt'}, environment={}); "
        "from convkit.spec.entry_points import entry_points; print(entry_points.cache_info().misses)"
    )

    assert python(None, "-c", program, cwd=tmp_path).stdout == "0\n"
