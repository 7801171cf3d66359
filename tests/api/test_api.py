"""convkit as a library: the same functions, the same mistakes, nothing loaded before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import convkit
from convkit import api
from convkit.errors import ConvkitError, TrustError, UsageError
from convkit.report.document import Status
from convkit.request import Request, make_request

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "convkit"
SAMPLE = ROOT / "sample_models" / "digits_cnn"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SOURCE_MODEL_PATH", "TARGET_MODEL_PATH", "MODEL_NAME", "CONVKIT_TARGET", "CONVKIT_TRUST"):
        monkeypatch.delenv(name, raising=False)


def python(program: str) -> str:
    """Run a program in a fresh Python; return what it printed."""
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.strip()


def test_importing_convkit_imports_no_module_of_it() -> None:
    loaded = python("import convkit, sys; print([name for name in sys.modules if name.startswith('convkit.')])")

    assert loaded == "[]"


def test_every_public_name_is_there_and_is_listed() -> None:
    assert set(convkit.__all__) <= set(dir(convkit))
    assert all(getattr(convkit, name) is not None for name in convkit.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'convert_all'"):
        convkit.convert_all  # type: ignore[attr-defined]  # noqa: B018


def test_no_module_bears_the_name_of_a_public_function() -> None:
    modules = {path.stem for path in PACKAGE.iterdir()}

    assert modules & set(convkit.__all__) - {"__init__"} == set()


def test_a_function_stays_a_function_when_every_module_is_imported() -> None:
    modules = sorted(path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__"))
    program = f"import convkit, importlib; [importlib.import_module('convkit.' + n) for n in {modules}]; "

    assert (
        python(program + "print(type(convkit.convert).__name__, type(convkit.build).__name__)") == "function function"
    )


def test_a_type_checker_sees_the_names_that_are_there_at_run_time() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    } - {"annotations"}

    assert imported | {"__version__"} == set(convkit.__all__)


def test_the_options_of_convert_are_the_keys_of_a_recipe() -> None:
    assert set(api.Options.__annotations__) == set(Request.__struct_fields__) - {"model"}


def test_a_conversion_gives_its_report_and_the_same_again_publishes_nothing(tmp_path: Path) -> None:
    events: list[convkit.Event] = []

    def convert() -> convkit.Report:
        return convkit.convert(
            SAMPLE,
            trust=True,
            to="onnxruntime",
            output=tmp_path / "models",
            version="auto",
            quantize={"precision": "dynamic", "data": None},
            measure={"mode": "none"},
            observer=events.append,
            cache=tmp_path / "cache",
        )

    first = convert()
    assert (first.status, first.exit_code, first.version, first.name) == (Status.OK, 0, 1, "digits_cnn")
    assert first.precision == "dynamic"
    assert (tmp_path / "models/digits_cnn/1/model.onnx").is_file()
    assert events

    assert convert().status is Status.UNCHANGED
    assert not (tmp_path / "models/digits_cnn/2").exists()


def test_a_recipe_is_laid_under_the_arguments(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'model = "{SAMPLE}"\nto = "tensorrrt"\n[quantize]\nprecision = "int9"\n', encoding="utf-8")

    with pytest.raises(TrustError):  # both mistakes are overridden, and nobody trusts the model
        convkit.convert(recipe=recipe, to="onnxruntime", quantize={"precision": "none"}, cache=tmp_path / "cache")


@pytest.mark.parametrize(
    "options",
    [
        {"to": "tensorrrt"},
        {"quantize": {"precision": "int9"}},
        {"quantise": {"precision": "int8"}},
        {"quantize": {"precison": "int8"}},
        {"quantize": "int8"},
        {"version": 0},
        {"triton": {"release": "2.51"}},
        {"export": {"opset": 12}},
        {"tensorrt_rtx": {"workspace": "much"}},
    ],
    ids=str,
)
def test_a_mistake_reads_as_it_does_on_the_command_line(options: dict[str, Any]) -> None:
    table = {key.replace("tensorrt_rtx", "tensorrt-rtx"): value for key, value in options.items()}
    with pytest.raises(UsageError) as expected:
        make_request({"model": "m", **table}, environment={})
    with pytest.raises(UsageError) as found:
        convkit.convert("m", **options)

    same = ("message", "hint", "code", "exit_status")
    assert [getattr(found.value, name) for name in same] == [getattr(expected.value, name) for name in same]


def test_a_value_that_no_recipe_holds_is_refused_by_the_options_name() -> None:
    with pytest.raises(UsageError, match=r"^--calibration-data: a bytes cannot stand in a recipe$"):
        convkit.convert("m", quantize={"data": b"x"})


def test_no_model_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no model was named"):
        convkit.convert()


def test_trust_can_be_a_digest_or_several_or_everything() -> None:
    def trust(value: Any) -> object:
        return make_request(api.arguments_of({"model": "m", "trust": value}), environment={}).trust

    assert trust(True) == ("yes",)
    assert trust(False) == trust(None) == ()
    assert trust("sha256:aa") == ("sha256:aa",)
    assert trust(["sha256:aa", "sha256:bb"]) == ("sha256:aa", "sha256:bb")


def test_what_numpy_calls_numbers_are_numbers(tmp_path: Path) -> None:
    import numpy as np

    arguments = api.arguments_of(
        {"model": tmp_path, "check": {"max_error": np.float64(0.5)}, "triton": {"gpus": (0, 1)}}
    )

    request = make_request(arguments, environment={})
    assert (request.model, request.check.max_error, request.triton.gpus) == (str(tmp_path), 0.5, (0, 1))


def test_a_repository_that_is_not_there_cannot_be_built(tmp_path: Path) -> None:
    with pytest.raises(ConvkitError) as caught:
        convkit.build(tmp_path / "nowhere", cache=tmp_path / "cache")

    assert caught.value.code == "repository.missing"
