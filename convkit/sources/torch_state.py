"""The state dict in what a training script saved: nested, prefixed, beside an optimizer and an average of itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from convkit.errors import InputError
from convkit.pipeline import events

if TYPE_CHECKING:
    import torch

State = dict[str, "torch.Tensor"]

_DEPTH = 4
_AVERAGE = re.compile(r"ema|averag|swa|shadow|teacher", re.IGNORECASE)
_COMPILED = "_orig_mod."
_COUNTERS = ("num_batches_tracked", "n_averaged")
"""Buffers that old checkpoints lack, or that torch's average of a model adds."""


def state_dicts(loaded: Any) -> dict[str, State]:
    """Return every state dict in what was loaded, under the keys that lead to it, joined by dots; ``""``: the whole."""
    found: dict[str, State] = {}
    _collect(loaded, "", found, _DEPTH)
    return found


def _collect(value: Any, path: str, found: dict[str, State], depth: int) -> None:
    import torch

    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        return
    if not value and path:
        return
    if all(isinstance(item, torch.Tensor) for item in value.values()):
        found[path] = dict(value)
    elif depth:
        for key, item in value.items():
            _collect(item, f"{path}.{key}" if path else key, found, depth - 1)


def modules_in(loaded: Any) -> dict[str, Any]:
    """Return the modules that a checkpoint holds whole, by key."""
    import torch

    items = loaded.items() if isinstance(loaded, Mapping) else ()
    return {str(key): value for key, value in items if isinstance(value, torch.nn.Module)}


def weights_for(module: torch.nn.Module, loaded: Any, asked: str | None, *, file: str) -> State:
    """Choose the state dict that belongs to a module, with its keys as the module has them.

    Of several that fit, the one that is no average of the others; which it was, and what else fits, is told.

    Args:
        module: what is to be filled.
        loaded: what the checkpoint held.
        asked: ``--state-key``; None: the one that fits.
        file: the checkpoint's name, for messages.

    Raises:
        InputError: there is none, none under that key, or several fit and none is to be preferred.
    """
    found = state_dicts(loaded)
    if not found:
        raise InputError(
            f"{file} holds {_described(loaded)}, not a state dict",
            hint="save the weights alone: torch.save(model.state_dict(), path)",
            code="source.no-state-dict",
        )
    if asked is not None:
        return _renamed(found[_known(asked, found, file)], module)
    fitting = {key: fitted for key, state in found.items() if _fits(fitted := _renamed(state, module), module)}
    if not fitting:
        key = min(found, key=lambda key: (bool(_AVERAGE.search(key)), -len(found[key])))
        return _renamed(found[key], module)  # load_state_dict says what does not fit
    return fitting[_preferred(list(fitting), "state dicts that fit", file)]


def chosen_module(loaded: Any, asked: str | None, *, file: str) -> Any:
    """Return the module that was saved whole in a dict; what was loaded, where that is none.

    Raises:
        InputError: there is none under that key, or several and none is to be preferred.
    """
    found = modules_in(loaded)
    if asked is None and not found:
        return loaded
    if asked is not None:
        return found[_known(asked, found, file)]
    return found[_preferred(list(found), "modules", file)]


def _preferred(keys: list[str], what: str, file: str) -> str:
    """Return the key of the weights themselves, and say so where others are averages of them.

    Raises:
        InputError: none is to be preferred.
    """
    own = [key for key in keys if not _AVERAGE.search(key)] or keys
    if len(own) > 1:
        raise InputError(
            f"{file} holds several {what}: {', '.join(own)}",
            hint=f"choose one: --state-key {own[0]}",
            code="source.state-key",
        )
    _tell(own[0], [key for key in keys if key != own[0]], file)
    return own[0]


def _known(asked: str, found: Mapping[str, Any], file: str) -> str:
    if asked not in found:
        listed = ", ".join(key or "(the whole file)" for key in found)
        raise InputError(
            f"--state-key {asked}: {file} holds no weights there",
            hint=f"it holds them under: {listed}" if listed else "leave it out",
            code="source.state-key",
        )
    return asked


def _tell(key: str, others: list[str], file: str) -> None:
    if key:
        also = f"; {', '.join(others)} would fit, too: --state-key {others[0]}" if others else ""
        events.warn("source.state-key", f"{file}: the weights are those under '{key}'{also}")


def _described(loaded: Any) -> str:
    keys = f" with the keys {', '.join(map(str, list(loaded)[:8]))}" if isinstance(loaded, Mapping) else ""
    return f"a {type(loaded).__name__}{keys}"


def _renamed(state: State, module: torch.nn.Module) -> State:
    """Take off what wrappers put before every key: ``module.``, ``_orig_mod.``, and the name of whatever held it."""
    wanted = module.state_dict().keys()
    plain = {key.replace(_COMPILED, ""): value for key, value in state.items()}
    first = next(iter(wanted), "")
    endings = [key[: -len(first)] for key in plain if first and key.endswith(f".{first}")]
    for prefix in ("", *sorted(endings, key=len)):
        held = {key.removeprefix(prefix): value for key, value in plain.items() if key.startswith(prefix)}
        if _missing(held, wanted) == []:
            others = [key for key in held if key not in wanted and key.rpartition(".")[2] not in _COUNTERS]
            return {key: value for key, value in held.items() if key in wanted} if not others or prefix else held
    return plain


def _missing(held: State, wanted: Any) -> list[str]:
    return [key for key in wanted if key not in held and key.rpartition(".")[2] not in _COUNTERS]


def _fits(state: State, module: torch.nn.Module) -> bool:
    wanted = module.state_dict()
    return (
        not _missing(state, wanted)
        and all(key in wanted for key in state)
        and all(value.shape == wanted[key].shape for key, value in state.items())
    )
