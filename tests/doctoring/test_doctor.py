"""What a machine can do, what it lacks and what is known to go wrong there; nothing heavy is imported to tell."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cli.program import Program
from schemas.validator import Validator

from convkit import doctoring, installed, traps
from convkit.doctoring import examine
from convkit.report.checkup import CacheFacts, Checkup, Isolation, Trap
from convkit.report.checkup_sheet import sections, verdict
from convkit.report.terminal import sections_to_terminal
from convkit.schema import schema
from convkit.targets.cuda_driver import Gpu

HEAVY = ("google", "jinja2", "numpy", "onnx", "onnxruntime", "openvino", "rich", "tensorflow", "tensorrt_rtx", "torch")
HELD = Isolation(writes=True, network=True, off=False)
CACHE = CacheFacts(path="cache", free_bytes=100 << 30, writable=True)
PLENTY = 64 << 30


class Installed:
    """Stands in for what is installed: versions and requirements, by distribution."""

    def __init__(self, versions: dict[str, str], requirements: dict[str, list[str]]) -> None:
        self.versions = versions
        self.requirements = requirements

    def version(self, name: str) -> str:
        if name not in self.versions:
            raise installed.importlib.metadata.PackageNotFoundError(name)
        return self.versions[name]

    def requires(self, name: str) -> list[str]:
        self.version(name)
        return self.requirements.get(name, [])


OURS = ["numpy>=1.26", "protobuf<7,>=6.33.5", 'onnx>=1.19; extra == "onnx"', 'onnxruntime>=1.22; extra == "onnx"']
OURS += ['convkit[onnx]; extra == "torch"', 'torch>=2.9; extra == "torch"']
HERE = {"convkit": "0.1.0", "numpy": "2.1.0", "protobuf": "6.33.5", "onnx": "1.20.0", "onnxruntime": "1.23.0"}


@pytest.fixture
def with_installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Installed]:
    def forget() -> None:
        installed.installed_version.cache_clear()
        installed.requirements_of.cache_clear()

    fake = Installed(dict(HERE), {"convkit": OURS})
    monkeypatch.setattr(installed.importlib.metadata, "version", fake.version)
    monkeypatch.setattr(installed.importlib.metadata, "requires", fake.requires)
    monkeypatch.setattr(traps, "_cuda_of_torch", lambda: None)
    forget()
    yield fake
    monkeypatch.undo()
    forget()


def found(**more: object) -> list[Trap]:
    options = {"gpu": None, "cache": CACHE, "isolation": HELD, "memory_bytes": PLENTY, **more}
    return list(traps.find_traps(**options))  # type: ignore[arg-type]


def part(checkup: Checkup, name: str) -> object:
    return next(part for part in checkup.parts if part.name == name)


def test_telling_imports_no_heavy_library() -> None:
    code = "import convkit, sys; print(convkit.doctor().status); print(*{n.partition('.')[0] for n in sys.modules})"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    status, modules = done.stdout.splitlines()
    assert status == "ok"
    assert set(modules.split()) & set(HEAVY) == set()


def test_this_machine_converts_what_the_tests_convert(tmp_path: Path) -> None:
    shown = Program(tmp_path, tmp_path / "cache")("doctor")
    told = Program(tmp_path, tmp_path / "cache")("doctor", "--json")

    assert (shown.status, told.status) == (0, 0)
    assert "converts onnx, torch, tensorflow models here" in shown.out
    assert "none: libcuda" in shown.out or "compute capability" in shown.out
    assert told.result["cache"]["path"] == str(tmp_path / "cache")
    assert Validator(schema("checkup")).accepts(told.result)
    ready = {part["name"] for part in told.result["parts"] if part["ready"]}
    assert {"onnx", "torch", "tensorflow", "openvino"} <= ready


def test_what_is_missing_is_named_with_the_command_that_brings_it(with_installed: Installed) -> None:
    torch = part(examine(), "torch")

    assert (torch.ready, torch.missing) == (False, ("torch >=2.9",))  # type: ignore[attr-defined]
    assert torch.install == 'pip install "convkit[torch]"'  # type: ignore[attr-defined]


def test_a_library_that_is_too_old_counts_as_missing(with_installed: Installed) -> None:
    with_installed.versions["torch"] = "2.1.0+cu121"

    assert part(examine(), "torch").missing == ("torch >=2.9 (here: 2.1.0+cu121)",)  # type: ignore[attr-defined]


def test_where_nothing_can_be_converted_the_exit_status_is_6(with_installed: Installed) -> None:
    assert (examine().status, examine().exit_code) == ("ok", 0)
    del with_installed.versions["onnxruntime"]
    installed.installed_version.cache_clear()

    checkup = examine()

    assert (checkup.status, checkup.exit_code) == ("failed", 6)
    assert verdict(checkup) == "FAILED: nothing can be converted here"


def test_a_distribution_that_brings_the_same_modules_will_do(with_installed: Installed) -> None:
    with_installed.versions["onnxruntime-gpu"] = with_installed.versions.pop("onnxruntime")

    checkup = examine()

    assert checkup.exit_code == 0
    assert [(reader.name, reader.reads) for reader in checkup.readers] == [
        ("onnxruntime-gpu", "ONNX IR version 11, opset 23")
    ]


def test_a_conflict_of_protobuf_is_named_and_breaks_everything_where_onnx_has_it(with_installed: Installed) -> None:
    with_installed.versions["protobuf"] = "4.25.0"
    with_installed.requirements["onnx"] = ["protobuf>=6.31.1"]

    said = [trap.what for trap in found() if trap.severe]

    assert "onnx 1.20.0 asks for protobuf >=6.31.1, and protobuf 4.25.0 is installed" in said
    assert examine().exit_code == 6


def test_a_conflict_of_what_one_framework_needs_leaves_the_others(with_installed: Installed) -> None:
    with_installed.versions |= {"tensorflow-cpu": "2.16.0"}
    with_installed.requirements["tensorflow-cpu"] = ["numpy<2,>=1.26", 'windows-only>1; sys_platform == "win32"']

    (trap,) = found()

    assert trap.what == "tensorflow-cpu 2.16.0 asks for numpy <2,>=1.26, and numpy 2.1.0 is installed"
    assert not trap.severe


@pytest.mark.parametrize(
    ("versions", "named"),
    [
        ({"tf2onnx": "1.16.1"}, "tf2onnx"),
        ({"onnxruntime-gpu": "1.23.0"}, "twice"),
        ({"tf2onnx": "1.17.0"}, None),
    ],
)
def test_known_traps_are_named(with_installed: Installed, versions: dict[str, str], named: str | None) -> None:
    with_installed.versions |= versions

    assert [trap.name for trap in found()] == ([named] if named else [])


def test_a_torch_for_cuda_is_told_of_where_there_is_no_gpu_or_an_older_driver(
    with_installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traps, "_cuda_of_torch", lambda: "13.0")
    older, newer = (Gpu(name="L4", compute_capability="8.9", cuda=cuda) for cuda in ("12.4", "13.1"))

    assert "no GPU" in found()[0].what
    assert "serves CUDA 12.4" in found(gpu=older)[0].what
    assert found(gpu=newer) == []


def test_the_cuda_of_torch_is_read_from_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('this must not be imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name == "torch"]:
        monkeypatch.delitem(sys.modules, name)

    for line, cuda in (("cuda: Optional[str] = '12.8'", "12.8"), ("cuda: Optional[str] = None", None)):
        (tmp_path / "torch" / "version.py").write_text(f"__version__ = '2.9.0'\n{line}\nhip = None\n")
        assert traps._cuda_of_torch() == cuda


def test_little_space_and_open_isolation_are_told_of(with_installed: Installed) -> None:
    full = CacheFacts(path="cache", free_bytes=1 << 30, writable=True)
    closed = CacheFacts(path="cache", free_bytes=None, writable=False)

    assert [trap.name for trap in found(cache=full)] == ["space"]
    assert [(trap.name, trap.severe) for trap in found(cache=closed)] == [("cache", True)]
    assert [trap.name for trap in found(isolation=Isolation(writes=True, network=False, off=False))] == ["isolation"]
    assert [trap.name for trap in found(memory_bytes=1 << 30)] == ["memory"]


def test_a_triton_server_is_found_with_its_backends_and_what_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "tritonserver"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (tmp_path / "backends" / "onnxruntime").mkdir(parents=True)
    monkeypatch.setenv("CONVKIT_TRITONSERVER", str(program))
    monkeypatch.setenv("NVIDIA_TRITON_SERVER_VERSION", "26.06")

    server = doctoring._server()

    assert server is not None
    assert (server.release, server.backends) == ("26.06", ("onnxruntime",))
    assert server.reads == "by ONNX Runtime 1.24.4: IR version 13, opset 25; engines of TensorRT 11.0.0.114"


@pytest.mark.parametrize("width", [60, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    here = examine()
    cache = msgspec.structs.replace(here.cache, path="/home/me/.cache/convkit")  # a path may be as long as it likes
    lines = sections_to_terminal(sections(msgspec.structs.replace(here, cache=cache)), width=width).splitlines()

    assert max(map(len, lines)) <= width
    assert {"Machine", "Extras", "What is read"} <= set(lines)


def test_the_isolation_that_is_told_is_the_one_that_workers_have() -> None:
    code = "from convkit.pipeline import isolation as i; i.isolate(); import json; print(json.dumps(i.HELD))"

    held = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)

    told = examine().isolation
    assert {"writes": told.writes, "network": told.network} == held
