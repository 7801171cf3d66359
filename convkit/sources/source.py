"""The seam between the pipeline and a framework: what every source says of itself, and finding those of others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from convkit.errors import UsageError
from convkit.graph.model import Model, Tensors
from convkit.graph.operator_times import OperatorTimes
from convkit.pipeline.artifact import Artifact
from convkit.pipeline.runner import Contender, Runner
from convkit.pipeline.stopwatch import Timing
from convkit.sources.answers import Questions
from convkit.sources.exported import Exported
from convkit.sources.trust import Untrusted
from convkit.spec.entry_points import entry_points, load
from convkit.spec.metadata import Metadata
from convkit.spec.options import ExportOptions
from convkit.spec.tensor import Interface

if TYPE_CHECKING:
    from convkit.sources.find import Found

GROUP = "convkit.sources"
"""The entry points of the sources that others have written."""


class Source(Protocol):
    """A model that can be exported; every framework's class has this shape."""

    environment: str
    """The worker that exports and times it."""
    files: Artifact
    """What it consists of."""
    kind: str
    """What the report calls it."""

    def export(self, run: Runner, *, samples: Artifact | None, max_opset: int) -> Exported:
        """Turn it into ONNX, with its own answers on the inputs that later models are judged on."""

    def contender(self, exported: Exported, *, seconds: float) -> Contender[Timing] | None:
        """Return the call that times it in its own framework; None where it cannot be timed."""


@runtime_checkable
class Answering(Protocol):
    """A source that can be asked how it answers evaluation data; convkit's own can, others may."""

    def answers(self, run: Runner, questions: Questions) -> Tensors:
        """Run a step, in the worker that exported, that gives its outputs for every batch (`answer_all`)."""


@runtime_checkable
class Profiling(Protocol):
    """A source whose framework tells where its time goes; convkit's PyTorch and TensorFlow do, others may."""

    def profiled(self, run: Runner, exported: Exported, *, seconds: float) -> OperatorTimes:
        """Run an observation, in the worker that exported, that watches its operators for about so many seconds."""


@runtime_checkable
class Describing(Protocol):
    """A source that says what its inputs are before it is exported; convkit's own do, others may."""

    def describe(self, run: Runner) -> Interface:
        """Return its inputs, for which images and other raw data are prepared."""


@runtime_checkable
class GraphFirst(Protocol):
    """A source whose graph can stand before its framework has answered; convkit's ONNX is one, others may be."""

    def hand_graph(self, then: Callable[[Model], None]) -> None:
        """Have `export`, where it has to run, call `then` as soon as the graph that it hands on stands."""


class OtherSource(Source, Protocol):
    """A source that someone else has written: a class, made with a model that was found."""

    name: ClassVar[str]
    """That of its entry point."""
    endings: ClassVar[tuple[str, ...]]
    """How the names of its files end, such as ``.linear.json``. Convkit's own endings are never asked for."""
    untrusted: Sequence[Untrusted]
    """Files that run code when they are loaded; convkit asks for trust before it exports."""

    def __init__(self, found: Found, metadata: Metadata | None, options: ExportOptions) -> None:
        """Look into the model, without running anything.

        Raises:
            InputError: it is not what its name says, or lacks its metadata.
        """

    def require(self) -> None:
        """Make sure that what exporting needs is installed here.

        Raises:
            MissingError: it is not.
        """


def other_endings() -> dict[str, str]:
    """Return the endings of other people's sources, the longest first, each with its source's name.

    Raises:
        UsageError: two sources claim the same ending.
        MissingError: one of them cannot be loaded.
    """
    found: dict[str, str] = {}
    for name in sorted(entry_points(GROUP)):
        for ending in load(GROUP, name).endings:
            if ending in found:
                raise UsageError(
                    f"the sources '{found[ending]}' and '{name}' both take files that end in '{ending}'",
                    hint="uninstall one of them",
                    code="plugin.ambiguous",
                )
            found[ending] = name
    return dict(sorted(found.items(), key=lambda item: -len(item[0])))


def ending_of(file: Path) -> str | None:
    """Return the ending by which a file belongs to someone else's source; None where it belongs to none."""
    return next((ending for ending in other_endings() if file.name.endswith(ending)), None)


def open_other(found: Found, metadata: Metadata | None, options: ExportOptions) -> OtherSource:
    """Return someone else's source with the model that was found.

    Raises:
        InputError: it refuses the model.
        MissingError: what it needs is not installed.
    """
    source: OtherSource = load(GROUP, str(found.framework))(found, metadata, options)
    source.require()
    return source
