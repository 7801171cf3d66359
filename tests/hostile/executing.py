"""Files that run code when they are loaded as people load them. What they run makes a folder: the canary."""

from __future__ import annotations

import io
import json
import pickle
import runpy
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from sources.hostile import (
    PICKLES,
    WRAPPINGS,
    MakesFolder,
    in_legacy_file,
    in_zip,
    plain_pickle,
    zip_behind_a_prefix,
)
from spec.configs import DL_INFERENCE_EXAMPLE


class Payload(NamedTuple):
    """A file that runs code, how it is made to run, and how convkit refuses it."""

    name: str
    make: Callable[[Path, Path], Path]
    """Writes it into a folder, for a canary, and returns what is to be converted."""
    load: Callable[[Path], object]
    """Loads it as people do."""
    code: str = "trust.required"
    arguments: tuple[str, ...] = ()
    """More of the command line; ``FOLDER`` stands for the folder."""


def _torch_load(path: Path) -> object:
    import torch

    return torch.load(path, weights_only=False)


def _export_load(path: Path) -> object:
    import torch

    return torch.export.load(path)


def _numpy_load(path: Path) -> object:
    import numpy as np

    with np.load(path.parent / "data.npz", allow_pickle=True) as archive:
        return [archive[name] for name in archive.files]


def _keras_load(path: Path) -> object:
    import keras

    return keras.saving.load_model(path, safe_mode=False)


def _saved_model_call(path: Path) -> object:
    import tensorflow as tf

    return tf.saved_model.load(str(path)).signatures["serving_default"](x=tf.ones((1, 4)))


def _run_file(path: Path) -> object:
    return runpy.run_path(str(path / "model.py"))


def torch_file(content: Callable[[Path], bytes], name: str = "model.pth") -> Callable[[Path, Path], Path]:
    """Return what writes a file for torch, with a config.txt beside it."""

    def make(folder: Path, canary: Path) -> Path:
        (folder / "config.txt").write_text(DL_INFERENCE_EXAMPLE)
        (folder / name).write_bytes(content(canary))
        return folder / name

    return make


def _two_of_one_name(canary: Path) -> bytes:
    """The first of two members of one name is hostile; which one is read is the reader's choice."""
    directory = io.BytesIO(in_zip(plain_pickle(canary)))
    with zipfile.ZipFile(directory, "a") as archive:
        archive.writestr("archive/Data.PKL", pickle.dumps({}, protocol=2))
    return directory.getvalue()


def _fake_torchscript(canary: Path) -> bytes:
    """Members that only TorchScript has, where torch does not look for them."""
    buffer = io.BytesIO(in_zip(plain_pickle(canary)))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("archive/extra/code/__torch__.py", "")
        archive.writestr("archive/extra/constants.pkl", pickle.dumps((), protocol=2))
    return buffer.getvalue()


def _exported_program() -> bytes:
    import torch

    class Linear(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    buffer = io.BytesIO()
    torch.export.save(torch.export.export(Linear(), (torch.ones(1, 2),)), buffer)
    return buffer.getvalue()


def _replaced(archive: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(buffer, "w") as target:
        for member in source.infolist():
            target.writestr(member.filename, change(member.filename, source.read(member)))
    return buffer.getvalue()


def _saved_by_torch(canary: Path) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(MakesFolder(canary), buffer)
    return buffer.getvalue()


def _pt2_sample_inputs(canary: Path) -> bytes:
    """An exported program whose sample inputs are a pickle."""
    hostile = _saved_by_torch(canary)
    return _replaced(_exported_program(), lambda name, data: hostile if "sample_inputs" in name else data)


def _pt2_pickled_weights(canary: Path) -> bytes:
    """An exported program with clean sample inputs, one of whose weights says that it is a pickle."""
    hostile = _saved_by_torch(canary)

    def change(name: str, data: bytes) -> bytes:
        if name.endswith("weight_0"):
            return hostile
        if name.endswith("model_weights_config.json"):
            config = json.loads(data)
            for entry in config["config"].values():
                entry["use_pickle"] = entry["path_name"] == "weight_0"
            return json.dumps(config).encode()
        return data

    return _replaced(_exported_program(), change)


def _model_py(folder: Path, canary: Path) -> Path:
    """A clean state dict with a model.py that acts when it is imported."""
    (folder / "config.txt").write_text(DL_INFERENCE_EXAMPLE)
    (folder / "model.pth").write_bytes(in_zip(pickle.dumps({}, protocol=2)))
    (folder / "model.py").write_text(f"import os\nos.mkdir({str(canary)!r})\n\ndef load_model():\n    return None\n")
    return folder


def _object_array(folder: Path, canary: Path) -> Path:
    """A clean ONNX file, and samples whose array is of objects."""
    import numpy as np
    from sources.onnx_files import model, write

    np.savez(folder / "data.npz", x=np.array([MakesFolder(canary)], dtype=object))
    return write(folder, model())


def _keras_lambda(folder: Path, canary: Path) -> Path:
    import keras

    layer = keras.layers.Lambda(
        eval(
            f"lambda x: (__import__('os').path.isdir({str(canary)!r}) or __import__('os').mkdir({str(canary)!r}), x)[1]"
        )
    )
    network = keras.Sequential([keras.Input((4,)), layer])
    canary.rmdir()  # building it has run it, too
    network.save(folder / "model.keras")
    return folder / "model.keras"


def _writing_graph(folder: Path, canary: Path) -> Path:
    """A SavedModel that writes a file each time it is called: TensorFlow's own operator does it."""
    import tensorflow as tf

    class Writes(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
        def __call__(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            tf.io.write_file(str(canary / "file"), "fired")
            return {"y": x * 2.0}

    module = Writes()
    tf.saved_model.save(module, str(folder / "net"), signatures=module.__call__)
    return folder / "net"


PAYLOADS = (
    *(
        Payload(f"{wrapping} pickle", torch_file(lambda canary, wrap=wrap: wrap(plain_pickle(canary))), _torch_load)
        for wrapping, wrap in WRAPPINGS.items()
        if wrapping != "raw pickle"
    ),
    *(
        Payload(f"zip, {form}", torch_file(lambda canary, form=PICKLES[form]: in_zip(form(canary))), _torch_load)
        for form in ("memoized strings", "overwritten memo", "through a module class", "inst opcode")
    ),
    Payload("raw pickle", torch_file(plain_pickle), lambda path: pickle.loads(path.read_bytes())),
    Payload("zip behind a prefix", torch_file(lambda c: zip_behind_a_prefix(plain_pickle(c))), _torch_load),
    Payload("two members", torch_file(_two_of_one_name), _torch_load),
    Payload("second pickle", torch_file(lambda c: in_legacy_file(plain_pickle(c)), "model.bin"), _torch_load),
    Payload("fake TorchScript", torch_file(_fake_torchscript), _torch_load),
    Payload("pt2 sample inputs", torch_file(_pt2_sample_inputs, "m.pt2"), _export_load),
    Payload("pt2 use_pickle", torch_file(_pt2_pickled_weights, "m.pt2"), _export_load),
    Payload("model.py", _model_py, _run_file),
    Payload("npz", _object_array, _numpy_load, code="data.unreadable", arguments=("--samples", "FOLDER/data.npz")),
    Payload("Keras Lambda", _keras_lambda, _keras_load),
    Payload("SavedModel with WriteFile", _writing_graph, _saved_model_call, code="source.reaches-out"),
)
