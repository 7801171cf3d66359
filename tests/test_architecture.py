"""A room imports only from rooms above it: the table in the design, held by reading every import in the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "convkit"

ROOMS = (
    "errors",
    "spec",
    "pipeline",
    "graph",
    "sources",
    "data",
    "targets",
    "serving",
    "measure",
    "quantize",
    "report",
    "functions",  # request.py, order.py, conversion.py and what else lies beside the folders
    "cli",
)
HEAVY = {"google", "jinja2", "keras", "numpy", "onnx", "onnxruntime", "onnxscript", "onnxsim", "onnxslim", "openvino"}
HEAVY |= {"PIL", "rich", "sklearn", "tensorflow", "tensorrt", "tensorrt_rtx", "tf2onnx", "torch", "tritonclient"}
LIGHT_ENTRANCES = ("__init__", "__main__")
"""The package itself, which holds its version, and the program, which imports the command line inside a function."""


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.stem not in LIGHT_ENTRANCES or path.parent != PACKAGE)


def room_of(parts: tuple[str, ...]) -> str:
    """The room of a module, given the parts of its name after ``convkit``."""
    return parts[0] if parts[0] in ROOMS else "functions"


def imported_modules(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Every module that a file imports anywhere: at its top, in functions, under TYPE_CHECKING, relative ones too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *((node.module,) if node.module else ())))
            yield node.lineno, module
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names if module == "convkit")


def imports_against_the_order(path: Path, text: str) -> list[str]:
    own = path.relative_to(PACKAGE).with_suffix("").parts
    rank = ROOMS.index(room_of(own))
    package = ("convkit", *own[:-1])
    found = []
    for line, module in imported_modules(ast.parse(text), package):
        parts = tuple(module.split("."))
        if parts[0] != "convkit" or len(parts) < 2 or parts[1] == "__version__":
            continue
        if ROOMS.index(room_of(parts[1:])) > rank:
            found.append(f"{path.relative_to(PACKAGE)}:{line} imports {module}")
    return found


def imported_at_once(body: list[ast.stmt]) -> Iterator[str]:
    """The modules that merely importing a file imports: not in functions, not under TYPE_CHECKING."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.If) and ast.unparse(node.test) != "TYPE_CHECKING":
            yield from imported_at_once([*node.body, *node.orelse])
        elif isinstance(node, ast.Try | ast.With | ast.ClassDef):
            yield from imported_at_once(node.body)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_from_rooms_above_it(path: Path) -> None:
    assert imports_against_the_order(path, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "from convkit.report.document import Report",
        "import convkit.cli.app",
        "def f():\n    from convkit import convert",
        "if TYPE_CHECKING:\n    from convkit.targets.target import Target",
        "from ..serving import publish",
    ],
)
def test_an_import_against_the_order_would_be_found(line: str) -> None:
    assert imports_against_the_order(PACKAGE / "graph" / "invented.py", line) != []


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_heavy_library_is_imported_inside_functions_only(path: Path) -> None:
    tops = {module.partition(".")[0] for module in imported_at_once(ast.parse(path.read_text(encoding="utf-8")).body)}

    assert tops & HEAVY == set()


def test_every_folder_of_the_package_is_a_room_of_the_table() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}

    assert folders <= set(ROOMS)
