"""Optimization profiles as ONNX Runtime's providers for TensorRT and TensorRT-RTX read them: three texts.

Of an input whose values are a shape they hold these values: so read them the plugin for TensorRT-RTX
(NVIDIA/TensorRT-RTX-EP-ABI), and the provider for TensorRT since ONNX Runtime 1.17 (microsoft/onnxruntime#18253).
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from convkit.targets.trt_options import ShapeRange
from convkit.targets.trt_profiles import Profile
from convkit.targets.trt_values import ValueRange

R = TypeVar("R", ShapeRange, ValueRange)

_SEPARATORS = (":", ",")
"""What a text is split at, `input:1x3,other:1`: a name with one of them cannot stand in it."""


def unreadable_name(profiles: tuple[Profile, ...]) -> str | None:
    """Return an input whose name would be cut in pieces, if there is one."""
    names = (name for profile in profiles for name in (*profile.shapes, *profile.values))
    return next((name for name in names if any(separator in name for separator in _SEPARATORS)), None)


def tuned_for_largest(profiles: tuple[Profile, ...]) -> tuple[Profile, ...]:
    """Return profiles whose usual sizes and values are the largest, where they hold values; else as they are.

    Built with TensorRT 10.11 and later, the provider for TensorRT takes usual values for the largest and the other way
    round, up to ONNX Runtime 1.28 (microsoft/onnxruntime#32415): a profile in which they differ cannot be built.
    """

    def largest(ranges: dict[str, R]) -> dict[str, R]:
        return {name: msgspec.structs.replace(each, opt=each.max) for name, each in ranges.items()}

    return tuple(
        Profile(shapes=largest(profile.shapes), values=largest(profile.values)) if profile.values else profile
        for profile in profiles
    )


def provider_options(profiles: tuple[Profile, ...], *, prefix: str) -> dict[str, str]:
    """Return the options that say which shapes to build for; none where there are no profiles.

    Several profiles stand one after the other: an input's second entry is its second profile's.

    Args:
        profiles: of which every name can be read.
        prefix: ``trt`` of the provider for TensorRT, ``nv`` of that for TensorRT-RTX.
    """
    return {
        f"{prefix}_profile_{end}_shapes": ",".join(
            f"{name}:{'x'.join(map(str, getattr(shapes, end)))}"
            for profile in profiles
            for name, shapes in (*profile.shapes.items(), *profile.values.items())
        )
        for end in ("min", "opt", "max")
        if profiles
    }
