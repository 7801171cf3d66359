"""Which tensors of two graphs are meant to hold the same values."""

from __future__ import annotations

import msgspec

from convkit.errors import InputError
from convkit.graph.flow import Flow
from convkit.spec.tensor import Interface


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor of the later graph, and the one of the earlier graph that it is held against."""

    name: str
    against: str
    needs: frozenset[str]
    """The nearest paired tensors, or inputs, of the later graph from which it is computed."""


class Pairing(msgspec.Struct, frozen=True, kw_only=True):
    """Two graphs side by side."""

    inputs: dict[str, str]
    """The earlier graph's name of each input by the later one's."""
    pairs: tuple[Pair, ...]
    """In the topological order of the later graph."""
    outputs: dict[str, str]
    """The earlier graph's name of each output by the later one's."""
    only_before: int
    """How many tensors of the earlier graph have no counterpart; constants do not count."""
    only_after: int


def pair_up(
    before: Flow, after: Flow, *, interfaces: tuple[Interface, Interface], hidden: frozenset[str] = frozenset()
) -> Pairing:
    """Pair inputs and outputs, and the tensors between by their names.

    A tensor without a namesake is held against that of the tensor from which it was only rounded (Q/DQ pairs, casts).
    Of a tensor that is only read as quantized it is the rounded one that counts.
    Inputs and outputs are paired by name, else by position. Tensors that are `hidden` in either graph are left out.

    Raises:
        InputError: the graphs take or give other numbers of tensors.
    """
    inputs = _ends([spec.name for spec in interfaces[0].inputs], [spec.name for spec in interfaces[1].inputs], "inputs")
    outputs = _ends(
        [spec.name for spec in interfaces[0].outputs], [spec.name for spec in interfaces[1].outputs], "outputs"
    )
    there = set(before.tensors()) - hidden
    rounded, unsettled = before.rounded(), after.rounded()
    taken = set(outputs.values())
    against: dict[str, str] = {}
    for name in set(after.tensors()).union(outputs) - hidden:
        found = next((n for n in (name, *after.alike(name)) if n in there), None)
        if name in outputs:
            against[name] = outputs[name]
        elif found is None or name in unsettled or (found == name and name in taken):
            continue  # the last: an output of that name is another one's
        else:
            against[name] = rounded.get(found, found)
    nearest: dict[str, frozenset[str]] = {name: frozenset([name]) for name in after.inputs}
    pairs = []
    for node, reads in zip(after.nodes, after.needs, strict=True):
        needs = frozenset().union(*(nearest.get(name, frozenset()) for name in reads))
        for name in node.output:
            if name in against:
                pairs.append(Pair(name=name, against=against[name], needs=needs))
            nearest[name] = frozenset([name]) if name in against else needs
    return Pairing(
        inputs=inputs,
        pairs=tuple(pairs),
        outputs=outputs,
        only_before=len(there - set(against.values())),
        only_after=sum(name not in against for name in after.tensors()),
    )


def _ends(before: list[str], after: list[str], what: str) -> dict[str, str]:
    if set(before) == set(after):
        return {name: name for name in after}
    if len(before) != len(after):
        raise InputError(
            f"the models have other {what}: {', '.join(before)} and {', '.join(after)}",
            hint=f"compare models that have as many {what}",
            code="compare.interface",
        )
    return dict(zip(after, before, strict=True))
