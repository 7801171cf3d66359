"""Optimization profiles as ONNX Runtime's providers for TensorRT and TensorRT-RTX read them: three texts."""

from __future__ import annotations

from convkit.targets.trt_profiles import Profile

_SEPARATORS = (":", ",")
"""What a text is split at, `input:1x3,other:1`: a name with one of them cannot stand in it."""


def unreadable_name(profiles: tuple[Profile, ...]) -> str | None:
    """Return an input whose name would be cut in pieces, if there is one."""
    names = (name for profile in profiles for name in profile.shapes)
    return next((name for name in names if any(separator in name for separator in _SEPARATORS)), None)


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
            for name, shapes in profile.shapes.items()
        )
        for end in ("min", "opt", "max")
        if profiles
    }
