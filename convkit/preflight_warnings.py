"""What a target warns of while a model is judged, as findings."""

from __future__ import annotations

import re

from convkit.pipeline.events import Event, Observer, Warned
from convkit.targets.finding import Finding, Weight

ASSUMED = "assumed-profile"
_CHATTER = (
    *("Make sure input", "Make sure output", "with UINT8 zero_point", "zero_point with type int32", "at least opset"),
    *("already exists", "Unused Input", "is unused or used only at compile-time"),
)
"""What a parser warns of, and the rules say better, or nothing is to be done about."""


class Telling:
    """Passes on what happens; warnings about the target are kept, to become findings."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._warnings: dict[str, Warned] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, Warned) and event.code.startswith("tensorrt."):
            self._warnings[event.message] = event
        else:
            self._observer(event)

    def findings(self) -> tuple[Finding, ...]:
        """Return what the target has warned of."""
        heard = [event for event in self._warnings.values() if not any(mark in event.message for mark in _CHATTER)]
        return tuple(_assumed(event) if event.code.endswith(ASSUMED) else _said(event) for event in heard)


def _assumed(event: Warned) -> Finding:
    what, _, how = event.message.partition(" To change that, ")
    name, _, reason = what.partition("': ")
    return Finding(
        severity=Weight.WARNING,
        code=ASSUMED,
        node=name.removeprefix("'"),
        operator="input",
        reason=reason,
        fix=f"{how}; --fix writes a recipe with them",
        found_by=("convkit",),
        beyond_parser=True,
    )


def _said(event: Warned) -> Finding:
    return Finding(
        severity=Weight.WARNING,
        code=event.code.removeprefix("tensorrt."),
        node="the model",
        operator="graph",
        reason=re.sub(r"\b\w+\.cpp:\d+: ", "", event.message),
        fix="compare the engine's numbers with the model's: convert does, on what --samples holds",
        beyond_parser=True,
    )
