"""Getting a torch.nn.Module out of what the user has: a checkpoint, a model definition, or both."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec

from convkit.errors import ConvkitError, InputError, StepError
from convkit.pipeline.artifact import Artifact
from convkit.pipeline.isolation import warn_of_reach
from convkit.sources.checkpoint import CheckpointKind, read_checkpoint
from convkit.sources.torch_operators import REGISTER, import_operators
from convkit.sources.torch_state import chosen_module, weights_for
from convkit.sources.user_code import MODEL_DEF, UserFunction, attribute, import_file, load_function, place_of

if TYPE_CHECKING:
    import torch


class TorchSource(msgspec.Struct, frozen=True, kw_only=True):
    """A PyTorch model as the user has it.

    `files` holds `checkpoint` and, where code beside it may run, that code. `definition` is what ``--model-def`` names.
    """

    files: Artifact
    beside: str | None = None
    """Digest of what else lies in the folder, which ``load_model()`` may read."""
    checkpoint: str
    kind: CheckpointKind
    trusted: bool = False
    sealed: bool = True
    """Trust was given by digest: of the folder's Python files only those in `files` may be imported."""
    loader: str | None = None
    """The file beside the checkpoint that defines ``load_model()``."""
    definition: UserFunction | None = None
    state_key: str | None = None
    """The keys, joined by dots, that lead to the weights in the checkpoint."""

    @property
    def digest(self) -> str:
        """Return what tells this source from any other."""
        definition = (self.definition.files.digest, self.definition.name) if self.definition is not None else None
        return f"{self.files.digest} {self.beside} {definition} {self.state_key}"


_SAVE_AGAIN = "save it again with torch.save(model.state_dict(), path); a whole module in the old format needs --trust"
_loaded: dict[str, Any] = {}


def load_module(source: TorchSource) -> torch.nn.Module:
    """Build the module, on the CPU and in evaluation mode; once for each source in one process.

    Raises:
        InputError: the checkpoint is damaged, does not fit the definition, or is no module.
        StepError: the user's code failed.
    """
    import torch

    if source.digest not in _loaded:
        import_operators()
        if source.trusted:
            warn_of_reach()
        with _as_the_author_runs_it(source) if source.trusted else contextlib.nullcontext():
            module = _build(source)
        if not isinstance(module, torch.nn.Module):
            raise InputError(
                f"{source.checkpoint}: loading gave a {type(module).__name__}, not a torch.nn.Module",
                hint="load_model() or the factory must return the module itself",
                code="source.no-module",
            )
        _loaded[source.digest] = _ready(module, source)
    return _loaded[source.digest]


def load_program(source: TorchSource) -> Any:
    """Load a ``.pt2`` as a `torch.export.ExportedProgram`; once for each source in one process.

    Raises:
        InputError: it is damaged, or names operators that are not here.
    """
    import torch

    if source.digest not in _loaded:
        import_operators()
        path = source.files.file(source.checkpoint)
        if source.trusted:
            warn_of_reach()
        with contextlib.nullcontext() if source.trusted else _weights_only():
            try:
                _loaded[source.digest] = torch.export.load(path)
            except Exception as error:  # a damaged archive makes torch raise anything
                raise _unreadable(path, error, hint=f"torch.export.save it again; {REGISTER}") from error
    return _loaded[source.digest]


@contextlib.contextmanager
def _weights_only() -> Iterator[None]:
    """Let torch.load read nothing but tensors, whatever its caller says."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def forget() -> None:
    """Let go of every module that was built in this process."""
    _loaded.clear()


def _ready(module: torch.nn.Module, source: TorchSource) -> torch.nn.Module:
    try:
        module = module.cpu().eval()
        for parameter in module.parameters():
            parameter.requires_grad_(requires_grad=False)
    except Exception as error:  # its parts may be anything
        raise InputError(
            f"{source.checkpoint}: the module cannot be used: {type(error).__name__}: {error}",
            hint=_SAVE_AGAIN,
            code="source.unreadable",
        ) from error
    return module


def _build(source: TorchSource) -> Any:
    path = source.files.file(source.checkpoint)
    if source.definition is not None:
        module = _called(load_function(source.definition, MODEL_DEF), source.definition.name)
        _fill(module, _load(path, source), source)
        return module
    if source.loader:
        return _called(attribute(import_file(source.files.file(source.loader)), "load_model"), "load_model()")
    if source.kind is CheckpointKind.TORCHSCRIPT:
        return _load_script(path)
    return chosen_module(_load(path, source), source.state_key, file=source.checkpoint)


def _load_script(path: Path) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(path, map_location="cpu")
    except Exception as error:  # a damaged archive makes torch raise anything
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception, *, hint: str | None = None) -> InputError:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return InputError(
        f"{path.name} cannot be loaded: {lines[0] if lines else type(error).__name__}",
        hint=hint or _loading_hint(error),
        code="source.unreadable",
    )


def _load(path: Path, source: TorchSource) -> Any:
    import torch

    try:
        if source.kind is CheckpointKind.PICKLED_MODULE and source.trusted:
            _offer_names(path.parent)
            return torch.load(path, map_location="cpu", weights_only=False)
        with torch.serialization.safe_globals(_own_classes(path)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except ConvkitError:
        raise
    except Exception as error:  # a damaged pickle makes torch raise anything
        raise _unreadable(path, error) from error


def _loading_hint(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"its pickle names a module that is not here: pip install {error.name}, or put {error.name}.py beside it"
    if isinstance(error, AttributeError):
        return "a class that it was saved with is missing: put the model.py that defines it beside it, with --trust"
    return _SAVE_AGAIN


def _own_classes(path: Path) -> list[Any]:
    """Resolve the torch.nn module classes that the checkpoint names; nothing else is admitted."""
    import torch

    classes: list[Any] = [set]
    for name in read_checkpoint(path).module_classes:
        module, _, attribute = name.rpartition(".")
        found = getattr(importlib.import_module(module), attribute, None)
        if isinstance(found, type) and issubclass(found, torch.nn.Module):
            classes.append(found)
    return classes


def _fill(module: Any, loaded: Any, source: TorchSource) -> None:
    import torch

    if not isinstance(module, torch.nn.Module):
        return  # reported by the caller, with the type
    state = weights_for(module, loaded, source.state_key, file=source.checkpoint)
    factory = source.definition.name if source.definition is not None else ""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(
            f"{source.checkpoint} does not fit {factory}: {' '.join(str(error).split())}",
            hint="the factory must build the very architecture that the weights were saved from",
            code="source.state-dict-mismatch",
        ) from error


def _called(function: Callable[[], Any], name: str) -> Any:
    try:
        return function()
    except Exception as error:
        raise StepError(
            f"{name} raised {type(error).__name__}: {error} ({place_of(error)})",
            hint=(
                f"install what the model needs: pip install {error.name}"
                if isinstance(error, ModuleNotFoundError)
                else "it must run without arguments, without a GPU, from the model's folder"
            ),
            code="source.user-code",
        ) from error


def _offer_names(folder: Path) -> None:
    """Put model.py's names where whole pickles saved from a script look for them: in ``__main__``."""
    if (folder / "model.py").is_file():
        module = import_file(folder / "model.py")
        for name, value in vars(module).items():
            if not name.startswith("__"):
                setattr(sys.modules["__main__"], name, value)


@contextlib.contextmanager
def _as_the_author_runs_it(source: TorchSource) -> Iterator[None]:
    """Run trusted code as dl_inference did: from the model's folder, `torch.load` as before 2.6, nothing written."""
    import torch

    folder = source.files.file(source.checkpoint).parent
    before, load = Path.cwd(), torch.load

    @functools.wraps(load)
    def load_as_before(*args: Any, **kwargs: Any) -> Any:
        kwargs.setdefault("weights_only", False)
        if not torch.cuda.is_available():
            kwargs.setdefault("map_location", "cpu")
        return load(*args, **kwargs)

    os.chdir(folder)
    if source.sealed:
        sys.meta_path.insert(0, _Sealed(source.files))
    else:
        sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True  # from here on: forward() may import, too
    torch.load = load_as_before
    try:
        yield
    finally:
        torch.load = load
        os.chdir(before)


class _Sealed:
    """Finds modules in a folder as the import path would, but of its files only those that are trusted."""

    def __init__(self, files: Artifact) -> None:
        self._folder = files.path
        self._trusted = {str(files.file(name)) for name in files.files}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a top-level module lies, if its file is trusted; its submodules are found as ever."""
        spec = PathFinder.find_spec(name, [self._folder], target) if path is None else None
        return spec if spec is not None and spec.origin in self._trusted else None
