"""Calling a torch.nn.Module with config.txt's inputs, and taking what it returns apart into config.txt's outputs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from convkit.errors import InputError, MetadataError
from convkit.pipeline.patience import one_run
from convkit.sources.torch_operators import REGISTER
from convkit.spec.tensor import DType, Interface, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import torch

T = TypeVar("T")


class Place(NamedTuple):
    """Where an input goes: a parameter of forward(), and where that is a dict or a list, the key in it."""

    parameter: str
    key: str | None = None


class Call(NamedTuple):
    """How forward() gets its inputs."""

    wires: tuple[str, ...]
    """Their wire names, in the order in which forward() and what it is given are taken apart."""
    places: tuple[Place, ...] = ()
    """Where each goes; empty: one after the other."""
    by_keyword: bool = False
    tuples: frozenset[str] = frozenset()
    """The parameters whose annotation asks for a tuple rather than a list."""

    def given(self, case: Mapping[str, np.ndarray]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the positional and the keyword arguments of one call."""
        return self.arranged(tuple(tensor_of(case[name]) for name in self.wires))

    def arranged(self, values: tuple[T, ...]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return one value for each input as positional and keyword arguments, in their dicts and lists."""
        if not self.places:
            return values, {}
        whole: dict[str, Any] = {}
        for place, value in zip(self.places, values, strict=True):
            if place.key is None:
                whole[place.parameter] = value
            else:
                whole.setdefault(place.parameter, {})[place.key] = value
        for place in self.places:
            held = whole[place.parameter]
            if place.key == "0" and isinstance(held, dict):
                items = list(held.values())
                whole[place.parameter] = tuple(items) if place.parameter in self.tuples else items
        return ((), whole) if self.by_keyword else (tuple(whole.values()), {})


def how_to_call(module: torch.nn.Module, wanted: Interface) -> Call:
    """Match config.txt's inputs to forward()'s parameters.

    By name where every input has a parameter's name, by keyword if other parameters stand between them; else in
    config.txt's own order. An input called ``PARAMETER.KEY`` goes into a dict that is this parameter; where the keys
    are the numbers from 0 on, into a list. What else forward(**kwargs) takes goes by keyword.
    """
    parameters = _parameters(module)
    named = {name: p for name, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    placed = [_place(spec, named) for spec in wanted.inputs]
    if takes_any and (not named or any(placed)):
        placed = [
            place or Place(spec.alias or spec.name) if (spec.alias or spec.name).isidentifier() else place
            for place, spec in zip(placed, wanted.inputs, strict=True)
        ]
    places = [place for place in placed if place is not None]
    if len(places) < len(wanted.inputs) or len(set(places)) < len(places):
        return Call(tuple(spec.name for spec in wanted.inputs))
    order = [*named, *(place.parameter for place in places)]
    by_place = sorted(
        zip(places, wanted.inputs, strict=True),
        key=lambda pair: (order.index(pair[0].parameter), _key_order(pair[0].key)),
    )
    ordered = list(dict.fromkeys(place.parameter for place, _ in by_place))
    leading = list(named)[: len(ordered)] == ordered
    plain = leading and all(named[name].kind is not inspect.Parameter.KEYWORD_ONLY for name in ordered)
    wires = tuple(spec.name for _, spec in by_place)
    if plain and all(place.key is None for place in places):
        return Call(wires)
    return Call(
        wires,
        tuple(place for place, _ in by_place),
        by_keyword=not plain,
        tuples=frozenset(name for name in ordered if name in named and "uple" in str(named[name].annotation)[:24]),
    )


def _parameters(module: torch.nn.Module) -> Mapping[str, inspect.Parameter]:
    schema = getattr(getattr(module, "forward", None), "schema", None)
    if schema is None:
        return inspect.signature(module.forward).parameters
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        argument.name: inspect.Parameter(argument.name, kinds[argument.kwarg_only], annotation=str(argument.type))
        for argument in schema.arguments[1:]
    }


def _place(spec: TensorSpec, named: Mapping[str, inspect.Parameter]) -> Place | None:
    for name in (spec.alias, spec.name):
        if name in named:
            return Place(str(name))
        parameter, dot, key = (name or "").partition(".")
        if dot and key and parameter in named:
            return Place(parameter, key)
    return None


def _key_order(key: str | None) -> int:
    return int(key) if key is not None and key.isdigit() else 0


def tensor_of(array: np.ndarray) -> torch.Tensor:
    """Return a copy of an array as a tensor."""
    import torch

    if array.dtype.name == "bfloat16":  # ml_dtypes' type, which torch does not know
        return torch.from_numpy(array.view("int16").copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor as an array; bfloat16 as float32."""
    import torch

    array: np.ndarray = (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).detach().numpy()
    return array


def leaves(result: Any) -> list[torch.Tensor]:
    """Return the tensors in what forward() returned, from tuples of tuples, lists and dicts, in their order."""
    import torch
    from torch.utils._pytree import tree_leaves

    if hasattr(result, "to_tuple"):  # dataclass-like outputs, as transformers'
        result = result.to_tuple()
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]


def answer(
    module: torch.nn.Module, wanted: Interface, call: Call, case: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return what the module answers on one case; in and out under wire names.

    Raises:
        InputError: the module fails on these inputs.
        MetadataError: config.txt's outputs are not what it returned.
    """
    import torch

    shapes = ", ".join(f"{name} {list(case[name].shape)}" for name in call.wires)
    arguments, keywords = call.given(case)
    try:
        with torch.inference_mode(), one_run(f"the model on the inputs {shapes}"):
            result = module(*arguments, **keywords)
    except Exception as error:
        from convkit.sources.torch_blame import blame

        raise InputError(
            f"the model fails on inputs of config.txt's shapes ({shapes}): "
            f"{type(error).__name__}: {' '.join(str(error).split())}{blame(error, module)}",
            hint=REGISTER
            if "_OpNamespace" in str(error)
            else "compare dims, data_type and order of the inputs with forward(); "
            "'min_dims', 'opt_dims' and 'max_dims' bound a dimension of -1; "
            "an input inside a dict or a list is called PARAMETER.KEY, PARAMETER.0",
            code="source.forward-failed",
        ) from error
    found = leaves(result)
    if len(found) != len(wanted.outputs):
        raise MetadataError(
            f"config.txt: {len(wanted.outputs)} outputs are declared, the model returns {len(found)}: "
            + ", ".join(str(list(leaf.shape)) for leaf in found),
            hint="list every output, in the order in which forward() returns them",
            code="metadata.outputs",
        )
    return {spec.name: _as_declared(spec, leaf) for spec, leaf in zip(wanted.outputs, found, strict=True)}


def _as_declared(spec: TensorSpec, leaf: torch.Tensor) -> np.ndarray:
    found = str(leaf.dtype).removeprefix("torch.")
    if found != spec.dtype.value:
        known = found in (dtype.value for dtype in DType)
        raise MetadataError(
            f"config.txt: output '{spec.name}' is declared as {spec.dtype.value}, the model returns {found}",
            hint=f"write data_type '{found}' for it" if known else f"no server takes {found}: cast it in the model",
            code="metadata.type-mismatch",
        )
    return array_of(leaf)
