"""What Keras saved, ``.keras`` or ``.h5``: what of it is code, and the SavedModel that it becomes."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from convkit.errors import ConvkitError, InputError
from convkit.pipeline.artifact import Artifact, gather, new_folder
from convkit.pipeline.isolation import warn_of_reach
from convkit.pipeline.step import step
from convkit.sources.exported import Prepared
from convkit.sources.tensorflow_model import tensorflow
from convkit.sources.user_code import UserFunction, import_file, running

_MOST_CONFIG = 64 << 20
_CODE = {
    "Lambda": "a Lambda layer",
    "__lambda__": "a lambda",
    "TFSMLayer": "a TFSMLayer, which loads a SavedModel from a path",
    "TorchModuleWrapper": "a pickled torch module",
}
"""Classes that are code, or load some."""
_OWN = ("keras", "builtins", "keras_hub", "keras_nlp", "keras_cv")


class KerasLook(msgspec.Struct, frozen=True, kw_only=True):
    """What loading the file would run."""

    runs: tuple[str, ...]
    modules: tuple[str, ...]
    """Files beside the model that define its layers, relative to its folder; they need not be there."""


@step(version=1, stage="source", title="Look into the Keras file", needs="tensorflow")
def look_into_keras(source: Artifact, *, file: str) -> KerasLook:
    """Read the file's description of the network; nothing in it is run.

    Raises:
        InputError: it cannot be read, or holds weights alone.
    """
    path = source.file(file)
    runs: dict[str, None] = {}
    modules: dict[str, None] = {}
    for entry in _entries(_config(path)):
        kind, module = str(entry.get("class_name")), entry.get("module")
        name = entry.get("config", {}).get("name") if isinstance(entry.get("config"), dict) else None
        if kind in _CODE:
            runs[_CODE[kind] + (f" '{name}'" if name else "")] = None
        elif _is_foreign(entry):
            runs[f"the class {kind} of {module or 'a module beside it'}"] = None
            if isinstance(module, str) and all(part.isidentifier() for part in module.split(".")):
                modules[module.replace(".", "/") + ".py"] = None
    if runs:
        modules["model.py"] = None
    return KerasLook(runs=tuple(runs), modules=tuple(modules))


@step(version=1, stage="source", title="Export the Keras model", needs="tensorflow")
def export_keras(source: Artifact, *, file: str, trusted: bool, modules: tuple[str, ...]) -> Prepared:
    """Load the model and write a SavedModel, whose signature is Keras's own.

    Args:
        source: the file, and under trust the code beside it.
        file: the file's name in it.
        trusted: its code may run: Lambda layers, and the classes of `modules`.
        modules: files beside it to import.

    Raises:
        InputError: Keras cannot load it, or it was never built.
        StepError: code of its own raised.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"
    tensorflow()
    import keras

    path = source.file(file)
    target = new_folder("keras") / "model"
    with _its_code(source, file) if trusted else contextlib.nullcontext():
        found = _classes(source, modules) if trusted else {}
        try:
            model = keras.saving.load_model(path, custom_objects=found, compile=False, safe_mode=not trusted)
            model.export(str(target), verbose=False)
        except ConvkitError:
            raise
        except Exception as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise InputError(
                f"Keras {keras.__version__} cannot load {path.name}: {' '.join(' '.join(lines[:6]).split())[:500]}",
                hint="save it again with this Keras: model.save('model.keras'); classes of its own belong into a "
                "model.py beside it",
                code="source.unreadable",
            ) from error
    return Prepared(files=gather(target))


def _config(path: Path) -> Any:
    try:
        text = _text_of_archive(path) if zipfile.is_zipfile(path) else _text_of_hdf5(path)
        return json.loads(text)
    except (OSError, KeyError, ValueError, RecursionError, zipfile.BadZipFile, NotImplementedError) as error:
        raise InputError(
            f"{path} is no model that Keras saved: {' '.join(str(error).split())[:300]}",
            hint="save the whole model again: model.save('model.keras')",
            code="source.unreadable",
        ) from error


def _text_of_archive(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        if archive.getinfo("config.json").file_size > _MOST_CONFIG:
            raise ValueError("its config.json is larger than 64 MiB")
        return archive.read("config.json")


def _text_of_hdf5(path: Path) -> str | bytes:
    import h5py

    with h5py.File(path, "r") as file:
        if "model_config" not in file.attrs:
            raise InputError(
                f"{path} holds weights without the network they belong to",
                hint="save the whole model: model.save('model.keras'), not model.save_weights(...)",
                code="source.no-definition",
            )
        text: str | bytes = file.attrs["model_config"]
        return text


def _entries(config: Any) -> Iterator[dict[str, Any]]:
    """Yield every description of an object, from the outside in."""
    waiting = [config]
    while waiting:
        held = waiting.pop(0)
        if isinstance(held, dict):
            if "class_name" in held:
                yield held
            waiting += held.values()
        elif isinstance(held, list):
            waiting += held


def _is_foreign(entry: dict[str, Any]) -> bool:
    """Tell whether a class or function is someone else's than Keras's: by its module, or registered ``package>name``.

    The older format knows no modules; there it is what Keras has under no such name.
    """
    import keras

    module = entry.get("module")
    names = [entry.get("registered_name"), entry["class_name"]]
    registered = [name.partition(">")[0] for name in names if isinstance(name, str) and ">" in name]
    if any(package not in _OWN for package in registered):
        return True
    if isinstance(module, str):
        return module.partition(".")[0] not in _OWN
    places = (keras.layers, keras.models, keras.initializers, keras.regularizers, keras.constraints, keras.activations,
              keras.dtype_policies, keras.optimizers, keras.losses, keras.metrics)  # fmt: skip
    internal = ("Functional", "__tensor__", "__keras_tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__",
                "__typespec__", "__dtype__")  # fmt: skip
    return entry["class_name"] not in internal and not any(hasattr(place, str(names[1])) for place in places)


@contextlib.contextmanager
def _its_code(source: Artifact, file: str) -> Iterator[None]:
    warn_of_reach()
    sys.dont_write_bytecode = True
    if source.path not in sys.path:
        sys.path.insert(0, source.path)
    with running(UserFunction(files=source, name=file)):
        yield


def _classes(source: Artifact, modules: tuple[str, ...]) -> dict[str, Any]:
    """Import what lies beside the model, and return its classes and functions by name."""
    found: dict[str, Any] = {}
    for name in modules:
        if name in source.files:
            module = (
                import_file(source.file(name))
                if "/" not in name
                else importlib.import_module(name.removesuffix(".py").replace("/", "."))
            )
            found.update({key: value for key, value in vars(module).items() if callable(value) and key[0] != "_"})
    return found
