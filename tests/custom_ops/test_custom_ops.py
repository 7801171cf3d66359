"""`--custom-ops`: operators of the user's own, from PyTorch through ONNX Runtime into the served repository."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from e2e.command import Command, Outcome
from triton_server.client import infer
from triton_server.server import TritonServer

from convkit.custom_ops import find_extensions, refuse_useless
from convkit.errors import InputError, StepError, UsageError
from convkit.graph.session import open_session
from convkit.pipeline.artifact import digest_file
from convkit.pipeline.extensions import use_extensions
from convkit.request import make_request
from convkit.serving.triton_text import parse
from convkit.sources.torch_operators import translations
from custom_ops.operators import (
    IN_STANDARD_OPERATORS,
    IN_THE_LIBRARYS,
    REGISTERED,
    SHOWN,
    build,
    operators_of,
    scaled_sigmoid,
    write_network,
)

DRAW = np.random.default_rng(7)


def libraries_of(model: Path) -> list[Path]:
    config = parse((model / "config.pbtxt").read_text(encoding="utf-8"))
    return [Path(name) for name in config.model_operations.op_library_filename]


def test_an_operator_without_its_library_is_named_with_its_domain(
    convkit: Command, onnx_file: Path, tmp_path: Path
) -> None:
    error = convkit.convert(onnx_file, "-o", tmp_path).result["error"]

    assert error["code"] == "custom-ops.unknown"
    assert "ScaledSigmoid of the domain example.ops" in error["message"]
    assert "--custom-ops LIB.so" in error["hint"]


def test_a_library_is_published_beside_the_model_and_its_configuration_names_it(
    published: Path, library: Path, convkit: Command
) -> None:
    [named] = libraries_of(published / "scaled")
    assert named.parent.parent == published / "scaled" / "custom_ops"
    assert digest_file(named) == digest_file(library)

    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(named))
    session = onnxruntime.InferenceSession(published / "scaled" / "1" / "model.onnx", options)
    x = DRAW.standard_normal((3, 4), dtype=np.float32)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], 2 * scaled_sigmoid(x), rtol=1e-5)
    assert convkit("check", published).exit_status == 0


@pytest.mark.triton
def test_triton_loads_the_library_that_the_configuration_names(published: Path) -> None:
    x = DRAW.standard_normal((2, 4), dtype=np.float32)
    with TritonServer(published, backends=("onnxruntime",)) as server:
        answer = infer(server, "http", "scaled", {"x": x})

    np.testing.assert_allclose(answer["y"], 2 * scaled_sigmoid(x), rtol=1e-5)


def test_a_manifest_holds_to_the_very_library(
    published: Path, convkit: Command, library: Path, onnx_file: Path, tmp_path: Path
) -> None:
    manifest = published / "scaled" / "1" / "convkit" / "manifest.json"
    assert digest_file(library) in manifest.read_text(encoding="utf-8").replace('"sha256": "', '"sha256": "sha256:')
    other = build(tmp_path / "libscaled.so", "-DANOTHER", "-Wl,--build-id=0x01")
    assert digest_file(other) != digest_file(library)

    same = convkit.convert(onnx_file, "-o", published, "--locked", manifest, "--custom-ops", library)
    refused = convkit.convert(onnx_file, "-o", published, "--locked", manifest, "--custom-ops", other)

    assert same.result["status"] == "unchanged", same.stderr
    assert "triton.repository=/models" in same.warnings["custom-ops.place"]
    assert "libscaled.so" in refused.result["error"]["message"]


class Page:
    """A folder with what the page takes to be there, in which its commands are run."""

    def __init__(self, convkit: Command, folder: Path) -> None:
        self.convkit, self.folder = convkit, folder
        write_network(folder / "my_model")

    def run(self, number: int, operators: str, *more: str | Path) -> Outcome:
        """Run one of the page's commands beside an operators.py with this text."""
        (self.folder / "operators.py").write_text(operators, encoding="utf-8")
        return self.convkit(*SHOWN[number].split(), "--json", "--measure", "none", *more, cwd=self.folder)

    def published(self, name: str) -> Path:
        return self.folder / "models" / name


@pytest.fixture
def page(convkit: Command, tmp_path: Path) -> Page:
    return Page(convkit, tmp_path)


def test_a_python_file_writes_its_operator_in_standard_ones(page: Page) -> None:
    assert page.run(0, IN_STANDARD_OPERATORS).exit_status == 0

    model = page.published("my_model")
    assert operators_of(model / "1" / "model.onnx") == {"Gemm", "Mul", "Sigmoid"}
    assert libraries_of(model) == []
    manifest = json.loads((model / "1" / "convkit" / "manifest.json").read_text(encoding="utf-8"))
    assert "custom_ops/operators.py" in json.dumps(manifest)


def test_an_operator_that_nobody_registers_or_translates_is_named(page: Page) -> None:
    unregistered = page.run(0, "").result["error"]
    untranslated = page.run(0, REGISTERED).result["error"]

    assert "scaled_sigmoid" in unregistered["message"]
    assert "--custom-ops FILE.py" in unregistered["hint"]
    assert "mine.scaled_sigmoid" in untranslated["message"]
    assert "ONNX_TRANSLATIONS" in untranslated["hint"]


def test_the_server_may_see_the_repository_elsewhere(page: Page, onnx_file: Path, library: Path) -> None:
    shutil.copy(onnx_file, page.folder / "my_model.onnx")
    shutil.copy(library, page.folder / "libops.so")

    outcome = page.run(1, "")

    assert outcome.exit_status == 0, outcome.stderr
    [named] = libraries_of(page.published("my_model"))
    assert str(named).startswith("/models/my_model/custom_ops/")
    assert (page.folder / "models" / named.relative_to("/models")).is_file()
    assert "custom-ops.place" not in outcome.warnings


def test_a_network_keeps_the_librarys_operator_as_it_is_quantized(page: Page, library: Path) -> None:
    shutil.copy(library, page.folder / "libops.so")
    data = page.folder / "data.npz"
    np.savez(data, x=DRAW.standard_normal((32, 4), dtype=np.float32))

    outcome = page.run(2, REGISTERED + IN_THE_LIBRARYS, "--quantize", "int8", "--calibration-data", data)

    assert outcome.exit_status == 0, outcome.stderr
    assert operators_of(page.published("my_model") / "1" / "model.onnx") >= {
        "example.ops::ScaledSigmoid",
        "QuantizeLinear",
    }


def test_a_file_that_is_none_is_refused_before_anything_runs(tmp_path: Path) -> None:
    text = tmp_path / "operators.txt"
    text.write_text("no library", encoding="utf-8")

    with pytest.raises(InputError, match="neither a Python file nor a shared library"):
        find_extensions([str(text)])
    with pytest.raises(InputError, match=r"nowhere\.so: No such file"):
        find_extensions([str(tmp_path / "nowhere.so")])


@pytest.mark.parametrize(
    ("file", "environment", "target", "said"),
    [
        ("lib.so", "onnx", "openvino", "ONNX Runtime alone"),
        ("lib.so", "torch", "tensorrt", "ONNX Runtime alone"),
        ("lib.so", "tensorflow", "onnxruntime", "no library would be used"),
        ("ops.py", "onnx", "onnxruntime", "no PyTorch model"),
    ],
)
def test_a_file_that_would_never_be_loaded_is_refused(
    file: str, environment: str, target: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / file).write_bytes(b"\x7fELF" if file.endswith(".so") else b"")
    found = find_extensions([str(tmp_path / file)])

    with pytest.raises(UsageError, match=said):
        refuse_useless(found, environment=environment, target=target, backend=target)


def test_a_library_that_registers_nothing_is_named(library: Path, onnx_file: Path, tmp_path: Path) -> None:
    del library  # there is a compiler
    (tmp_path / "empty.c").write_text("int nothing;\n", encoding="utf-8")
    use_extensions(find_extensions([str(build(tmp_path / "libempty.so", source=tmp_path / "empty.c"))]))
    try:
        with pytest.raises(StepError, match=r"cannot load libempty\.so: .*RegisterCustomOps"):
            open_session(onnx_file)
    finally:
        use_extensions(())


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("[1]", "is a list, not a dict"),
        ("{'example::op': print}", "no operator's overload"),
        ("{torch.ops.aten.relu.default: 3}", "is a int, not a function"),
    ],
)
def test_a_table_that_says_nothing_of_operators_is_refused(table: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mistaken_operators.py"
    file.write_text(f"import torch\n\nONNX_TRANSLATIONS = {table}\n", encoding="utf-8")
    use_extensions(find_extensions([str(file)]))
    try:
        with pytest.raises(InputError, match=said):
            translations()
    finally:
        use_extensions(())


def test_a_recipe_names_the_files_from_where_it_lies(tmp_path: Path) -> None:
    recipe = tmp_path / "sub" / "recipe.toml"
    recipe.parent.mkdir()
    recipe.write_text('model = "m.onnx"\n[export]\ncustom_ops = ["ops.py", "/there/lib.so"]\n', encoding="utf-8")

    request = make_request({}, recipe=recipe, environment={})

    assert request.export.custom_ops == (str(recipe.parent / "ops.py"), "/there/lib.so")


def test_another_library_is_not_answered_for_from_the_cache(
    published: Path, convkit: Command, onnx_file: Path, library: Path, tmp_path: Path
) -> None:
    """The same graph under a library whose operator gives other numbers."""
    del published  # it has filled the cache
    changed = tmp_path / "changed.c"
    text = Path(__file__).with_name("scaled_sigmoid.c").read_text(encoding="utf-8")
    changed.write_text(text.replace("1.0f / (1.0f", "3.0f / (1.0f"), encoding="utf-8")
    other = build(tmp_path / library.name, source=changed)

    convkit.converted(onnx_file, "-o", tmp_path / "models", "--custom-ops", other)

    references = tmp_path / "models" / "scaled" / "1" / "convkit"
    with np.load(references / "samples" / "0000.npz") as given, np.load(references / "references" / "0000.npz") as got:
        np.testing.assert_allclose(got["y"], 6 * scaled_sigmoid(given["x"]), rtol=1e-5)
    shutil.rmtree(tmp_path / "models")
