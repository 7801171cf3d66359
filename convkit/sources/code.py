"""Python files that belong to a model, told from their text alone: nothing is imported to find them."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path

from convkit.errors import InputError
from convkit.pipeline.artifact import Artifact, gather


def parse_code(path: Path) -> ast.Module:
    """Parse a Python file.

    Raises:
        InputError: it is no Python.
    """
    try:
        return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"{path}: {error}", hint="mend the syntax", code="source.user-code") from error


def defines(path: Path, function: str) -> bool:
    """Tell whether a file defines a function of that name at its top level."""
    return any(isinstance(node, ast.FunctionDef) and node.name == function for node in parse_code(path).body)


def local_imports(file: Path) -> tuple[str, ...]:
    """Return the files that a file imports from its own folder, and what those import, relative to that folder."""
    folder, seen, waiting = file.parent, {file}, [file]
    while waiting:
        current = waiting.pop()
        package = current.relative_to(folder).parent.parts
        for parts in _imported(parse_code(current), package):
            for found in _files_of(folder, parts):
                if found not in seen:
                    seen.add(found)
                    waiting.append(found)
    return tuple(sorted(path.relative_to(folder).as_posix() for path in seen - {file}))


def _imported(tree: ast.Module, package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            yield from ((*module, alias.name) for alias in node.names)


def _files_of(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    """Yield what importing a.b.c runs below `folder`: each package on the way, and the module."""
    for length in range(1, len(parts) + 1):
        place = folder.joinpath(*parts[:length])
        candidates = (place / "__init__.py", place.with_name(f"{place.name}.py"))
        yield from (path for path in candidates if path.is_file())


def code_below(folder: Path) -> list[str]:
    """Return every Python file in and below a folder, relative to it; not those of hidden folders or repositories."""
    found = [path.name for path in folder.glob("*.py") if path.is_file()]
    for below in folder.iterdir():
        if below.is_dir() and not below.is_symlink() and not below.name.startswith((".", "__pycache__")):
            foreign = any((below / mark).exists() for mark in ("config.pbtxt", "pyvenv.cfg"))
            found += [] if foreign else [f"{below.name}/{name}" for name in code_below(below)]
    return found


def module_files(module: str, hint: str) -> Artifact:
    """Return the files of an importable top-level module or package, in the folder that imports find it in.

    The working directory comes first, as with ``python -m``.

    Raises:
        InputError: there is none, or it is not written in Python.
    """
    top = module.partition(".")[0]
    spec = PathFinder.find_spec(top, [str(Path.cwd())]) or importlib.util.find_spec(top)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if places:
        package = Path(places[0])
        return gather(package.parent, [f"{package.name}/{name}" for name in code_below(package)])
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise InputError(f"there is no Python module '{top}' here", hint=hint, code="source.model-def")
    file = Path(spec.origin)
    return gather(file.parent, [file.name, *local_imports(file)])
