"""Operators of the user's own in PyTorch: the Python files that register them, and how they are written as ONNX."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from convkit.errors import InputError
from convkit.pipeline.extensions import python_files
from convkit.pipeline.isolation import warn_of_reach
from convkit.sources.torch_translations import own_translations
from convkit.sources.user_code import import_file

TRANSLATIONS = "ONNX_TRANSLATIONS"
"""What a file calls its table: from ``torch.ops.namespace.operator.default`` to a function that builds ONNX nodes."""

REGISTER = "an operator of your own is registered by a Python file: --custom-ops FILE.py"
"""The hint where PyTorch does not have an operator."""

_imported: dict[Path, Any] = {}


def import_operators() -> None:
    """Import the run's Python files, once in a process; a model that uses their operators can be loaded then.

    Raises:
        StepError: importing one raises.
    """
    for path in python_files():
        if path not in _imported:
            warn_of_reach()
            if str(path.parent) not in sys.path:
                sys.path.insert(0, str(path.parent))
            sys.dont_write_bytecode = True
            _imported[path] = import_file(path)


def translations() -> dict[Any, Any]:
    """Return what the run's files say of their operators, and convkit of some of torch's own.

    It is meant for ``torch.onnx.export(custom_translation_table=...)``.

    Raises:
        InputError: a table is none, or its keys are no operators.
        StepError: importing a file raises.
    """
    import torch

    import_operators()
    table: dict[Any, Any] = dict(own_translations())
    for path in python_files():
        said = getattr(_imported[path], TRANSLATIONS, {})
        if not isinstance(said, dict):
            raise _mistaken(path, f"{TRANSLATIONS} is a {type(said).__name__}, not a dict")
        for operator, function in said.items():
            if not isinstance(operator, torch._ops.OpOverload):
                raise _mistaken(path, f"{TRANSLATIONS} has the key {operator}, which is no operator's overload")
            if not callable(function):
                raise _mistaken(path, f"{TRANSLATIONS}[{operator}] is a {type(function).__name__}, not a function")
            table[operator] = function
    return table


def _mistaken(path: Path, what: str) -> InputError:
    return InputError(
        f"{path.name}: {what}",
        hint=f"{TRANSLATIONS} = {{torch.ops.namespace.operator.default: function_of_the_same_arguments}}",
        code="custom-ops.translations",
    )
