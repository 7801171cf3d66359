"""What an installation brings: a light core, extras that name what they need, and pins that agree with both."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import convkit
from convkit.errors import ExitStatus
from convkit.sources.open import EXTRAS

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = ROOT / "constraints.txt"

HEAVY = ("numpy", "onnx", "onnxruntime", "torch", "tensorflow", "tensorrt_rtx", "tritonclient", "google.protobuf")
FOR_COMMANDS = ("typer", "rich", "msgspec", "jinja2")


class Core:
    """convkit installed into an environment of its own, as from the package index, with no extra."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        source = folder / "source"
        shutil.copytree(ROOT / "convkit", source / "convkit", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, source)
        venv.create(folder / "env", with_pip=True)
        self.run("python", "-m", "pip", "install", "-qq", "-c", CONSTRAINTS, source)
        shutil.rmtree(source)

    def run(self, program: str, *arguments: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, away from the source, and hold it to an exit status."""
        variables = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "CONVKIT_"))}
        done = subprocess.run(
            [self.folder / "env" / "bin" / program, *arguments],
            cwd=self.folder,
            env={**variables, "CONVKIT_CACHE_DIR": str(self.folder / "cache")},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Core:
    return Core(tmp_path_factory.mktemp("core"))


def test_the_core_alone_has_the_command_line(core: Core) -> None:
    assert core.run("convkit", "--version").stdout == f"convkit {convkit.__version__}\n"
    assert "convert" in core.run("convkit", "--help").stdout
    assert "--quantize" in core.run("convkit", "convert", "--help").stdout


def test_the_core_brings_no_framework(core: Core) -> None:
    installed = {entry["name"].lower() for entry in json.loads(core.run("pip", "list", "--format=json").stdout)}

    assert installed.isdisjoint({"onnx", "onnxruntime", "torch", "tensorflow", "tensorflow-cpu", "grpcio", "sympy"})


def test_the_core_alone_reads_config_txt_and_writes_config_pbtxt(core: Core) -> None:
    program = (
        "import sys, pathlib;"
        "from convkit.spec.metadata import read_metadata;"
        "from convkit.spec.tensor import Interface, TensorSpec;"
        "from convkit.serving.triton import model_config, render;"
        "read = read_metadata(pathlib.Path(sys.argv[1]));"
        "specs = lambda tensors: tuple(TensorSpec(name=t.node_name, dtype=t.dtype, dims=t.dims) for t in tensors);"
        "interface = Interface(inputs=specs(read.inputs), outputs=specs(read.outputs), max_batch_size=read.batch_size);"
        "print(render(model_config(name='digits', interface=interface, backend='onnxruntime',"
        " filename='model.onnx', gpu=False)))"
    )
    written = core.run("python", "-c", program, ROOT / "sample_models" / "digits_cnn" / "config.txt").stdout

    assert 'backend: "onnxruntime"' in written
    assert "dims: [1, 8, 8]" in written
    assert "max_batch_size: 8" in written


def test_the_core_alone_reads_pending_engines_and_says_what_building_them_takes(core: Core, tmp_path: Path) -> None:
    sample = ROOT / "sample_models" / "digits_cnn"
    arguments = ["convert", sample, "--trust", "--to", "tensorrt", "--measure", "none", "--quiet", "-o", tmp_path]
    here = {**os.environ, "CONVKIT_CACHE_DIR": str(core.folder / "cache")}
    subprocess.run([sys.executable, "-m", "convkit", *arguments], check=True, env=here)

    done = core.run("convkit", "build", tmp_path, "--json", status=ExitStatus.MISSING)

    error = json.loads(done.stdout)["error"]
    assert error["code"] == "tensorrt.not-installed"
    assert "convkit[tensorrt]" in error["hint"]
    assert (tmp_path / "digits_cnn" / "pending" / "1" / "model.onnx").is_file()


@pytest.mark.parametrize(
    ("extra", "model"), [("torch", "digits_cnn"), ("tensorflow", "digits_keras"), ("onnx", "net.onnx")]
)
def test_a_missing_extra_is_one_sentence_with_the_command_that_brings_it(core: Core, extra: str, model: str) -> None:
    (core.folder / "net.onnx").write_bytes(b"")
    path = core.folder / model if model.endswith(".onnx") else ROOT / "sample_models" / model

    done = core.run("convkit", "convert", path, "--trust", "--json", status=ExitStatus.MISSING)

    error = json.loads(done.stdout)["error"]
    assert error["code"] == "missing.extra"
    assert error["message"].endswith("not installed here")
    assert error["hint"] == f'pip install "convkit[{extra}]"'
    assert "Traceback" not in done.stderr
    assert not (core.folder / "models").exists()


def test_an_installation_holds_the_templates_the_type_marker_and_the_licence(core: Core) -> None:
    program = "import importlib.metadata as m; print(*m.files('convkit'), sep='\\n')"
    files = core.run("python", "-c", program).stdout

    for file in ("convkit/py.typed", "convkit/report/templates/report.html.j2", "licenses/LICENSE"):
        assert file in files
    assert "tests/" not in files


def modules_after(statement: str) -> set[str]:
    """Return the modules that a fresh Python, with everything installed, holds after a statement."""
    program = f"import sys; {statement}; sys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stderr.split())


def test_importing_convkit_loads_no_library() -> None:
    assert modules_after("import convkit").isdisjoint({*HEAVY, *FOR_COMMANDS})


def test_help_loads_no_heavy_library() -> None:
    loaded = modules_after("from convkit.cli.app import run; run(['--help'])")

    assert "typer" in loaded
    assert loaded.isdisjoint({*HEAVY, "rich", "msgspec", "jinja2"})


def test_the_command_line_of_convert_loads_no_heavy_library() -> None:
    loaded = modules_after("from convkit.cli.app import run; run(['convert', '/nowhere'])")

    assert "convkit.conversion" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_the_version_is_said_once() -> None:
    assert PROJECT["version"] == convkit.__version__


def test_every_extra_that_a_hint_names_exists() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "convkit").rglob("*.py")]
    named = {extra for text in sources for extra in re.findall(r"convkit\[([a-z-]+)\]", text)}

    assert named
    assert named | set(EXTRAS) <= set(PROJECT["optional-dependencies"])


def requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"]
    tested = [line for name, lines in extras.items() if name != "tensorrt" for line in lines]
    return [Requirement(line) for line in (*PROJECT["dependencies"], *tested) if not line.startswith("convkit")]


def pins() -> dict[str, str]:
    lines = [line for line in CONSTRAINTS.read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


def test_every_requirement_is_pinned_to_a_version_that_it_allows() -> None:
    pinned = pins()

    for requirement in requirements():
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement}: pinned to {version}"


def test_a_pin_is_a_plain_version_that_any_package_index_can_give() -> None:
    for name, version in pins().items():
        assert re.fullmatch(r"[0-9]+(\.[0-9]+)*(\.post[0-9]+)?", version), f"{name}=={version}"
