"""Optimization profiles: the ranges of shapes that an engine is built for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from convkit.errors import UsageError
from convkit.graph.model import Tensors
from convkit.pipeline import events
from convkit.pipeline.step import step
from convkit.spec.tensor import Interface, TensorSpec
from convkit.targets.trt_options import ShapeRange, TensorRTOptions
from convkit.targets.trt_values import ValueRange, values_for

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_HOW = 'set "min_dims", "opt_dims" and "max_dims" of the tensor in config.txt, or profiles in the recipe'


class _Range(NamedTuple):
    low: int
    usual: int
    high: int


FREE_BATCH = _Range(1, 8, 32)
FREE_DIM = _Range(1, 64, 512)
FREE_IMAGE_DIM = _Range(32, 64, 512)
"""Ranges of dynamic dimensions of which nothing is said: the batch where max_batch_size is 0; any other; and those of
inputs of four dimensions and more, where a size below the network's stride would leave nothing to compute."""
_IMAGE_RANK = 4


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """One optimization profile: every dynamic input's shapes, under its wire name. Fixed inputs need none."""

    shapes: dict[str, ShapeRange]
    values: dict[str, ValueRange] = {}
    """Of inputs whose values are shapes, these values."""


@step(version=2, stage="compile", title="Choose the shapes to build for", needs="onnx")
def profiles_for(
    interface: Interface,
    options: TensorRTOptions,
    *,
    seen: Tensors | None = None,
    shape_inputs: tuple[str, ...] = (),
) -> tuple[Profile, ...]:
    """Return the profiles to build with: those of the recipe, else one derived from the interface.

    Derived: what min_dims, opt_dims and max_dims say; else the batch from 1 to max_batch_size, tuned for the largest;
    else a stated assumption (`FREE_BATCH`, `FREE_DIM`, `FREE_IMAGE_DIM`) and a warning that tells how to set it.
    An assumption is widened to the sizes in `seen`, the user's own inputs, and tuned for the commonest of them; the
    batch says nothing, since convkit chooses how many rows it takes. Dimensions of one name get one range. Empty where
    every input's shape is fixed.

    Of `shape_inputs`, whose values are shapes, a recipe's profile gives the values, as `trtexec --minShapes` does; else
    they are those in `seen`, and the profile is tuned for the first of these, whose shapes and values go together.

    Raises:
        UsageError: nothing says which values such an input has; a profile contradicts the interface or itself, or does
            not reach max_batch_size.
    """
    given = tuple({k: v for k, v in table.items() if k not in shape_inputs} for table in options.profiles)
    found = _by_shape(
        _without(interface, shape_inputs), tuple(table for table in given if table or not shape_inputs), seen
    )
    if not shape_inputs:
        return found
    number_of = max(len(found), len(options.profiles), 1)
    shapes = found if len(found) == number_of else (found or (Profile(shapes={}),)) * number_of
    if not options.profiles and seen is not None:
        shapes = tuple(_tuned_for(profile, next(iter(seen))) for profile in shapes)
    tables = options.profiles or ({},) * number_of
    return tuple(
        msgspec.structs.replace(profile, values=values_for(interface, shape_inputs, table, seen))
        for profile, table in zip(shapes, tables, strict=True)
    )


def _tuned_for(profile: Profile, case: dict[str, Array]) -> Profile:
    """Return a profile whose usual shapes are a case's."""
    shapes = dict(profile.shapes)
    for name, found in profile.shapes.items():
        if name in case:
            usual = case[name].shape
            low, high = tuple(map(min, found.min, usual)), tuple(map(max, found.max, usual))
            shapes[name] = ShapeRange(min=low, opt=usual, max=high)
    return msgspec.structs.replace(profile, shapes=shapes)


def _without(interface: Interface, names: tuple[str, ...]) -> Interface:
    inputs = tuple(spec for spec in interface.inputs if spec.name not in names)
    return msgspec.structs.replace(interface, inputs=inputs)


def _by_shape(
    interface: Interface, given: tuple[dict[str, ShapeRange], ...], seen: Tensors | None
) -> tuple[Profile, ...]:
    """Return the profiles of the inputs whose shapes count."""
    if given:
        asked = tuple(Profile(shapes=table) for table in given)
        for number, profile in enumerate(asked):
            _check(profile, interface, f"profiles[{number}]")
        _check_reach(asked, interface)
        warn_of_outsiders(asked, seen)
        return asked
    dynamic = [spec for spec in interface.inputs if spec.is_dynamic]
    if not dynamic:
        return ()
    ranges = _named_ranges(interface, sizes_in(seen, interface))
    derived = Profile(shapes={spec.name: _shapes(spec, ranges) for spec in dynamic})
    _check(derived, interface, "config.txt")
    _check_reach((derived,), interface)
    warn_of_outsiders((derived,), seen)
    return (derived,)


def sizes_in(seen: Tensors | None, interface: Interface) -> dict[str, Counter[int]]:
    """Count the sizes that each dimension but the batch has in the user's own inputs."""
    sizes: dict[str, Counter[int]] = {}
    for case in seen if seen is not None else ():
        for spec, axis, name in _dynamic_dims(interface):
            if axis > 0 and spec.name in case:
                sizes.setdefault(name, Counter())[case[spec.name].shape[axis]] += 1
    return sizes


def _widened(default: _Range, sizes: Counter[int]) -> _Range:
    if not sizes:
        return default
    commonest = max(sizes, key=lambda size: (sizes[size], size))
    return _Range(min(default.low, *sizes), commonest, max(default.high, *sizes))


def warn_of_outsiders(profiles: tuple[Profile, ...], seen: Tensors | None) -> None:
    """Say when an input of the user's fits no profile: the engine will refuse it."""
    for number, case in enumerate(seen if seen is not None else ()):
        if not any(_takes(profile, {name: array.shape for name, array in case.items()}) for profile in profiles):
            shapes = ", ".join(f"'{name}' {list(array.shape)}" for name, array in case.items())
            events.warn(
                "tensorrt.samples-outside",
                f"sample {number} fits no profile ({shapes}): the engine will refuse such inputs; {_HOW}",
            )


def _takes(profile: Profile, shapes: dict[str, tuple[int, ...]]) -> bool:
    return all(
        low <= size <= high
        for name, shape in shapes.items()
        if (allowed := profile.shapes.get(name)) is not None
        for low, size, high in zip(allowed.min, shape, allowed.max, strict=True)
    )


def _shapes(spec: TensorSpec, ranges: dict[str, _Range]) -> ShapeRange:
    filled = [ranges[dim] if isinstance(dim, str) else _Range(dim, dim, dim) for dim in spec.dims]
    low, usual, high = zip(*filled, strict=True)
    return ShapeRange(min=low, opt=usual, max=high)


def _named_ranges(interface: Interface, seen: dict[str, Counter[int]]) -> dict[str, _Range]:
    """Choose a range for every dynamic dimension of the inputs: what any input says of it, the rest by default."""
    bounds = _said_bounds(interface)
    ranges: dict[str, _Range] = {}
    for spec, axis, name in _dynamic_dims(interface):
        if name not in ranges:
            default = _widened(_default(spec, axis, interface.max_batch_size), seen.get(name, Counter()))
            ranges[name] = _completed(bounds.get(name, {}), default)
            if "max_dims" not in bounds.get(name, {}) and not (axis == 0 and interface.max_batch_size):
                _warn_of_assumption(spec, axis, ranges[name])
    return ranges


def _dynamic_dims(interface: Interface) -> Iterator[tuple[TensorSpec, int, str]]:
    for spec in interface.inputs:
        for axis, dim in enumerate(spec.dims):
            if isinstance(dim, str):
                yield spec, axis, dim


def _said_bounds(interface: Interface) -> dict[str, dict[str, int]]:
    """Gather min_dims, opt_dims and max_dims by the dimension's name."""
    bounds: dict[str, dict[str, int]] = {}
    for spec, axis, name in _dynamic_dims(interface):
        for key, dims in (("min_dims", spec.min_dims), ("opt_dims", spec.opt_dims), ("max_dims", spec.max_dims)):
            if dims is None:
                continue
            said = bounds.setdefault(name, {}).setdefault(key, dims[axis])
            if said != dims[axis]:
                raise _refused(
                    "config.txt",
                    f"'{spec.name}': {key}[{axis}] is {dims[axis]}, but another input has {said} for the same "
                    f"dimension, '{name}'",
                    f"give both inputs the same {key} there",
                )
    return bounds


def _default(spec: TensorSpec, axis: int, max_batch_size: int) -> _Range:
    if axis == 0:
        return _Range(1, max_batch_size, max_batch_size) if max_batch_size else FREE_BATCH
    return FREE_IMAGE_DIM if len(spec.dims) >= _IMAGE_RANK else FREE_DIM


def _completed(said: dict[str, int], default: _Range) -> _Range:
    low = said.get("min_dims", min(default.low, *said.values()) if said else default.low)
    high = said.get("max_dims", max(default.high, *said.values()) if said else default.high)
    return _Range(low, said.get("opt_dims", min(max(default.usual, low), high)), high)


def _warn_of_assumption(spec: TensorSpec, axis: int, chosen: _Range) -> None:
    events.warn(
        "tensorrt.assumed-profile",
        f"'{spec.name}': nothing says how large dimension {axis} ('{spec.dims[axis]}') gets; the engine takes "
        f"{chosen.low} to {chosen.high} and is tuned for {chosen.usual}. To change that, {_HOW}",
    )


def _shown(found: _Range) -> str:
    return f"{found.low} to {found.high} (usually {found.usual})"


def _check(profile: Profile, interface: Interface, where: str) -> None:
    specs = {spec.name: spec for spec in interface.inputs}
    for name in profile.shapes:
        if name not in specs:
            raise _refused(where, f"there is no input '{name}'", f"the inputs are: {', '.join(specs)}")
    sizes: dict[str, _Range] = {}
    for spec in interface.inputs:
        shapes = profile.shapes.get(spec.name)
        if shapes is not None:
            _check_input(spec, shapes, sizes, where)
        elif spec.is_dynamic:
            raise _refused(where, f"'{spec.name}' is dynamic ({spec}) and has no shapes", "give its min, opt and max")


def _check_input(spec: TensorSpec, shapes: ShapeRange, sizes: dict[str, _Range], where: str) -> None:
    if {len(shapes.min), len(shapes.opt), len(shapes.max)} != {len(spec.dims)}:
        raise _refused(where, f"a shape of {spec} has {len(spec.dims)} dimensions, batch included", _example(spec))
    for axis, dim in enumerate(spec.dims):
        found = _Range(shapes.min[axis], shapes.opt[axis], shapes.max[axis])
        place = f"'{spec.name}', dimension {axis}"
        if not found.low <= found.usual <= found.high:
            raise _refused(where, f"{place}: min {found.low}, opt {found.usual}, max {found.high}", "min ≤ opt ≤ max")
        if isinstance(dim, int) and found != (dim, dim, dim):
            raise _refused(where, f"{place} is fixed at {dim}, not {_shown(found)}", _example(spec))
        if isinstance(dim, str) and sizes.setdefault(dim, found) != found:
            raise _refused(
                where,
                f"{place} ('{dim}') is {_shown(found)}, elsewhere in this profile {_shown(sizes[dim])}",
                "a dimension of one name is one size: give it the same range everywhere",
            )


def _check_reach(profiles: tuple[Profile, ...], interface: Interface) -> None:
    """See that a served batch, from 1 to max_batch_size, fits into some profile."""
    wanted = interface.max_batch_size
    batched = [spec.name for spec in interface.inputs if spec.dims and isinstance(spec.dims[0], str)]
    if not wanted or not batched:
        return
    batches = [(profile.shapes[batched[0]].min[0], profile.shapes[batched[0]].max[0]) for profile in profiles]
    largest = max(high for _, high in batches)
    if largest < wanted:
        raise UsageError(
            f"the profiles reach a batch of {largest}, the server is to send up to {wanted} (max_batch_size)",
            hint=f"raise max_dims or the profile's max to {wanted}, or lower batch_size (--max-batch-size {largest})",
            code="tensorrt.profile",
        )
    smallest = min(low for low, _ in batches)
    if smallest > 1:
        events.warn(
            "tensorrt.profile-minimum",
            f"the engine takes batches of {smallest} and more: a single request of batch 1 will be refused",
        )


def _example(spec: TensorSpec) -> str:
    shape = ", ".join("1" if isinstance(dim, str) else str(dim) for dim in spec.dims)
    return f"the smallest could be [{shape}]"


def _refused(where: str, problem: str, hint: str) -> UsageError:
    return UsageError(f"{where}: {problem}", hint=hint, code="tensorrt.profile")
