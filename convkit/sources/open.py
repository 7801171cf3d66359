"""From what was found on the disk to something that can be exported and timed: one class for each framework."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

from convkit.errors import InputError, MissingError, UsageError
from convkit.graph.model import EXTERNAL_ABOVE, Model, Tensors
from convkit.graph.present import wanted_interface
from convkit.pipeline.artifact import Artifact, gather
from convkit.pipeline.runner import Contender, Runner
from convkit.pipeline.stopwatch import Timing
from convkit.sources.answers import Questions
from convkit.sources.exported import Exported
from convkit.sources.find import Found, Framework
from convkit.sources.saved_model import refuse_outside
from convkit.sources.source import Source, open_other
from convkit.sources.tensorflow_open import open_tensorflow
from convkit.sources.torch_file import open_torch
from convkit.sources.trust import require_trust
from convkit.spec.metadata import Metadata
from convkit.spec.options import ExportOptions, TensorLayout
from convkit.spec.paths import is_plain
from convkit.spec.tensor import Interface
from convkit.spec.wording import printable

_LARGEST_ONNX = (1 << 31) - 1
"""Bytes of a protobuf message."""
EXTRAS = {
    "torch": ("torch", "onnx", "onnxscript"),
    "tensorflow": ("tensorflow", "tf2onnx", "onnx"),
    "onnx": ("onnx", "onnxruntime"),
}
"""The modules that each extra of the package brings."""


def open_source(
    found: Found, metadata: Metadata | None, options: ExportOptions, trust: Sequence[str], command: str
) -> Source:
    """Look into the model, without running anything, and make sure that it may and can be exported here.

    Raises:
        InputError: it is of a kind that convkit does not take, or lacks its metadata.
        UsageError: an option is not for its framework.
        TrustError: exporting would run code that nobody trusts.
        MissingError: the framework is not installed.
    """
    if options.layout is not TensorLayout.KEEP and found.framework is not Framework.TENSORFLOW:
        raise UsageError(
            f"--layout {options.layout.value}: {found.path} is {found.written_by}, and is served as it is",
            hint="leave it out: it is for TensorFlow, whose images have their channels last",
            code="usage.layout",
        )
    match found.framework:
        case Framework.PYTORCH:
            source: Source = open_torch(found, metadata, options, trust, command)
        case Framework.TENSORFLOW:
            source = open_tensorflow(found, metadata, options, trust, command)
        case Framework.ONNX:
            source = OnnxFile(found, metadata, options)
        case _:
            other = open_other(found, metadata, options)
            require_trust(other.untrusted, trust, command)
            return other
    require_extra(source.environment)
    return source


def require_extra(extra: str) -> None:
    """Make sure that what an extra brings is installed.

    Raises:
        MissingError: it is not; the hint is the command.
    """
    missing = [module for module in EXTRAS[extra] if importlib.util.find_spec(module) is None]
    if missing:
        raise MissingError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed here",
            hint=f'pip install "convkit[{extra}]"',
            code="missing.extra",
        )


class OnnxFile:
    """An ONNX file with its external data."""

    environment = "onnx"

    def __init__(self, found: Found, metadata: Metadata | None, options: ExportOptions) -> None:
        if found.path.stat().st_size > _LARGEST_ONNX:
            raise InputError(
                f"{found.path} is larger than 2 GiB, which no ONNX file can be",
                hint="save it again with its weights beside it: onnx.save(..., save_as_external_data=True)",
                code="source.unreadable",
            )
        self.found = found
        self.files = self._read = gather(Path(found.folder), [found.file])
        """What the steps read: once exported, of a large file the one whose weights lie beside it."""
        self.metadata = metadata
        self.options = options
        self.kind = "ONNX"
        self._then: Callable[[Model], None] | None = None

    def hand_graph(self, then: Callable[[Model], None]) -> None:
        """See `convkit.sources.source.GraphFirst`."""
        self._then = then

    def export(self, run: Runner, *, samples: Artifact | None, max_opset: int) -> Exported:
        """See `Source.export`."""
        from convkit.sources.onnx import find_external_data, import_onnx, take_weights_out

        folder = Path(self.found.folder)
        external = run(find_external_data, gather(folder, [self.found.file])).names
        for name in external:
            refuse_outside(folder, folder / name)
        missing = [name for name in external if not is_plain(name) or not (folder / name).is_file()]
        if missing:
            raise InputError(
                f"{self.found.path} keeps its weights in {printable(', '.join(missing))}, which is not there",
                hint="bring the file along: it belongs beside the .onnx file",
                code="source.external-data",
            )
        self.files = self._read = gather(folder, [self.found.file, *external])
        if self.found.path.stat().st_size > EXTERNAL_ABOVE:
            self._read = run(take_weights_out, self.files, file=self.found.file).files
        if self._then is not None:
            run.before(import_onnx, lambda: self._read_graph(run, max_opset))
        return run(
            import_onnx,
            self._read,
            file=self.found.file,
            metadata=self.metadata,
            options=self.options,
            samples=samples,
            max_opset=max_opset,
        )

    def _read_graph(self, run: Runner, max_opset: int) -> None:
        from convkit.sources.onnx import read_graph

        options, metadata = self.options, self.metadata
        graph = run.ahead(
            read_graph, self._read, file=self.found.file, metadata=metadata, options=options, max_opset=max_opset
        )
        if graph is not None and self._then is not None:
            self._then(graph)

    def contender(self, exported: Exported, *, seconds: float) -> Contender[Timing]:
        """See `Source.contender`."""
        from convkit.sources.onnx import time_onnx_source

        return Contender(
            time_onnx_source,
            self._read,
            file=self.found.file,
            inputs=exported.samples,
            renamed=exported.renamed,
            seconds=seconds,
        )

    def answers(self, run: Runner, questions: Questions) -> Tensors:
        """See `Answering.answers`."""
        from convkit.sources.onnx import answer_onnx

        return run(
            answer_onnx,
            self._read,
            file=self.found.file,
            metadata=self.metadata,
            options=self.options,
            questions=questions,
        )

    def describe(self, run: Runner) -> Interface:
        """See `Describing.describe`."""
        from convkit.sources.onnx import read_face

        if self.metadata is not None:
            return wanted_interface(self.metadata, self.options.tensor_names, self.options.max_batch_size)
        return run(
            read_face, gather(Path(self.found.folder), [self.found.file]), file=self.found.file, options=self.options
        )
