"""Where in the user's own code an error of torch's arose: module, file and line."""

from __future__ import annotations

import contextlib
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_LIBRARIES = re.compile(r"/(torch|onnxscript|onnx_ir|onnx|numpy|sympy|convkit)/")
_FILE_LINE = re.compile(r'File "([^"]+)", line (\d+)')


def blame(error: BaseException, module: torch.nn.Module) -> str:
    """Return `` (operator X, in layers.3 (Attention), net.py, line 12)`` as far as it is known; else nothing.

    An error of the exporter's is traced through the operator of the graph that it was translating, any other through
    the frames of the calls that it passed.
    """
    said = _of_operator(error) or _of_frames(error, module)
    return f" ({', '.join(said)})" if said else ""


@contextlib.contextmanager
def fixed_sizes(module: torch.nn.Module) -> Iterator[list[str]]:
    """Note, while torch.export runs within, where the module makes a free size a number: texts as `blame` gives."""
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    own = ShapeEnv._set_replacement
    noted: list[str] = []

    def noting(env: Any, symbol: Any, size: Any, *more: Any) -> Any:
        if getattr(size, "is_number", False) and (said := _of_stack(module)):
            noted.append(f" (the size {size} is settled {', '.join(said)})")
        return own(env, symbol, size, *more)

    ShapeEnv._set_replacement = noting
    try:
        yield noted
    finally:
        ShapeEnv._set_replacement = own


def _of_stack(module: torch.nn.Module) -> list[str]:
    """Return the innermost module and the innermost line of the user's that are running now."""
    names = {id(part): name for name, part in module.named_modules()}
    inside = None
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if inside is None and id(owner) in names:
            inside = _named(names[id(owner)], type(owner).__name__)
        if not is_library(frame.f_code.co_filename):
            place = f"{Path(frame.f_code.co_filename).name}, line {frame.f_lineno}"
            return [inside, place] if inside else [place]
        frame = frame.f_back
    return []


def _of_operator(error: BaseException) -> list[str]:
    """Return what is known of the operator that was being translated to ONNX."""
    import torch

    for frame, _ in _frames(error):
        node = frame.f_locals.get("node")
        if isinstance(node, torch.fx.Node) and node.op == "call_function":
            stack = list(dict(node.meta.get("nn_module_stack") or {}).values())
            place = last_place(str(node.meta.get("stack_trace") or ""))
            return [f"operator {node.target}", *_in_module(stack), *([place] if place else [])]
    return []


def _in_module(stack: list[Any]) -> list[str]:
    if not stack:
        return []
    path, kind = stack[-1][:2]
    name = kind.rpartition(".")[2] if isinstance(kind, str) else getattr(kind, "__name__", str(kind))
    return [_named(str(path), name)]


def _named(path: str, kind: str) -> str:
    path = path.replace("L['self'].", "").removeprefix("L['self']")
    return f"in {path} ({kind})" if path else f"in the module itself ({kind})"


def last_place(trace: str) -> str | None:
    """Return the innermost file and line of a stack trace's text that are neither torch's nor Python's own."""
    places = [(file, line) for file, line in _FILE_LINE.findall(trace) if not is_library(file)]
    return f"{Path(places[-1][0]).name}, line {places[-1][1]}" if places else None


def _of_frames(error: BaseException, module: torch.nn.Module) -> list[str]:
    """Return the innermost line that is neither torch's nor Python's own, and the innermost module of the model's."""
    import torch

    names = {id(part): name for name, part in module.named_modules()} if isinstance(module, torch.nn.Module) else {}
    place, inside = None, None
    for frame, line in _frames(error):
        owner = frame.f_locals.get("self")
        if isinstance(owner, torch.nn.Module) and id(owner) in names:
            inside = _named(names[id(owner)], type(owner).__name__)
        if not is_library(frame.f_code.co_filename):
            place = f"{Path(frame.f_code.co_filename).name}, line {line}"
    return [text for text in (inside, place) if text] if place else []


def _frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    """Yield frames and lines, those of the error first raised last."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    for each in chain:
        trace = each.__traceback__
        while trace is not None:
            yield trace.tb_frame, trace.tb_lineno
            trace = trace.tb_next


def is_library(file: str) -> bool:
    """Tell whether a file belongs to torch, to convkit, or to Python itself."""
    if file.startswith("<") or _LIBRARIES.search(file):
        return True
    return "site-packages" not in file and file.startswith(sysconfig.get_paths()["stdlib"])
