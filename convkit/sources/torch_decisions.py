"""Whether forward() decides by what its inputs hold: a trace would settle that once and for all."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from convkit.sources.torch_blame import is_library

if TYPE_CHECKING:
    import torch

_TAKEN_OUT = frozenset(
    ("__bool__", "__int__", "__float__", "__index__", "__complex__", "item", "tolist", "numpy", "__array__", "equal")
)
"""What makes a Python value of a tensor's numbers."""
_MARK = "_from_an_input"


def decided_by_data(module: torch.nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> str | None:
    """Run forward(), and return the first line that makes a Python value of numbers that come from an input.

    Sizes do not count, nor do numbers of weights. None: there is no such line.
    """
    import torch
    from torch.overrides import TorchFunctionMode
    from torch.utils._pytree import tree_leaves

    class Watch(TorchFunctionMode):  # type: ignore[misc]
        place: str | None = None

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            given = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, torch.Tensor)]
            marked = any(getattr(leaf, _MARK, False) for leaf in given)
            if marked and getattr(function, "__name__", "") in _TAKEN_OUT and self.place is None:
                self.place = _place() or "a line of torch's own"
            result = function(*args, **(kwargs or {}))
            if marked:
                changed = [*tree_leaves(result), *given[:1]]  # the first one, too: it may be changed in place
                for leaf in changed:
                    if isinstance(leaf, torch.Tensor) and not isinstance(leaf, torch.nn.Parameter):
                        setattr(leaf, _MARK, True)
            return result

    for leaf in tree_leaves((arguments, keywords)):
        setattr(leaf, _MARK, True)
    with torch.no_grad(), Watch() as watch:
        module(*arguments, **keywords)
    place: str | None = watch.place
    return place


def _place() -> str | None:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if not is_library(frame.f_code.co_filename):
            return f"{Path(frame.f_code.co_filename).name}, line {frame.f_lineno}"
        frame = frame.f_back
    return None
