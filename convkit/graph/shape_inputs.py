"""Inputs whose values say how large other tensors are: TensorRT wants a range of those values, not of their shapes.

They reach an operator's input that is a shape, a size or a position, through whatever is computed from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from convkit.graph.facts import Facts, read_facts
from convkit.graph.model import Model
from convkit.pipeline.step import step

SIZES: Mapping[str, tuple[int, ...]] = {
    "Reshape": (1,),
    "Expand": (1,),
    "Tile": (1,),
    "Resize": (3,),
    "ConstantOfShape": (0,),
    "Range": (0, 1, 2),
    "Slice": (1, 2, 3, 4),
    "Pad": (1,),
    "TopK": (1,),
    "OneHot": (1,),
    "Split": (1,),
}
"""Which inputs of which operators are shapes, sizes or positions."""

_LOOK_AT_SHAPES = ("Shape", "Size")
_INTEGERS = ("int32", "int64")


@step(version=1, stage="compile", title="Find the inputs that are shapes", needs="onnx")
def shape_inputs(model: Model) -> tuple[str, ...]:
    """Return the wire names of the inputs whose values decide shapes: integers, a number or a row of them."""
    if not any(len(spec.dims) <= 1 and spec.dtype.numpy in _INTEGERS for spec in model.interface.inputs):
        return ()
    facts = read_facts(model.path)
    small = [
        value.name
        for value in facts.inputs
        if len(facts.dims.get(value.name, (0, 0))) <= 1 and facts.type_name(value.name) in _INTEGERS
    ]
    read = set(_values_read(facts))
    return tuple(name for name in small if name in read)


def _values_read(facts: Facts) -> Iterator[str]:
    """Go back from every input that is a shape to all that it is computed from."""
    waiting = [node.input(index) for node in facts.nodes for index in SIZES.get(node.operator, ())]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if not name or name in seen:
            continue
        seen.add(name)
        yield name
        maker = facts.makers.get(name)
        if maker is not None and maker.operator not in _LOOK_AT_SHAPES:
            waiting.extend(maker.proto.input)
