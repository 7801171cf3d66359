"""A source of someone else: installed as any package, found by its entry point, and converted from."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from convkit.testing import SOURCE_CHECKS
from plugins.test_example_target import python

HERE = Path(__file__).resolve().parent
WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3) / 10
BIAS = np.array([0, 1, -1], np.float32)
CONFIG = {
    "batch_size": 4,
    "input": [{"name": "image", "node_name": "x", "data_type": "float", "dims": [-1, 4]}],
    "output": [{"name": "classes", "node_name": "probabilities", "data_type": "float", "dims": [-1, 3]}],
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip has installed the example."""
    folder = tmp_path_factory.mktemp("plugin")
    source, target = folder / "source", folder / "installed"
    shutil.copytree(HERE / "example_source", source)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", target]
    subprocess.run([*map(str, command), str(source)], check=True, capture_output=True, text=True)
    return target


def write(folder: Path, name: str = "iris.linear.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps({"weights": WEIGHTS.tolist(), "bias": BIAS.tolist()}), encoding="utf-8")
    return folder / name


def convert(installed: Path | None, folder: Path, *arguments: object, model: Path) -> dict[str, Any]:
    command = ("-m", "convkit", "convert", model, "--json", "-o", folder / "models", *arguments)
    done = python(installed, *command, cwd=folder)
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["exit_code"] == done.returncode, done.stderr
    return found


def test_a_model_is_converted_from_it_timed_and_served(installed: Path, tmp_path: Path) -> None:
    found = convert(installed, tmp_path, model=write(tmp_path / "source"))

    assert (found["status"], found["name"]) == ("ok", "iris")
    session = onnxruntime.InferenceSession(tmp_path / "models/iris/1/model.onnx")
    rows = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    scores = np.exp(rows @ WEIGHTS + BIAS)
    np.testing.assert_allclose(session.run(None, {"x": rows})[0], scores / scores.sum(1, keepdims=True), rtol=1e-5)
    report = json.loads((tmp_path / "models/iris/1/convkit/report.json").read_text())
    assert report["source"]["kind"] == "linear classifier"
    subjects = {subject["role"]: subject for subject in report["subjects"]}
    assert subjects["source"]["label"] == f"numpy {np.__version__}"
    assert subjects["source"]["latency"]["p50_ms"] > 0
    manifest = (tmp_path / "models/iris/1/convkit/manifest.json").read_text()
    assert "convkit-linear" in manifest


def test_a_folder_is_searched_for_it_after_convkits_own(installed: Path, tmp_path: Path) -> None:
    write(tmp_path / "net" / "deep", "model.linear.json")
    found = convert(installed, tmp_path, "--measure", "none", model=tmp_path / "net")
    assert (found["status"], found["name"]) == ("ok", "net")

    (tmp_path / "net" / "model.onnx").write_bytes(b"nothing")
    assert convert(installed, tmp_path, "--measure", "none", model=tmp_path / "net")["error"]["code"] == (
        "source.unreadable"
    )


def test_config_txt_and_samples_hold_for_it_too(installed: Path, tmp_path: Path) -> None:
    model = write(tmp_path / "source")
    (tmp_path / "source/config.txt").write_text(json.dumps(CONFIG), encoding="utf-8")
    np.savez(tmp_path / "samples.npz", image=np.full((3, 4), 1000, np.float32))

    assert convert(installed, tmp_path, "--tensor-names", "name", "--measure", "none", model=model)["status"] == "ok"
    config = (tmp_path / "models/iris/config.pbtxt").read_text()
    assert "max_batch_size: 4" in config
    assert 'name: "image"' in config
    overflowing = convert(installed, tmp_path, "--samples", tmp_path / "samples.npz", "--measure", "none", model=model)
    assert overflowing["error"]["code"] == "check.outputs-differ", "exp(1000) is infinite in the example's own answer"


def test_without_it_the_file_is_no_model(tmp_path: Path) -> None:
    found = convert(None, tmp_path, model=write(tmp_path / "source"))

    assert (found["exit_code"], found["error"]["code"]) == (3, "source.unknown-kind")


def test_what_runs_code_is_asked_for(installed: Path, tmp_path: Path) -> None:
    mine = changed(
        installed,
        tmp_path,
        "        self.options = options\n",
        "        self.options = options\n"
        "        self.untrusted = (Untrusted(path=str(found.path), runs=('posix.system',)),)\n",
    )
    model = write(tmp_path / "source")

    refused = convert(mine, tmp_path, "--measure", "none", model=model)
    assert (refused["exit_code"], refused["error"]["code"]) == (3, "trust.required")
    assert "posix.system" in refused["error"]["message"]
    assert convert(mine, tmp_path, "--trust", "--measure", "none", model=model)["status"] == "ok"


def test_what_it_needs_is_told(installed: Path, tmp_path: Path) -> None:
    mine = changed(installed, tmp_path, 'find_spec("onnx") is None', "find_spec('no_such_module') is None")

    assert convert(mine, tmp_path, model=write(tmp_path / "source"))["error"]["code"] == "missing.extra"


def test_one_that_cannot_be_timed_is_converted(installed: Path, tmp_path: Path) -> None:
    mine = changed(installed, tmp_path, "return Contender(", "return None and Contender(")
    assert convert(mine, tmp_path, model=write(tmp_path / "source"))["status"] == "ok"

    report = json.loads((tmp_path / "models/iris/1/convkit/report.json").read_text())
    latencies = {subject["role"]: subject.get("latency") for subject in report["subjects"]}
    assert latencies["source"] is None
    assert latencies["final"]["p50_ms"] > 0


def test_two_that_claim_one_ending_are_told(installed: Path, tmp_path: Path) -> None:
    (other := tmp_path / "other").mkdir()
    shutil.copytree(installed, other / "both")
    (points,) = (other / "both").glob("*.dist-info/entry_points.txt")
    points.write_text(points.read_text() + "another = convkit_linear.source:Linear\n", encoding="utf-8")

    error = convert(other / "both", tmp_path, model=write(tmp_path / "source"))["error"]
    assert error["code"] == "plugin.ambiguous"
    assert "'another' and 'linear' both take files that end in '.linear.json'" in error["message"]


def test_a_model_of_convkits_own_looks_up_no_sources(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").touch()
    program = (
        "from pathlib import Path; from convkit.sources.find import find_model; find_model(Path('net.onnx')); "
        "find_model(Path('.')); from convkit.spec.entry_points import entry_points; "
        "print(entry_points.cache_info().misses)"
    )

    assert python(None, "-c", program, cwd=tmp_path).stdout == "0\n"


CHECK = """
import sys
from pathlib import Path
from convkit import source_testing

for name in sys.argv[3:]:
    (empty := Path(sys.argv[2], name)).mkdir()
    getattr(source_testing, name)("linear", Path(sys.argv[1]), empty)
"""


def conformance(installed: Path, folder: Path, *checks: str) -> subprocess.CompletedProcess[str]:
    return python(installed, "-c", CHECK, write(folder / "example"), folder, *checks, cwd=folder)


def test_it_conforms(installed: Path, tmp_path: Path) -> None:
    done = conformance(installed, tmp_path, *(check.__name__ for check in SOURCE_CHECKS))

    assert done.returncode == 0, done.stderr


def changed(installed: Path, folder: Path, old: str, new: str) -> Path:
    """The example with one line of it changed, installed in a folder of its own."""
    mine = folder / "mine"
    shutil.copytree(installed, mine)
    source = mine / "convkit_linear" / "source.py"
    text = source.read_text(encoding="utf-8")
    assert old in text
    source.write_text(text.replace(old, new), encoding="utf-8")
    return mine


FAULTS: dict[str, tuple[str, str, str]] = {
    "its_files_are_found": ('(".linear.json",)', '(".linear.json", ".onnx")', "'.onnx' is convkit's own"),
    "it_says_what_it_is": ('kind = "linear classifier"', "kind = None", "kind is None"),
    "opening_it_loads_nothing_heavy": ("import json\n", "import json\nimport numpy\n", "opening a model loads numpy"),
    "it_converts_and_does_nothing_twice": ("rows @ weights + bias", "rows @ weights", "is not what numpy"),
    "it_writes_what_the_server_reads": ("min(17, max_opset)", "18", "opset 18 was written"),
    "a_change_of_the_model_is_noticed": (
        "gather(Path(found.folder), [found.file])",
        "Artifact(digest='same', bytes=0, files=(found.file,), path=found.folder)",
        "does not change the digest",
    ),
    "what_is_no_model_is_refused_politely": (
        "(ValueError, TypeError, KeyError) as error",
        "KeyError as error",
        "JSONDecodeError",
    ),
    "it_is_timed_or_says_that_it_cannot_be": (
        "return time_calls(",
        "return Timing(latencies_ns=(0,)) or time_calls(",
        "a call took no time",
    ),
}


@pytest.mark.parametrize("check", FAULTS)
def test_a_fault_is_found(installed: Path, tmp_path: Path, check: str) -> None:
    done = conformance(changed(installed, tmp_path, *FAULTS[check][:2]), tmp_path, check)

    assert done.returncode == 1
    assert FAULTS[check][2] in done.stderr


def test_every_check_has_a_fault_that_it_finds() -> None:
    assert set(FAULTS) == {check.__name__ for check in SOURCE_CHECKS}
