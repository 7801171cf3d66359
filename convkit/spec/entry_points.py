"""What other distributions add to convkit: their entry points, looked up when a name is not convkit's own."""

from __future__ import annotations

import functools
from typing import Any

from convkit.errors import MissingError, UsageError


@functools.cache
def entry_points(group: str) -> dict[str, tuple[Any, ...]]:
    """Return the entry points of a group by name; several where several distributions claim it."""
    from importlib.metadata import entry_points as installed

    found: dict[str, tuple[Any, ...]] = {}
    for point in installed(group=group):
        found[point.name] = (*found.get(point.name, ()), point)
    return found


def load(group: str, name: str) -> Any:
    """Import what an entry point names.

    Raises:
        UsageError: several distributions claim the name.
        MissingError: it cannot be imported.
    """
    points = {point.value: point for point in entry_points(group)[name]}
    if len(points) > 1:
        raise UsageError(
            f"{' and '.join(sorted(points))} both claim the name '{name}' in {group}",
            hint="uninstall one of them",
            code="plugin.ambiguous",
        )
    (point,) = points.values()
    try:
        return point.load()
    except (ImportError, AttributeError, SyntaxError) as error:
        raise MissingError(
            f"'{name}' of {group} cannot be loaded from {point.value}: {error}",
            hint="install it again with what it needs, or ask who wrote it",
            code="plugin.broken",
        ) from error
