"""Write trt_api.json: the names that TensorRT's own Python bindings define, for the releases named below.

    python tests/targets/extract_trt_api.py

Needs pip with access to a package index, and a C compiler. The bindings' package is small and importable without
TensorRT's libraries once something stands in for the nine functions that it imports from them; none is ever called.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

RELEASES = {"10.16": "10", "11.4": "11"}  # the release, and the number in its libraries' names
PACKAGE = "tensorrt_cu13_bindings"
OUTPUT = Path(__file__).with_name("trt_api.json")
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
IMPORTED = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
LIST_NAMES = """
import json
import tensorrt_bindings as api
def names(thing):
    return " ".join(sorted(name for name in dir(thing) if not name.startswith("_")))
kinds = {name: member for name, member in vars(api).items() if isinstance(member, type)}
print(json.dumps({"version": api.__version__, "classes": {name: names(kinds[name]) for name in sorted(kinds)}}))
"""


def extract(release: str, library_number: str, folder: Path) -> dict[str, object]:
    """Download one release's bindings and return its version and, of every class, the names in one text."""
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    subprocess.run([*download, f"{PACKAGE}=={release}.*"], check=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder)
    source = folder / "imported.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in IMPORTED), encoding="ascii")
    for library in LIBRARIES:
        shared = f"lib{library}.so.{library_number}"
        build = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{shared}", "-o", str(folder / shared), str(source)]
        subprocess.run(build, check=True)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(folder)}
    listed = subprocess.run(
        [sys.executable, "-c", LIST_NAMES], env=environment, check=True, capture_output=True, text=True
    )
    names: dict[str, object] = json.loads(listed.stdout)
    return names


def main() -> None:
    """Extract every release and write the file."""
    found = {}
    for release, library_number in RELEASES.items():
        with tempfile.TemporaryDirectory() as folder:
            found[release] = extract(release, library_number, Path(folder))
    OUTPUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
