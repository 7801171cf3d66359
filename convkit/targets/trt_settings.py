"""The builder's own settings, by TensorRT's names: looked up in what is known of its releases, and handed to it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from convkit.errors import UsageError
from convkit.spec.wording import did_you_mean
from convkit.targets import trt_types as types
from convkit.targets.trt_api import Api, Flavour
from convkit.targets.trt_options import TensorRTOptions, parse_size

RELEASES = Path(__file__).with_name("trt_releases.json")
"""What the releases that convkit knows have; tests/targets/extract_trt_api.py writes it."""

ENUMERATIONS = {
    "hardware_compatibility": "HardwareCompatibilityLevel",
    "flags": "BuilderFlag",
    "clear_flags": "BuilderFlag",
    "preview_features": "PreviewFeature",
    "tactic_sources": "TacticSource",
    "memory_pools": "MemoryPoolType",
    "tiling_optimization_level": "TilingOptimizationLevel",
    "profiling_verbosity": "ProfilingVerbosity",
    "engine_capability": "EngineCapability",
    "default_device_type": "DeviceType",
    "runtime_platform": "RuntimePlatform",
}
"""Keys whose values are names in an enumeration of the API."""

PROPERTIES = (
    "avg_timing_iterations",
    "max_aux_streams",
    "max_num_tactics",
    "tiling_optimization_level",
    "l2_limit_for_tiling",
    "profiling_verbosity",
    "engine_capability",
    "default_device_type",
    "DLA_core",
    "runtime_platform",
    "plugins_to_serialize",
    "remote_auto_tuning_config",
    "build_route",
)
"""Keys that are properties of IBuilderConfig of the same name."""

_MEMORY = ("l2_limit_for_tiling",)
_TYPED = "networks are strongly typed: precision is in the graph; use --quantize "
_REFUSED: dict[tuple[str, str], str] = {
    ("flags", "FP16"): _TYPED + "fp16",
    ("flags", "BF16"): _TYPED + "bf16",
    ("flags", "INT8"): _TYPED + "int8 --calibration-data FILE",
    ("flags", "FP8"): _TYPED + "fp8 --calibration-data FILE",
    ("flags", "INT4"): _TYPED + "int4",
    ("flags", "FP4"): "networks are strongly typed: precision is in the graph; the nearest is --quantize int4",
    ("flags", "OBEY_PRECISION_CONSTRAINTS"): "networks are strongly typed: every layer's precision is obeyed",
    ("flags", "PREFER_PRECISION_CONSTRAINTS"): "networks are strongly typed: every layer's precision is obeyed",
    ("flags", "REJECT_EMPTY_ALGORITHMS"): "it speaks to an algorithm selector, and convkit has none: leave it out",
    ("flags", "VERSION_COMPATIBLE"): "write version_compatible = true",
    ("memory_pools", "WORKSPACE"): "write workspace",
}
"""Values that are TensorRT's, and not for a recipe: the reason, and what to write."""


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """What of the API a release has that a recipe can set."""

    flavour: Flavour
    version: str
    properties: dict[str, str]
    """Those of IBuilderConfig that can be set, and their types."""
    enumerations: dict[str, tuple[str, ...]]


@functools.cache
def releases() -> tuple[Release, ...]:
    """Return the releases that convkit knows, the oldest of each flavour first."""
    return msgspec.json.decode(RELEASES.read_bytes(), type=tuple[Release, ...])


def checks(options: TensorRTOptions, flavour: Flavour) -> dict[str, Callable[[], None]]:
    """Return, by key, what raises `UsageError` for a value that TensorRT does not have. Nothing is imported.

    Where a release that convkit knows is installed, it decides; else a name is good that any of them has, since the
    engine may be built elsewhere.
    """
    found: dict[str, Callable[[], None]] = {}
    for key, names in _names(options):
        found[key] = functools.partial(_check_key, flavour, key, names)
    sizes = {key: getattr(options, key) for key in _MEMORY} | {
        f"memory_pools.{pool}": size for pool, size in options.memory_pools.items()
    }
    for key, size in sizes.items():
        if size is not None:
            found[key] = functools.partial(_check_size, size)
    for key in PROPERTIES:
        if getattr(options, key) not in (None, ()) and key not in found:
            found[key] = functools.partial(_check_key, flavour, key, ())
    return found


def refuse_unknown(options: TensorRTOptions, flavour: Flavour) -> None:
    """Run every one of `checks`.

    Raises:
        UsageError: names the table and the key.
    """
    for key, check in checks(options, flavour).items():
        try:
            check()
        except UsageError as error:
            raise UsageError(f"[{flavour}] {key}: {error.message}", hint=error.hint, code=error.code) from error


def _check_size(size: str | int) -> None:
    parse_size(size)


def _names(options: TensorRTOptions) -> Iterator[tuple[str, tuple[str, ...]]]:
    for key in ENUMERATIONS:
        value = getattr(options, key)
        names = (value,) if isinstance(value, str) else tuple(value or ())
        if names:
            yield key, names


def _check_key(flavour: Flavour, key: str, names: Sequence[str]) -> None:
    candidates = _candidates(flavour)
    if not candidates:
        return  # a release that convkit does not know is installed: it is asked when it builds
    if key in PROPERTIES and not any(key in release.properties for release in candidates):
        having = _first_with(key)
        raise UsageError(
            f"{flavour.product} {candidates[-1].version} has no such setting",
            hint=f"leave it out: {having}",
            code="tensorrt.option",
        )
    for name in names:
        known = tuple(
            dict.fromkeys(m for release in candidates for m in release.enumerations.get(ENUMERATIONS[key], ()))
        )
        check_name(key, name, known, _unknown_to(flavour, [release.version for release in candidates]))


def _unknown_to(flavour: Flavour, versions: Sequence[str]) -> str:
    if len(versions) > 1:
        return f"neither {flavour.product} {' nor '.join(versions)} knows"
    return f"{flavour.product} {versions[0]} does not know"


def check_name(key: str, name: str, known: Sequence[str], unknown_to: str) -> None:
    """Refuse a name that is not for a recipe, or that the enumeration of a key does not have.

    `unknown_to` says who does not know it, as the beginning of a sentence.

    Raises:
        UsageError: says what to write.
    """
    reason = _REFUSED.get(("flags" if key == "clear_flags" else key, name))
    if reason is not None:
        raise UsageError(f"'{name}' is not for a recipe", hint=reason, code="tensorrt.option")
    if name not in known:
        allowed = [each for each in known if ("flags" if key == "clear_flags" else key, each) not in _REFUSED]
        raise UsageError(
            f"{unknown_to} '{name}' ({ENUMERATIONS[key]})",
            hint=f"{did_you_mean(name, allowed)}It knows: {', '.join(allowed)}",
            code="tensorrt.option",
        )


def not_everywhere(options: TensorRTOptions, flavour: Flavour) -> tuple[str, ...]:
    """Say what some of the releases that may build have, and others have not: a sentence each."""
    candidates = _candidates(flavour)
    said = []
    for key, names in _names(options):
        for name in names:
            having = [each.version for each in candidates if name in each.enumerations.get(ENUMERATIONS[key], ())]
            lacking = [each.version for each in candidates if each.version not in having]
            if having and lacking:
                said.append(
                    f"{key}: {name} is known to {flavour.product} {', '.join(having)}, and not to {', '.join(lacking)}"
                )
    for key in PROPERTIES:
        lacking = [each.version for each in candidates if key not in each.properties]
        if getattr(options, key) not in (None, ()) and lacking:
            said.append(f"{flavour.product} {', '.join(lacking)} has no {key}")
    return tuple(said)


def _first_with(key: str) -> str:
    names = [f"{release.flavour.product} {release.version}" for release in releases() if key in release.properties]
    return f"{' and '.join(names)} {'has' if len(names) == 1 else 'have'} it"


_DISTRIBUTIONS = {Flavour.TENSORRT: ("tensorrt",), Flavour.TENSORRT_RTX: ("tensorrt-rtx-cu13", "tensorrt-rtx")}


def _candidates(flavour: Flavour) -> tuple[Release, ...]:
    """Return the known releases that may build: the one installed, else all; none where another one is installed."""
    known = tuple(release for release in releases() if release.flavour is flavour)
    here = _installed_version(flavour)
    if here is None:
        return known
    return tuple(release for release in known if _release(release.version) == _release(here))


def _installed_version(flavour: Flavour) -> str | None:
    for name in _DISTRIBUTIONS[flavour]:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def _release(text: str) -> tuple[str, ...]:
    return tuple(text.split(".")[:2])


def apply_settings(api: Api, builder: types.Builder, config: types.IBuilderConfig, options: TensorRTOptions) -> None:
    """Hand the recipe's settings to the builder.

    Raises:
        UsageError: this release does not have one, or does not take its value.
    """
    module = api.module
    set_properties(api, config, {key: _value(api, options, key) for key in PROPERTIES})
    if options.max_threads is not None:
        _set(api, builder, "max_threads", options.max_threads)
    for name in options.flags:
        config.set_flag(member(api, "flags", name))
    for name in options.clear_flags:
        config.clear_flag(member(api, "clear_flags", name))
    for name in options.preview_features:
        config.set_preview_feature(member(api, "preview_features", name), True)
    if options.tactic_sources is not None:
        chosen = (member(api, "tactic_sources", name) for name in options.tactic_sources)
        config.set_tactic_sources(sum(1 << int(each) for each in chosen))
    for name, size in options.memory_pools.items():
        config.set_memory_pool_limit(member(api, "memory_pools", name), parse_size(size))
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.version_compatible:
        config.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
    if options.refit:
        config.set_flag(module.BuilderFlag.REFIT)
    if options.hardware_compatibility is not None:
        level = member(api, "hardware_compatibility", options.hardware_compatibility)
        config.hardware_compatibility_level = level
    if options.builder_optimization_level is not None:
        config.builder_optimization_level = options.builder_optimization_level


def _value(api: Api, options: TensorRTOptions, key: str) -> Any:
    value = getattr(options, key)
    if key == "profiling_verbosity" and value is None:
        value = "DETAILED"
    if value is None or value == ():
        return None
    if key in ENUMERATIONS:
        return member(api, key, value)
    if key in _MEMORY:
        return parse_size(value)
    return list(value) if isinstance(value, tuple) else value


def set_properties(api: Api, config: object, values: Mapping[str, Any]) -> None:
    """Set properties that are not None, and see that they took.

    Raises:
        UsageError: names the one that is missing or was refused.
    """
    for key, value in values.items():
        if value is not None:
            _set(api, config, key, value)


def _set(api: Api, owner: object, key: str, value: Any) -> None:
    who = f"{api.flavour.product} {api.version}"
    if not hasattr(type(owner), key):
        message = f"[{api.flavour}] {key}: {who} has no such setting"
        raise UsageError(message, hint="leave it out", code="tensorrt.option")
    setattr(owner, key, value)
    if getattr(owner, key) != value:
        said = " ".join(api.messages_of("ERROR", "INTERNAL_ERROR")) or f"it stays {getattr(owner, key)}"
        raise UsageError(
            f"[{api.flavour}] {key}: {who} does not take {value}: {said}",
            hint="give another value, or leave it out",
            code="tensorrt.option",
        )


def member(api: Api, key: str, name: str) -> types.Enumerator:
    """Return a member of the enumeration that a key's values are from.

    Raises:
        UsageError: this release does not have it.
    """
    enumeration = getattr(api.module, ENUMERATIONS[key], None)
    members: Mapping[str, types.Enumerator] = getattr(enumeration, "__members__", {})
    try:
        check_name(key, name, list(members), _unknown_to(api.flavour, [api.version]))
    except UsageError as error:
        raise UsageError(f"[{api.flavour}] {key}: {error.message}", hint=error.hint, code=error.code) from error
    return members[name]
