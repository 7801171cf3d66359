"""Inputs whose values are shapes: the range of those values that a profile gives."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from convkit.errors import UsageError
from convkit.graph.model import Tensors
from convkit.spec.tensor import Interface, TensorSpec
from convkit.targets.trt_options import ShapeRange


class ValueRange(msgspec.Struct, frozen=True, kw_only=True):
    """The values of an input that is a shape, number by number; `opt` is what to be fastest at."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


def values_for(
    interface: Interface, names: tuple[str, ...], given: Mapping[str, ShapeRange], seen: Tensors | None
) -> dict[str, ValueRange]:
    """Return the values of every input that is a shape, for one profile.

    Args:
        interface: has those inputs.
        names: theirs.
        given: the recipe's table: for such an input it holds values, as `trtexec --minShapes` does.
        seen: the user's own inputs, whose values count where the table says nothing; `opt` is those of the first.

    Raises:
        UsageError: nothing says which values come, or they are out of order or not as many as the input has.
    """
    found = {}
    for spec in interface.inputs:
        if spec.name in names:
            values = given.get(spec.name)
            range_of = ValueRange(min=values.min, opt=values.opt, max=values.max) if values else _in_samples(spec, seen)
            _check(spec, range_of)
            found[spec.name] = range_of
    return found


def _in_samples(spec: TensorSpec, seen: Tensors | None) -> ValueRange:
    rows = [tuple(int(number) for number in case[spec.name].reshape(-1)) for case in seen or () if spec.name in case]
    if not rows:
        raise _refused(
            f"the values of '{spec.name}' are shapes, and nothing says which come",
            f"give --samples with '{spec.name}' in them, or its smallest, usual and largest values as min, opt and max "
            "in a recipe's profiles",
        )
    if len({len(row) for row in rows}) > 1:
        raise _refused(
            f"'{spec.name}' holds a shape, and has {' and '.join(str(len(row)) for row in rows)} numbers",
            "export it with one size: how many dimensions the result has is fixed in an engine",
        )
    columns = list(zip(*rows, strict=True))
    return ValueRange(min=tuple(map(min, columns)), opt=rows[0], max=tuple(map(max, columns)))


def _check(spec: TensorSpec, found: ValueRange) -> None:
    wanted = math.prod(dim for dim in spec.dims if isinstance(dim, int)) if not spec.is_dynamic else len(found.opt)
    if {len(found.min), len(found.opt), len(found.max)} != {wanted}:
        raise _refused(
            f"'{spec.name}' holds a shape of {wanted} numbers; min, opt and max have "
            f"{len(found.min)}, {len(found.opt)} and {len(found.max)}",
            "a profile gives its values, not its own shape",
        )
    for low, usual, high in zip(found.min, found.opt, found.max, strict=True):
        if not low <= usual <= high:
            raise _refused(f"'{spec.name}': min {low}, opt {usual}, max {high}", "min ≤ opt ≤ max")


def _refused(problem: str, hint: str) -> UsageError:
    return UsageError(problem, hint=hint, code="tensorrt.profile")
