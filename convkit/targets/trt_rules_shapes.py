"""What happens to a graph at the smallest, usual and largest shapes of its optimization profiles."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from convkit.graph.facts import Dims, Facts, Placed, dims_of
from convkit.targets.finding import Finding
from convkit.targets.trt_profiles import Profile
from convkit.targets.trt_rules import CONVKIT

if TYPE_CHECKING:
    import onnx

Numbers = Mapping[str, Sequence[int]]

_NODE = re.compile(r"\(op_type:(?P<operator>[^,)]*)(?:, node name: (?P<node>[^)]*))?\): ?(?P<reason>.*)", re.DOTALL)
_ABOUT_SHAPES = re.compile(r"dimension|shape|rank|axis|mismatch", re.IGNORECASE)
_NOISE = re.compile(r"\[[A-Za-z]+Error\] ?")


def shape_findings(facts: Facts, profiles: Sequence[Profile]) -> Iterator[Finding]:
    """Find nodes that cannot work at a profile's shapes; without profiles, at those that the inputs declare.

    Inputs whose values are shapes have the profile's values there.
    """
    seen = set()
    for place in _places(profiles) or [_Place("", {}, {})]:
        for finding in _at(facts, place):
            if finding.node not in seen:
                seen.add(finding.node)
                yield finding


class _Place(NamedTuple):
    """One end of a profile."""

    where: str
    """In words."""
    shapes: Numbers
    values: Numbers
    """Of the inputs whose values are shapes."""


def _places(profiles: Sequence[Profile]) -> list[_Place]:
    found = []
    for number, profile in enumerate(profiles):
        which = f"profile {number}'s" if len(profiles) > 1 else "the profile's"
        for word, attribute in (("smallest", "min"), ("usual", "opt"), ("largest", "max")):
            shapes = {name: getattr(shape, attribute) for name, shape in profile.shapes.items()}
            values = {name: getattr(value, attribute) for name, value in profile.values.items()}
            found.append(_Place(f"at {which} {word} shape ({_listed(shapes, values)}) ", shapes, values))
    return found


def _listed(shapes: Numbers, values: Numbers) -> str:
    texts = [f"{name} = {list(numbers)}" for name, numbers in values.items()]
    texts += [f"{name} {list(dims)}" for name, dims in shapes.items()]
    return ", ".join(texts[:3]) + (", ..." if len(texts) > 3 else "")


def _at(facts: Facts, place: _Place) -> Iterator[Finding]:
    import onnx

    where = place.where
    proto = _with_shapes(facts.proto, place)
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        yield from _of_error(facts, place, str(error))
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    dims = {
        value.name: dims_of(value)
        for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
        if value.type.tensor_type.HasField("shape")
    } | {name: tuple(tensor.dims) for name, tensor in facts.weights.items()}
    for node in facts.nodes:
        reason, mend = _empty(node, dims), ""
        if reason is None and node.operator == "Reshape":
            reason, mend = _reshaped(node, facts, dims)
            reason = reason or _other_count(node, dims)
        if reason is not None:
            yield _finding(node.name, node.operator, f"{where}{reason}", mend, together=bool(place.values))


def _of_error(facts: Facts, place: _Place, text: str) -> Iterator[Finding]:
    found = _NODE.search(text)
    if found is None:
        return
    reason = " ".join(_NOISE.sub("", found["reason"]).split())
    if not _ABOUT_SHAPES.search(reason) or "type" in reason.lower():
        return
    node = next((each for each in facts.nodes if each.proto.name and each.proto.name == found["node"]), None)
    node = node or next((each for each in facts.nodes if each.operator == found["operator"]), None)
    if node is not None:
        reason = f"{place.where}its shapes do not fit: {reason}"
        yield _finding(node.name, node.operator, reason, "", together=bool(place.values))


def _empty(node: Placed, dims: Mapping[str, Dims]) -> str | None:
    for name in node.proto.output:
        if any(isinstance(dim, int) and dim < 0 for dim in dims.get(name, ())):
            return f"nothing is left: '{name}' would be {list(dims[name])}"
    return _narrow(node, dims) if node.operator in _WINDOWS else None


_WINDOWS = frozenset(("MaxPool", "AveragePool", "LpPool", "Conv"))


def _narrow(node: Placed, dims: Mapping[str, Dims]) -> str | None:
    """Hold a window against what it slides over; onnx's own inference lets any window fit."""
    given = dims.get(node.input(0), ())[2:]
    kernel = node.attribute("kernel_shape") or dims.get(node.input(1), ())[2:]
    if not given or len(kernel) != len(given) or str(node.attribute("auto_pad", "NOTSET")).startswith("SAME"):
        return None
    pads = node.attribute("pads") or [0] * (2 * len(given))
    dilations, strides = (node.attribute(name) or [1] * len(given) for name in ("dilations", "strides"))
    for axis, (size, window) in enumerate(zip(given, kernel, strict=True)):
        if not isinstance(size, int) or not isinstance(window, int):
            continue
        beyond = (window - 1) * dilations[axis] + 1 - size - pads[axis] - pads[axis + len(given)]
        if beyond >= strides[axis]:  # below a stride, runtimes slide a window once that reaches over the edge
            return f"its window of {list(kernel)} is larger than the image, {list(given)} with padding"
    return None


def _reshaped(node: Placed, facts: Facts, dims: Mapping[str, Dims]) -> tuple[str | None, str]:
    """Hold a Reshape's constant target against how many numbers come in."""
    given, wanted = dims.get(node.input(0)), facts.value(node.input(1))
    if given is None or wanted is None or not all(isinstance(dim, int) for dim in given):
        return None, ""
    sizes = [int(dim) for dim in given if isinstance(dim, int)]
    target = [int(size) for size in wanted.reshape(-1)]
    if not node.attribute("allowzero", 0):
        target = [sizes[i] if size == 0 and i < len(sizes) else size for i, size in enumerate(target)]
    known = math.prod(size for size in target if size != -1)
    count = math.prod(sizes)
    fits = count == known if -1 not in target else bool(known) and count % known == 0
    if fits:
        return None, ""
    free = facts.dims.get(node.input(0), ())
    first = bool(free) and not isinstance(free[0], int) and -1 not in target and bool(math.prod(target[1:]))
    mend = "free-batch" if first and count % math.prod(target[1:]) == 0 else ""
    return f"it reshapes {sizes} to {target}, which holds another count of numbers", mend


def _other_count(node: Placed, dims: Mapping[str, Dims]) -> str | None:
    """Hold the shape that a Reshape gives, where that is known, against how many numbers come in."""
    given, made = dims.get(node.input(0)), dims.get(node.output(0))
    if given is None or made is None or not all(isinstance(dim, int) for dim in (*given, *made)):
        return None
    before, after = ([int(dim) for dim in shape if isinstance(dim, int)] for shape in (given, made))
    if math.prod(before) == math.prod(after):
        return None
    return f"it reshapes {before} to {after}, which holds another count of numbers"


def _with_shapes(proto: onnx.ModelProto, place: _Place) -> onnx.ModelProto:
    """Return a copy whose inputs have these shapes and values, and whose outputs say nothing of theirs."""
    from onnx import helper

    copy = type(proto).FromString(proto.SerializeToString())
    del copy.graph.value_info[:]
    for value in list(copy.graph.input):
        tensor = value.type.tensor_type
        if value.name in place.values:
            numbers = place.values[value.name]
            shape = [len(numbers)] * len(tensor.shape.dim)
            copy.graph.initializer.append(helper.make_tensor(value.name, tensor.elem_type, shape, numbers))
            copy.graph.input.remove(value)
        elif value.name in place.shapes:
            for dim, size in zip(tensor.shape.dim, place.shapes[value.name], strict=False):
                dim.dim_value = size
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    return copy


_BATCH = "write -1 for the batch, and what follows as it is"
_TOGETHER = (
    "write profiles in the recipe whose shapes and values go together, min with min, opt with opt, max with max: "
    "several of them where one range does not hold what comes"
)
_SHAPES = (
    'correct "min_dims", "opt_dims" and "max_dims" in config.txt (or profiles in the recipe); where no shape works, a '
    "size is written into the graph: export with that dimension dynamic"
)


def _finding(node: str, operator: str, reason: str, mend: str, *, together: bool) -> Finding:
    return Finding(
        code="shapes",
        node=node,
        operator=operator,
        reason=reason,
        fix=_BATCH if mend else _TOGETHER if together else _SHAPES,
        mend=mend,
        found_by=(CONVKIT,),
        beyond_parser=True,
    )
