"""Worker environments that others add."""

from __future__ import annotations

from collections.abc import Mapping

from convkit.pipeline.step import ENVIRONMENTS
from convkit.pipeline.worker import SETTINGS, WARM_UPS


def declare_environment(
    name: str,
    *,
    distributions: tuple[str, ...],
    warm_up: tuple[str, ...] = (),
    settings: Mapping[str, str] | None = None,
) -> None:
    """Let steps say `needs=name`: they run in a worker process of that name, with its own libraries loaded.

    Call it at the top of the module that declares the steps. Declared twice, the later counts.

    Args:
        name: not one of convkit's own.
        distributions: what the steps depend on: their versions enter the keys of the results.
        warm_up: modules that the worker imports as soon as it stands.
        settings: environment variables that a library reads as it is imported.

    Raises:
        ValueError: convkit has an environment of that name itself.
    """
    if name in _OWN:
        raise ValueError(f"the environment '{name}' is convkit's own")
    ENVIRONMENTS[name] = distributions
    WARM_UPS[name] = warm_up
    SETTINGS[name] = dict(settings or {})


_OWN = frozenset(ENVIRONMENTS)
