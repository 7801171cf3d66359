"""A PyTorch file as a source: what it is, what it would run, and the steps that export and ask it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convkit.errors import InputError, MetadataError
from convkit.pipeline.artifact import Artifact, digest_file, gather
from convkit.pipeline.runner import Runner
from convkit.sources.checkpoint import Checkpoint, CheckpointKind, read_checkpoint
from convkit.sources.code import code_below, defines, local_imports
from convkit.sources.find import Found
from convkit.sources.framework_model import FrameworkModel, Steps
from convkit.sources.torch_module import TorchSource
from convkit.sources.trust import TRUST_ALL, Untrusted, require_trust
from convkit.sources.user_code import MODEL_DEF, find_function
from convkit.spec.metadata import Metadata
from convkit.spec.options import ExportOptions

_SAVED = (CheckpointKind.TORCHSCRIPT, CheckpointKind.EXPORTED)
"""Files that hold the network itself, without Python code."""


def open_torch(
    found: Found, metadata: Metadata | None, options: ExportOptions, trust: Sequence[str], command: str
) -> TorchFile | ProgramFile:
    """Look into a PyTorch file, without running anything.

    Raises:
        InputError: it cannot be read, or lacks its definition or its metadata.
        TrustError: exporting would run code that nobody trusts.
    """
    checkpoint = read_checkpoint(found.path)
    if checkpoint.kind is CheckpointKind.EXPORTED:
        return ProgramFile(found, checkpoint, metadata, options, trust, command)
    return TorchFile(found, checkpoint, metadata, options, trust, command)


class _TorchModel(FrameworkModel):
    """A model that torch's worker loads."""

    environment = "torch"
    source: TorchSource

    def _model(self, run: Runner | None) -> dict[str, Any]:
        del run
        return {"source": self.source}


class TorchFile(_TorchModel):
    """A PyTorch checkpoint: a state dict with a definition, a whole module, or TorchScript."""

    def __init__(
        self,
        found: Found,
        checkpoint: Checkpoint,
        metadata: Metadata | None,
        options: ExportOptions,
        trust: Sequence[str],
        command: str,
    ) -> None:
        if metadata is None:
            raise MetadataError(
                f"{found.path} has no config.txt: a PyTorch model does not say what its inputs are",
                hint=f"write {found.folder}/config.txt (the README shows one), or name it with --config",
                code="metadata.missing",
            )
        scripted = checkpoint.kind is CheckpointKind.TORCHSCRIPT
        folder = Path(found.folder)
        _refuse_useless(options, checkpoint, found)
        has_loader = options.model_def is None and not scripted and (folder / "model.py").is_file()
        loader = "model.py" if has_loader and defines(folder / "model.py", "load_model") else None
        if checkpoint.kind is CheckpointKind.TENSORS and loader is None and options.model_def is None:
            raise InputError(
                f"{found.path} is a state dict: weights without the network they belong to",
                hint="put a model.py with load_model() beside it, or name the network: --model-def FILE.py:factory",
                code="source.no-definition",
            )
        untrusted = _untrusted(found, checkpoint, loader, options, trust)
        require_trust(untrusted, trust, command)
        sealed = TRUST_ALL not in trust
        trusted = {Path(file.path).relative_to(folder).as_posix() for file in untrusted}
        code = code_below(folder) if untrusted and not sealed else trusted
        files = gather(folder, {found.file, *code})
        super().__init__("TorchScript" if scripted else "PyTorch", files, metadata, options)
        definition = find_function(options.model_def, MODEL_DEF) if options.model_def is not None else None
        self.source = TorchSource(
            files=files,
            beside=_beside(folder, files) if loader else None,
            checkpoint=found.file,
            kind=checkpoint.kind,
            trusted=bool(untrusted),
            sealed=sealed,
            loader=loader,
            definition=definition,
            state_key=options.state_key,
        )

    def _steps(self) -> Steps:
        from convkit.sources import torch, torch_profile

        return Steps(torch.export_torch, torch.time_torch, torch_profile.profile_torch, torch.answer_torch, None)


class ProgramFile(_TorchModel):
    """A ``.pt2``: a program that `torch.export` has written. It carries its own signature."""

    def __init__(
        self,
        found: Found,
        checkpoint: Checkpoint,
        metadata: Metadata | None,
        options: ExportOptions,
        trust: Sequence[str],
        command: str,
    ) -> None:
        _refuse_useless(options, checkpoint, found)
        untrusted = _untrusted(found, checkpoint, None, options, trust)
        require_trust(untrusted, trust, command)
        files = gather(Path(found.folder), [found.file])
        super().__init__("PyTorch exported program", files, metadata, options)
        self.source = TorchSource(files=files, checkpoint=found.file, kind=checkpoint.kind, trusted=bool(untrusted))

    def _steps(self) -> Steps:
        from convkit.sources import torch_profile, torch_pt2

        return Steps(
            torch_pt2.export_pt2,
            torch_pt2.time_pt2,
            torch_profile.profile_pt2,
            torch_pt2.answer_pt2,
            torch_pt2.read_pt2,
        )


def _refuse_useless(options: ExportOptions, checkpoint: Checkpoint, found: Found) -> None:
    """Refuse what says how to build a network, for a file that holds the network itself.

    Raises:
        InputError: such an option is given.
    """
    given = {"--model-def": options.model_def, "--state-key": options.state_key}
    for option, value in given.items():
        if value is not None and checkpoint.kind in _SAVED:
            raise InputError(
                f"{option} {value}: {found.path} is a {checkpoint.kind.value} file, which holds the network itself",
                hint=f"leave {option} out",
                code="source.no-definition",
            )


def _untrusted(
    found: Found, checkpoint: Checkpoint, loader: str | None, options: ExportOptions, trust: Sequence[str]
) -> list[Untrusted]:
    """List the files that would run code: the pickle, model.py, and what that imports from its folder.

    With a definition the weights are read without running anything, unless the pickle is trusted: a training script's
    checkpoint may hold objects of its own beside them.
    """
    pickled = checkpoint.kind is CheckpointKind.PICKLED_MODULE or (checkpoint.kind in _SAVED and checkpoint.foreign)
    pickle = [Untrusted(path=str(found.path), runs=checkpoint.foreign)] if pickled else []
    if options.model_def is not None:
        granted = TRUST_ALL in trust or (pickled and digest_file(found.path) in trust)
        return pickle if granted else []
    files = pickle
    definition = Path(found.folder, "model.py")
    if loader is not None or (checkpoint.kind is CheckpointKind.PICKLED_MODULE and definition.is_file()):
        runs = ("the module itself", "load_model()") if loader else ("the module itself",)
        files.append(Untrusted(path=str(definition), runs=runs))
        files += [
            Untrusted(path=str(Path(found.folder, name)), runs=("the module itself, which model.py imports",))
            for name in local_imports(definition)
        ]
    return files


def _beside(folder: Path, files: Artifact) -> str:
    """Return the digest of what else lies in the folder: load_model() may read any of it.

    Left out are hidden files, and one that this very command writes its output to.
    """
    own = []
    for stream in (1, 2):
        with contextlib.suppress(OSError):  # it is closed
            own.append(os.fstat(stream))
    names = {
        path.name
        for path in folder.iterdir()
        if path.is_file()
        and not path.name.startswith(".")
        and not any(os.path.samestat(path.stat(), written) for written in own)
    }
    return gather(folder, names - set(files.files)).digest
