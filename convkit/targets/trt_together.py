"""Profiles of models whose inputs hold shapes: the sizes of other inputs and these values have to go together.

Of ``Reshape(x, s)`` no range of x's sizes fits whatever s holds, and TensorRT looks at a profile's smallest, usual and
largest sizes and values as three sets of inputs: those that do not fit it calls "not self-consistent".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from convkit.graph.facts import read_facts
from convkit.graph.model import Model, Tensors
from convkit.graph.shape_inputs import shape_inputs
from convkit.pipeline import events
from convkit.pipeline.runner import Runner
from convkit.pipeline.step import step
from convkit.targets.trt_options import ShapeRange, TensorRTOptions
from convkit.targets.trt_profiles import Profile, profiles_for
from convkit.targets.trt_rules_shapes import shape_findings
from convkit.targets.trt_values import ValueRange

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_MOST_PROFILES = 8
"""Profiles of one sample each: TensorRT chooses kernels for every one, and the build takes that many times as long."""

Numbers = tuple[int, ...]


class _Sample(NamedTuple):
    """What a profile says of one set of inputs, by the inputs' names."""

    shapes: tuple[tuple[str, Numbers], ...]
    values: tuple[tuple[str, Numbers], ...]


def choose_profiles(
    run: Runner, model: Model, options: TensorRTOptions, *, seen: Tensors | None
) -> tuple[Profile, ...]:
    """Return the profiles to build with: see `profiles_for`, and `together` for inputs that hold shapes.

    Args:
        run: runs the steps.
        model: the graph.
        options: the recipe's table; its profiles are taken as they are.
        seen: the user's own inputs.

    Raises:
        UsageError: a profile that cannot work.
    """
    holding_shapes = run(shape_inputs, model)
    profiles = run(profiles_for, model.interface, options, seen=seen, shape_inputs=holding_shapes)
    if not holding_shapes or options.profiles or seen is None:
        return profiles
    return run(together, model, profiles, seen=seen)


@step(version=1, stage="compile", title="Hold shapes against sizes", needs="onnx")
def together(model: Model, profiles: tuple[Profile, ...], *, seen: Tensors) -> tuple[Profile, ...]:
    """Return the profiles where their sizes and values fit the graph, else ones that the samples give.

    These are one profile from the smallest to the largest of the samples, else one for each sample. Where neither fits,
    they come back as they were: the preflight names the node.
    """
    facts = read_facts(model.path)

    def fits(candidates: Sequence[Profile]) -> bool:
        return next(shape_findings(facts, candidates), None) is None

    if fits(profiles):
        return profiles
    samples = list(dict.fromkeys(_sample(profiles[0], case) for case in seen))
    several = tuple(_around([sample]) for sample in samples)
    for candidates in ((_around(samples),), several):
        if len(candidates) <= _MOST_PROFILES and fits(candidates):
            _tell(candidates)
            return candidates
    return profiles


def _sample(like: Profile, case: dict[str, Array]) -> _Sample:
    return _Sample(
        shapes=tuple((name, case[name].shape) for name in like.shapes),
        values=tuple((name, tuple(int(number) for number in case[name].reshape(-1))) for name in like.values),
    )


def _around(samples: Sequence[_Sample]) -> Profile:
    """Return the profile from the smallest to the largest of the samples, tuned for the first."""
    shapes = {name: _ends([dict(each.shapes)[name] for each in samples]) for name, _ in samples[0].shapes}
    values = {name: _ends([dict(each.values)[name] for each in samples]) for name, _ in samples[0].values}
    return Profile(
        shapes={name: ShapeRange(min=low, opt=usual, max=high) for name, (low, usual, high) in shapes.items()},
        values={name: ValueRange(min=low, opt=usual, max=high) for name, (low, usual, high) in values.items()},
    )


def _ends(rows: Sequence[Numbers]) -> tuple[Numbers, Numbers, Numbers]:
    columns = list(zip(*rows, strict=True))
    return tuple(map(min, columns)), rows[0], tuple(map(max, columns))


def _tell(profiles: Sequence[Profile]) -> None:
    names = ", ".join(f"'{name}'" for name in profiles[0].values)
    takes = (
        "what lies between the smallest and the largest of the samples"
        if len(profiles) == 1
        else f"the sizes and values of the {len(profiles)} samples and no others"
    )
    events.warn(
        "tensorrt.sample-profiles",
        f"the values of {names} have to go with the sizes of the other inputs, and not every size that was assumed "
        f"does: instead the engine takes {takes}. For more, write profiles in the recipe",
    )
