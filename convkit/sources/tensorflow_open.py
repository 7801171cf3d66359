"""A TensorFlow model as a source: a SavedModel, what Keras saved, or a frozen graph, each made a SavedModel first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from convkit.errors import InputError
from convkit.pipeline.artifact import Artifact, gather
from convkit.pipeline.runner import Runner
from convkit.sources.code import code_below
from convkit.sources.find import FROZEN, KERAS, Found
from convkit.sources.framework_model import FrameworkModel, Steps
from convkit.sources.saved_model import members_of, refuse_reaching_graph, refuse_reaching_out, signs_no_function
from convkit.sources.tensorflow_layout import turned_metadata
from convkit.sources.trust import TRUST_ALL, Untrusted, require_trust
from convkit.spec.metadata import Metadata
from convkit.spec.options import ExportOptions


def open_tensorflow(
    found: Found, metadata: Metadata | None, options: ExportOptions, trust: Sequence[str], command: str
) -> TensorFlowModel:
    """Look into a TensorFlow model, without running anything.

    Raises:
        InputError: it reaches out of its folder, or is no such model.
    """
    if found.path.suffix in KERAS:
        return KerasFile(found, metadata, options, trust, command)
    if found.path.suffix == FROZEN and found.file != "saved_model.pb":
        return FrozenGraph(found, metadata, options)
    return SavedModelFolder(found, metadata, options)


class TensorFlowModel(FrameworkModel):
    """What becomes of a TensorFlow model once it is a SavedModel."""

    environment = "tensorflow"
    _ready: Artifact | None = None

    def saved(self, run: Runner) -> Artifact:
        """Return the files of the SavedModel."""
        del run
        return self.files

    def _steps(self) -> Steps:
        from convkit.sources import tensorflow, tensorflow_profile

        return Steps(
            tensorflow.export_saved_model,
            tensorflow.time_saved_model,
            tensorflow_profile.profile_saved_model,
            tensorflow.answer_saved_model,
            tensorflow.read_signature,
        )

    def _model(self, run: Runner | None) -> dict[str, Any]:
        if self._ready is None and run is not None:
            self._ready = self.saved(run)
        return {"source": self._ready or self.files, "folder": "."}

    def _as_served(self) -> Metadata | None:
        return turned_metadata(self.metadata, self.options.layout) if self.metadata is not None else None


class SavedModelFolder(TensorFlowModel):
    """A TensorFlow SavedModel; where TensorFlow 2 wrote it without a signature, one of its functions gets one."""

    def __init__(self, found: Found, metadata: Metadata | None, options: ExportOptions) -> None:
        folder = Path(found.folder)
        refuse_reaching_out(found.path)
        super().__init__("TensorFlow SavedModel", gather(folder, members_of(folder)), metadata, options)
        self._function = options.signature
        self._unsigned = signs_no_function(found.path)
        if self._unsigned:
            self.options = msgspec.structs.replace(options, signature=None)

    def saved(self, run: Runner) -> Artifact:
        """See `TensorFlowModel.saved`."""
        from convkit.sources.tensorflow_sign import sign_function

        return run(sign_function, self.files, name=self._function).files if self._unsigned else self.files


class FrozenGraph(TensorFlowModel):
    """A GraphDef whose weights are constants. It names no inputs and outputs: config.txt does."""

    def __init__(self, found: Found, metadata: Metadata | None, options: ExportOptions) -> None:
        refuse_reaching_graph(found.path)
        if options.signature is not None:
            raise InputError(
                f"{found.path} is a frozen graph, which has no signatures",
                hint="leave --signature out; config.txt says by node_name what goes in and out",
                code="source.no-such-signature",
            )
        self._file = found.file
        files = gather(Path(found.folder), [found.file])
        super().__init__("TensorFlow frozen graph", files, metadata, options)

    def saved(self, run: Runner) -> Artifact:
        """See `TensorFlowModel.saved`."""
        from convkit.sources.tensorflow_frozen import wrap_graph

        return run(wrap_graph, self.files, file=self._file).files


class KerasFile(TensorFlowModel):
    """A ``.keras`` or ``.h5`` file of a whole model. Layers that are code run only under trust."""

    def __init__(
        self, found: Found, metadata: Metadata | None, options: ExportOptions, trust: Sequence[str], command: str
    ) -> None:
        self._found = found
        self._trust, self._command = trust, command
        files = gather(Path(found.folder), [found.file])
        super().__init__("Keras", files, metadata, options)

    def saved(self, run: Runner) -> Artifact:
        """See `TensorFlowModel.saved`.

        Raises:
            TrustError: loading it would run code that nobody trusts; nothing has run.
        """
        from convkit.sources.tensorflow_keras import export_keras, look_into_keras

        look = run(look_into_keras, self.files, file=self._found.file)
        folder = Path(self._found.folder)
        code = [name for name in look.modules if (folder / name).is_file()]
        if look.runs:
            beside = [Untrusted(path=str(folder / name), runs=("the module itself",)) for name in code]
            untrusted = [Untrusted(path=str(self._found.path), runs=look.runs), *beside]
            require_trust(untrusted, self._trust, self._command)
            if TRUST_ALL in self._trust and code:
                code = code_below(folder)
            self.files = gather(folder, {self._found.file, *code})
        return run(export_keras, self.files, file=self._found.file, trusted=bool(look.runs), modules=look.modules).files
