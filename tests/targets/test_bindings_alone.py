"""TensorRT's bindings beside a container's libraries, without the package `tensorrt` around them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
from convkit.pipeline.identity import library_version
from convkit.targets.trt_api import Flavour, installed
print(Flavour.TENSORRT.module, installed(Flavour.TENSORRT), library_version("tensorrt"))
"""


def seen(folder: Path, files: dict[str, str]) -> str:
    """Say what convkit takes for TensorRT where these files lie in a folder of packages."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    lines = [f"import sys; sys.path.insert(0, {str(folder)!r})", PROGRAM]
    return subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True
    ).stdout.strip()


BINDINGS = {
    "tensorrt_bindings/__init__.py": "",
    "tensorrt_cu13_bindings-11.0.0.114.dist-info/METADATA": (
        "Metadata-Version: 2.4\nName: tensorrt_cu13_bindings\nVersion: 11.0.0.114\n"
    ),
}
WHOLE = {
    "tensorrt/__init__.py": "",
    "tensorrt-11.1.0.106.dist-info/METADATA": "Metadata-Version: 2.4\nName: tensorrt\nVersion: 11.1.0.106\n",
}


def test_bindings_alone_are_tensorrt_with_their_version(tmp_path: Path) -> None:
    assert seen(tmp_path, BINDINGS) == "tensorrt_bindings True 11.0.0.114"


def test_the_whole_package_comes_before_its_bindings(tmp_path: Path) -> None:
    assert seen(tmp_path, {**BINDINGS, **WHOLE}) == "tensorrt True 11.1.0.106"
