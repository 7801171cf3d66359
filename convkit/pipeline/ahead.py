"""Steps that begin before the pipeline comes to them, since they take long and nothing they need is still to come.

A step that has begun is at work in its own worker while the pipeline goes on in others. Nothing is told of it, nothing
it raises is raised, until the pipeline calls it with the same arguments: then it is as if it had begun just there, but
for the time. So order, messages, errors and results of a run are the same with and without.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from convkit.errors import ConvkitError
from convkit.pipeline.allowance import cores
from convkit.pipeline.cache import Cache, Entry, artifacts_in
from convkit.pipeline.events import Event, Observer
from convkit.pipeline.step import Step
from convkit.pipeline.watch import Limits
from convkit.pipeline.worker import Worker

_COPIES = 16
"""Times the size of what they read that two workers may hold between them."""
_BARE = 1 << 30
"""Bytes that two workers hold before they read anything."""


def has_room(read: Any, limits: Limits) -> bool:
    """Tell whether a step that reads such data may work beside another: there are a processor and memory for both.

    Args:
        read: JSON builtins, its arguments for instance.
        limits: those of the run.
    """
    size = sum(artifact["bytes"] for artifact in artifacts_in(read))
    return cores() > 1 and _BARE + _COPIES * size <= limits.memory_bytes


class _Begun:
    """A step that a worker is at, or what came of it."""

    def __init__(self, step: Step[..., Any], arguments: dict[str, Any], worker: Worker) -> None:
        self.step = step
        self.arguments = arguments
        self.worker = worker
        self.events: list[Event] = []
        self.entry: Entry | None = None
        self.error: ConvkitError | None = None

    @property
    def is_settled(self) -> bool:
        return self.entry is not None or self.error is not None


class Ahead:
    """The steps of one run that have begun ahead, by their keys.

    Args:
        cache: takes their results.
        begin: has a worker begin a step.
        end: waits for what it has begun; events go to the observer.
        observe: is told of the events once the pipeline has come to the step.
    """

    def __init__(
        self,
        cache: Cache,
        *,
        begin: Callable[[Step[..., Any], dict[str, Any]], Worker],
        end: Callable[[Step[..., Any], dict[str, Any], Worker, Observer], Entry],
        observe: Observer,
    ) -> None:
        self._cache = cache
        self._begin = begin
        self._end = end
        self._observe = observe
        self._begun: dict[str, _Begun] = {}
        self.meanwhile: Callable[[], object] | None = None
        """What this process does once while it waits for a step to which the pipeline has come."""

    def begin(self, key: str, step: Step[..., Any], arguments: dict[str, Any]) -> None:
        """Let a step begin whose result is not remembered."""
        if key not in self._begun and self._cache.load(key) is None:
            self._begun[key] = _Begun(step, arguments, self._begin(step, arguments))

    def result(self, key: str, step: Step[..., Any], arguments: dict[str, Any]) -> Entry | None:
        """Return what comes of a step, or is remembered of it; None: it fails."""
        self.begin(key, step, arguments)
        begun = self._begun.get(key)
        if begun is None:
            return self._cache.load(key)
        self._settle(key, begun, begun.events.append)
        return begun.entry

    def claim(self, key: str) -> Entry | None:
        """Return what comes of a step to which the pipeline has come, its events told; None: it has not begun.

        Raises:
            ConvkitError: it fails.
        """
        begun = self._begun.pop(key, None)
        if begun is None:
            return None
        for event in begun.events:
            self._observe(event)
        if not begun.is_settled and self.meanwhile is not None:
            self.meanwhile()
            self.meanwhile = None
        self._settle(key, begun, self._observe)
        if begun.error is not None:
            raise begun.error
        return begun.entry

    def settle(self, environment: str | None) -> None:
        """Wait for what a worker of this environment is at; None: for everything."""
        for key, begun in self._begun.items():
            if environment in (None, begun.step.needs):
                self._settle(key, begun, begun.events.append)

    def forget(self, environment: str) -> None:
        """Let go what has begun in a worker that is to be ended."""
        self._begun = {key: begun for key, begun in self._begun.items() if begun.step.needs != environment}

    def _settle(self, key: str, begun: _Begun, observe: Observer) -> None:
        if begun.is_settled:
            return
        try:
            begun.entry = self._cache.store(key, self._end(begun.step, begun.arguments, begun.worker, observe))
        except ConvkitError as error:
            begun.error = error
