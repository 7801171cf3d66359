"""Write down the API of TensorRT's own Python bindings, for the releases named below.

    python tests/targets/extract_trt_api.py

trt_api.json, beside this file, has every class with its names: tests hold what convkit uses against it.
convkit/targets/trt_releases.json has what a recipe can set, of these releases and of the TensorRT-RTX that is
installed: recipes are held against it.

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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convkit.targets.trt_settings import ENUMERATIONS

RELEASES = {"10.16": "10", "11.4": "11"}  # the release, and the number in its libraries' names
PACKAGE = "tensorrt_cu13_bindings"
OUTPUT = Path(__file__).with_name("trt_api.json")
SETTINGS = Path(__file__).parents[2] / "convkit" / "targets" / "trt_releases.json"
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
import importlib
import json
import sys
api = importlib.import_module(sys.argv[1])
def names(thing):
    return " ".join(sorted(name for name in dir(thing) if not name.startswith("_")))
def kind(member):
    # pybind11 writes a getter's signature into its docstring
    return member.fget.__doc__.strip().splitlines()[0].rpartition("-> ")[2].rpartition(".")[2]
kinds = {name: member for name, member in vars(api).items() if isinstance(member, type)}
config = vars(api.IBuilderConfig)
settable = {name: kind(config[name]) for name in sorted(config) if getattr(config[name], "fset", None)}
enumerations = {name: list(getattr(api, name).__members__) for name in sys.argv[2:] if name in kinds}
print(json.dumps({
    "version": api.__version__,
    "classes": {name: names(kinds[name]) for name in sorted(kinds)},
    "properties": settable,
    "enumerations": enumerations,
}))
"""


def extract(release: str, library_number: str, folder: Path) -> dict[str, Any]:
    """Download one release's bindings and return what `LIST_NAMES` tells of it."""
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
    return listed("tensorrt_bindings", environment)


def listed(module: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return a module's version, of every class the names in one text, and what a recipe can set."""
    command = [sys.executable, "-c", LIST_NAMES, module, *dict.fromkeys(ENUMERATIONS.values())]
    said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(said)
    return found


def main() -> None:
    """Extract every release and write the files."""
    found = {}
    for release, library_number in RELEASES.items():
        with tempfile.TemporaryDirectory() as folder:
            found[release] = extract(release, library_number, Path(folder))
    rtx = listed("tensorrt_rtx", os.environ)
    classes = {name: {key: each[key] for key in ("version", "classes")} for name, each in found.items()}
    OUTPUT.write_text(json.dumps(classes, indent=1) + "\n", encoding="utf-8")
    settings = [{"flavour": "tensorrt", **each} for each in found.values()] + [{"flavour": "tensorrt-rtx", **rtx}]
    for each in settings:
        del each["classes"]
    SETTINGS.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
