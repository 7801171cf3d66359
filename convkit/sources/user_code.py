"""Functions of the user's that were named on the command line or in a recipe: trusted by being named."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from convkit.errors import ConvkitError, InputError, StepError
from convkit.pipeline.artifact import Artifact, gather
from convkit.pipeline.isolation import warn_of_reach
from convkit.sources.code import local_imports, module_files

MODEL_DEF = "--model-def"


class UserFunction(msgspec.Struct, frozen=True, kw_only=True):
    """A function, and the files of the code that it is in."""

    files: Artifact
    name: str
    """``file.py:function``, the file relative to `files`, or ``module.name:function``."""


def find_function(text: str, option: str) -> UserFunction:
    """Look up what ``FILE.py:function`` or ``module:function`` names; nothing is run.

    Raises:
        InputError: it has not that form, or there is no such file or module.
    """
    where, colon, function = text.rpartition(":")
    hint = "name a FILE.py:function, or install the package that holds the module"
    what = "factory" if option == MODEL_DEF else "function"
    if not colon or not where or not function.isidentifier():
        raise InputError(
            f"{option} {text}: it should read FILE.py:{what} or module:{what}",
            hint="name a function",
            code="source.model-def" if option == MODEL_DEF else "data.function",
        )
    if not where.endswith(".py"):
        return UserFunction(files=module_files(where, hint), name=text)
    path = Path(where).absolute()
    if not path.is_file():
        raise InputError(
            f"{option} {where} does not exist",
            hint="check the path",
            code="source.model-def" if option == MODEL_DEF else "data.function",
        )
    return UserFunction(files=gather(path.parent, [path.name, *local_imports(path)]), name=f"{path.name}:{function}")


def load_function(function: UserFunction, option: str) -> Callable[..., Any]:
    """Import a function, with the folder of its code on the import path.

    Raises:
        InputError: the module cannot be imported, or defines no such function.
        StepError: importing it raises.
    """
    where, _, name = function.name.rpartition(":")
    warn_of_reach()
    if function.files.path not in sys.path:
        sys.path.insert(0, function.files.path)
    sys.dont_write_bytecode = True
    if where.endswith(".py"):
        return attribute(import_file(function.files.file(where)), name, option)
    try:
        module = importlib.import_module(where)
    except ImportError as error:
        raise InputError(
            f"{option} {function.name}: {error}",
            hint="name a FILE.py:function, or install the package that holds the module",
            code="source.model-def" if option == MODEL_DEF else "data.function",
        ) from error
    return attribute(module, name, option)


def attribute(module: Any, name: str, option: str = MODEL_DEF) -> Callable[..., Any]:
    """Return a function of a module.

    Raises:
        InputError: it defines none of that name.
    """
    found = getattr(module, name, None)
    if not callable(found):
        functions = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise InputError(
            f"{module.__name__} defines no function {name}()",
            hint=f"it defines: {', '.join(functions) or 'no function'}",
            code="source.model-def" if option == MODEL_DEF else "data.function",
        )
    return found  # type: ignore[no-any-return]


def import_file(path: Path) -> Any:
    """Import a file as a module of its own name.

    Raises:
        InputError: it is no Python file.
        StepError: importing it raises.
    """
    name = f"_{path.stem}" if path.stem in sys.stdlib_module_names else path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is no Python file", hint="name a .py file", code="source.model-def")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise StepError(
            f"importing {path.name} raised {type(error).__name__}: {error} ({place_of(error)})",
            hint=(
                f"install what it needs: pip install {error.name}{_requirements(path.parent)}"
                if isinstance(error, ModuleNotFoundError)
                else "it must import without arguments, without a GPU, from its own folder"
            ),
            code="source.user-code",
        ) from error
    return module


@contextlib.contextmanager
def running(function: UserFunction) -> Iterator[None]:
    """Let the user's code run in its own folder, and turn what it raises into a `StepError` that names the line.

    Raises:
        StepError: the code raised.
    """
    before = Path.cwd()
    os.chdir(function.files.path)
    try:
        yield
    except ConvkitError:
        raise
    except Exception as error:
        raise StepError(
            f"{function.name} raised {type(error).__name__}: {error} ({place_of(error)})",
            hint=(
                f"install what it needs: pip install {error.name}"
                if isinstance(error, ModuleNotFoundError)
                else "it runs in the folder of its code, without the network; what it prints is in the log"
            ),
            code="source.user-code",
        ) from error
    finally:
        os.chdir(before)


def place_of(error: BaseException) -> str:
    """Return the file and line that raised an error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "no line"
    return f"{Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno}"


def _requirements(folder: Path) -> str:
    listed = folder / "requirements.txt"
    return f", or all that {listed.name} lists: pip install -r {listed}" if listed.is_file() else ""
