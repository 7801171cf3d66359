"""What a PyTorch and a TensorFlow model have in common as sources: how their frameworks' steps are asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from convkit.graph.model import Tensors
from convkit.graph.operator_times import OperatorTimes
from convkit.graph.present import wanted_interface
from convkit.pipeline.artifact import Artifact
from convkit.pipeline.runner import Contender, Runner
from convkit.pipeline.step import Step
from convkit.pipeline.stopwatch import Timing
from convkit.sources.answers import Questions
from convkit.sources.exported import Exported
from convkit.spec.metadata import Metadata
from convkit.spec.options import ExportOptions
from convkit.spec.tensor import Interface


class Steps(NamedTuple):
    """A framework's steps. Each takes the model and `options`, all but `read` also `metadata`, and what is named here.

    They are steps of the framework's worker.
    """

    export: Step[..., Exported]
    """samples."""
    time: Step[..., Timing]
    """inputs, seconds."""
    profile: Step[..., OperatorTimes]
    """inputs, seconds."""
    answer: Step[..., Tensors]
    """questions."""
    read: Step[..., Interface] | None
    """None: the model cannot say what its inputs are, and never comes without config.txt."""


class FrameworkModel(ABC):
    """A model that its framework's steps export, time, profile and ask."""

    environment: str

    def __init__(self, kind: str, files: Artifact, metadata: Metadata | None, options: ExportOptions) -> None:
        self.kind = kind
        self.files = files
        self.metadata = metadata
        self.options = options

    @abstractmethod
    def _steps(self) -> Steps:
        """Return the framework's steps."""

    @abstractmethod
    def _model(self, run: Runner | None) -> dict[str, Any]:
        """Return the arguments by which the steps are given the model; what has to be made for that, `run` makes.

        Without `run`, as it was made before.
        """

    def _as_served(self) -> Metadata | None:
        """Return config.txt as callers of the exported model see it."""
        return self.metadata

    def export(self, run: Runner, *, samples: Artifact | None, max_opset: int) -> Exported:
        """See `Source.export`; torch's exporter and tf2onnx write an opset that every server reads."""
        del max_opset
        return run(self._steps().export, **self._model(run), **self._said(), samples=samples)

    def contender(self, exported: Exported, *, seconds: float) -> Contender[Timing]:
        """See `Source.contender`."""
        given = {**self._model(None), **self._said()}
        return Contender(self._steps().time, **given, inputs=exported.samples, seconds=seconds)

    def profiled(self, run: Runner, exported: Exported, *, seconds: float) -> OperatorTimes:
        """See `Profiling.profiled`."""
        given = {**self._model(run), **self._said()}
        return run(self._steps().profile, **given, inputs=exported.samples, seconds=seconds)

    def answers(self, run: Runner, questions: Questions) -> Tensors:
        """See `Answering.answers`."""
        return run(self._steps().answer, **self._model(run), **self._said(), questions=questions)

    def describe(self, run: Runner) -> Interface:
        """See `Describing.describe`."""
        metadata = self._as_served()
        if metadata is not None:
            return wanted_interface(metadata, self.options.tensor_names, self.options.max_batch_size)
        read = self._steps().read
        assert read is not None
        return run(read, **self._model(run), options=self.options)

    def _said(self) -> dict[str, Any]:
        return {"metadata": self.metadata, "options": self.options}
