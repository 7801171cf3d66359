"""What is fuzzed: for each kind of input a corpus of good files, ways to spoil them, and the code that reads them."""

from __future__ import annotations

import contextlib
import io
import pickle
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from convkit.errors import ConvkitError
from fuzz.binary import members_of, spoil_message, spoil_pickle, spoil_zip
from fuzz.mutate import spoil, spoil_text
from fuzz.trees import spoil_json, spoil_toml

ROOT = Path(__file__).parents[2]
RUN_SECONDS = 3.0
"""How long a case's graph may compute: some loop for ever, and are valid."""
CANARY = Path("fired")
"""What a hostile pickle would make; relative, so that a case is the same in any folder."""


class Kind(ABC):
    """One kind of input. `prepare` runs once, in the process from which the cases' own are forked."""

    share = 1
    """One case where others have so many: these take longer."""
    starts_workers = False

    @abstractmethod
    def prepare(self, folder: Path) -> None:
        """Make the corpus; import what the cases need."""

    @abstractmethod
    def make(self, chance: Random) -> tuple[str, bytes]:
        """Return a spoilt file and its name."""

    @abstractmethod
    def read(self, folder: Path, name: str, data: bytes) -> None:
        """Let convkit read it, in an empty folder; anything but a result or a `ConvkitError` is a finding."""


class ConfigTxt(Kind):
    """config.txt, as far as what follows from it alone."""

    def prepare(self, folder: Path) -> None:
        from spec.configs import CONFIG, DL_INFERENCE_EXAMPLE, with_keys

        profile = with_keys('"range": [0, 1]', '"min_dims": [1, 3]', '"opt_dims": [4, 3]', '"max_dims": [8, 3]')
        texts = [CONFIG, DL_INFERENCE_EXAMPLE, profile]
        self.corpus = [text.encode() for text in texts]
        self.corpus += [path.read_bytes() for path in sorted(ROOT.glob("sample_models/*/config.txt"))]

    def make(self, chance: Random) -> tuple[str, bytes]:
        way = chance.choice((spoil, spoil_text, spoil_json, spoil_json))
        return "config.txt", way(chance, chance.choice(self.corpus), self.corpus)

    def read(self, folder: Path, name: str, data: bytes) -> None:
        from convkit.graph.present import wanted_interface
        from convkit.graph.samples import case_sizes
        from convkit.spec.metadata import parse_metadata, read_metadata, render_metadata
        from convkit.spec.options import TensorNames

        (folder / name).write_bytes(data)
        metadata = read_metadata(folder / name)
        assert parse_metadata(render_metadata(metadata)) == metadata
        for names in TensorNames:
            case_sizes(wanted_interface(metadata, names, None))


class Recipes(Kind):
    """Recipes: one model or several, extended or not, written again."""

    def prepare(self, folder: Path) -> None:
        recipes = [path.read_bytes() for path in sorted(ROOT.glob("recipes/*.toml"))]
        full = b"""model = "${NAME}/m.onnx"\nenv = { NAME = "net" }\nversion = 3\ntrust = ["yes"]\n[export]\nopset = 17
max_batch_size = 8\n[quantize]\nprecision = "int8"\ndata = "d.npz"\n[check]\nmax_error = 0.1\n[gates]\nmax_size = "3 MB"
max_latency = 2.5\n[measure]\nmode = "full"\n[triton]\nrelease = "24.10"\nwarmup = true\n"""
        several = b'to = "onnxruntime"\n[[model]]\nmodel = "a.onnx"\n[[model]]\nmodel = "b.onnx"\nname = "c"\n'
        self.corpus = [*recipes, full, several, b'extends = "base.toml"\nmodel = "m.onnx"\n']

    def make(self, chance: Random) -> tuple[str, bytes]:
        way = chance.choice((spoil, spoil_text, spoil_toml, spoil_toml))
        return "recipe.toml", way(chance, chance.choice(self.corpus), self.corpus)

    def read(self, folder: Path, name: str, data: bytes) -> None:
        from convkit.fleet import read_fleet
        from convkit.request import make_request
        from convkit.written import recipe_of

        (folder / name).write_bytes(data)
        (folder / "base.toml").write_bytes(self.corpus[0])
        with contextlib.suppress(ConvkitError):
            read_fleet(folder / name, {}, environment={})
        recipe_of(make_request({"model": "m.onnx"}, recipe=folder / name, environment={}), folder)


class OnnxFiles(Kind):
    """ONNX files through every step from the source to the simplified graph, ONNX Runtime and onnxslim included."""

    def prepare(self, folder: Path) -> None:
        import onnx
        import onnxruntime
        import onnxslim  # noqa: F401

        from fuzz.graphs import graphs

        self.corpus = [proto.SerializeToString() for proto in graphs()]
        self.message: Any = onnx.ModelProto
        onnxruntime.set_default_logger_severity(4)

    def make(self, chance: Random) -> tuple[str, bytes]:
        data = chance.choice(self.corpus)
        if chance.random() < 0.3:
            return "net.onnx", spoil(chance, data, self.corpus)
        return "net.onnx", spoil_message(chance, self.message.FromString(data))

    def read(self, folder: Path, name: str, data: bytes) -> None:
        from convkit.graph.header import read_header
        from convkit.graph.simplify import simplify
        from convkit.graph.wire import WireError
        from convkit.pipeline import patience
        from convkit.pipeline.artifact import gather
        from convkit.sources.onnx import find_external_data, import_onnx
        from convkit.spec.options import ExportOptions, Simplifier
        from convkit.spec.paths import is_plain

        (folder / name).write_bytes(data)
        (folder / "w.bin").write_bytes(bytes(64))
        patience.allow(RUN_SECONDS)
        with contextlib.suppress(WireError):
            read_header(folder / name)
        external = find_external_data(gather(folder, [name])).names
        if all(is_plain(file) and (folder / file).is_file() for file in external):
            source = gather(folder, [name, *external])
            options = ExportOptions()
            exported = import_onnx(source, file=name, metadata=None, options=options, samples=None, max_opset=21)
            simplify(exported.model, chain=(Simplifier.ONNXSLIM,))


class Conversions(OnnxFiles):
    """ONNX files through the whole of `convert`, workers and all: published and fit to be served, or refused."""

    share = 100
    starts_workers = True

    def read(self, folder: Path, name: str, data: bytes) -> None:
        import onnxruntime

        from convkit.conversion import convert
        from convkit.pipeline.cache import Cache
        from convkit.request import make_request

        (folder / name).write_bytes(data)
        (folder / "w.bin").write_bytes(bytes(64))
        repository = folder / "repository"
        arguments = {"model": str(folder / name), "output": str(repository), "name": "net"}
        table = {"measure": {"mode": "none"}, "limits": {"time": "10s"}}  # a graph may compute for ever
        try:
            convert(make_request({**arguments, **table}, environment={}), cache=Cache(folder / "cache"))
        except ConvkitError:
            assert not repository.exists() or not list(repository.rglob("*")), "something was published"
            raise
        onnxruntime.InferenceSession(repository / "net" / "1" / "model.onnx")


class Checkpoints(Kind):
    """``.pth`` files of every age: told what they are, and loaded where no trust is needed."""

    def prepare(self, folder: Path) -> None:
        import torch
        from torch import nn

        torch.set_num_threads(1)
        layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
        tensors = {str(dtype): torch.zeros(2, dtype=dtype) for dtype in (torch.bfloat16, torch.int8, torch.complex64)}
        self.corpus = []
        for held in (layers.state_dict(), layers, tensors, nn.LSTM(2, 2), {"epoch": 3, "state": layers.state_dict()}):
            for zipped in (True, False):
                buffer = io.BytesIO()
                torch.save(held, buffer, _use_new_zipfile_serialization=zipped)
                self.corpus.append(buffer.getvalue())
        self.foreign = _foreign(CANARY)

    def make(self, chance: Random) -> tuple[str, bytes]:
        data = chance.choice(chance.choice((self.corpus, self.foreign)))
        way = spoil_zip(spoil_pickle) if members_of(data) else chance.choice((spoil_pickle, spoil_pickle, spoil))
        return "model.pth", way(chance, data, [*self.corpus, *self.foreign])

    def read(self, folder: Path, name: str, data: bytes) -> None:
        from convkit.pipeline.artifact import gather
        from convkit.sources.checkpoint import CheckpointKind, read_checkpoint
        from convkit.sources.torch_module import TorchSource, load_module

        (folder / name).write_bytes(data)
        kind = read_checkpoint(folder / name).kind
        try:
            if kind in (CheckpointKind.TENSORS, CheckpointKind.TORCH_MODULE, CheckpointKind.PICKLED_MODULE):
                load_module(TorchSource(files=gather(folder, [name]), checkpoint=name, kind=kind))
        finally:
            assert not CANARY.exists(), "a pickle has fired"


def _foreign(canary: Path) -> list[bytes]:
    from sources.hostile import PICKLES, WRAPPINGS, in_legacy_file, in_zip

    payloads = [payload(canary) for payload in PICKLES.values()]
    harmless = [pickle.dumps(value, protocol=2) for value in ({}, {"a": {1, 2}}, [1.5, "x"])]
    return [
        *(wrapping(payload) for payload in payloads for wrapping in WRAPPINGS.values()),
        *(wrapping(plain) for plain in harmless for wrapping in (in_zip, in_legacy_file)),
    ]


class Manifests(Kind):
    """The records of a published repository, one of them spoilt: checked, reported, compared, used as a lock."""

    SPOILT = (
        "manifest.json",
        "config.pbtxt",
        "report.json",
        "build.json",
        "expected.json",
        "SHA256SUMS",
        "manifest.sig.json",
    )

    def prepare(self, folder: Path) -> None:
        from check.repositories import publish

        live = publish(folder / "live", folder / "cache")
        pending = publish(folder / "deferred", folder / "cache", to="tensorrt", engine="defer")
        self.repositories = (live, pending)
        self.files = {
            (repository, path.relative_to(repository).as_posix()): path.read_bytes()
            for repository in self.repositories
            for path in sorted(repository.rglob("*"))
            if path.is_file()
        }
        self.spoilt = [place for place in self.files if Path(place[1]).name in self.SPOILT]

    def make(self, chance: Random) -> tuple[str, bytes]:
        number = chance.randrange(len(self.spoilt))
        name, data = self.spoilt[number][1], self.files[self.spoilt[number]]
        alike = [self.files[place] for place in self.spoilt if Path(place[1]).suffix == Path(name).suffix]
        ways: Sequence[Callable[..., bytes]] = (spoil, spoil_text, spoil_json, spoil_json)
        return f"{number}", chance.choice(ways)(chance, data, alike)

    def read(self, folder: Path, name: str, data: bytes) -> None:
        from convkit.checking import check
        from convkit.comparing import compare
        from convkit.report.render import Format
        from convkit.reporting import report
        from convkit.serving.manifest import Lock, results

        original, member = self.spoilt[int(name)]
        repository = folder / "repository"
        shutil.copytree(original, repository)
        (repository / member).write_bytes(data)
        check(repository, triton="24.10").remarks  # noqa: B018
        if member.endswith("manifest.json"):
            results(data)
        calls: list[Callable[[], object]] = [
            *(lambda form=form: report(repository, form) for form in Format),  # type: ignore[misc]
            lambda: compare(original, repository),
            lambda: Lock(repository / member).hold_inputs(options={"a": 1}, sources={"b": "sha256:c"}),
        ]
        for call in calls:
            with contextlib.suppress(ConvkitError):
                call()


class Samples(Kind):
    """``.npz`` files with samples or calibration data."""

    def prepare(self, folder: Path) -> None:
        import numpy as np

        self.corpus = []
        for dtype in ("float32", "int64", "U5", "uint8"):
            buffer = io.BytesIO()
            np.savez(buffer, x=np.zeros((5, 4), dtype), labels=np.arange(5))
            self.corpus.append(buffer.getvalue())
        buffer = io.BytesIO()
        np.savez(buffer, x=np.array([{}, None], dtype=object))
        self.corpus.append(buffer.getvalue())

    def make(self, chance: Random) -> tuple[str, bytes]:
        return "data.npz", spoil_zip(_spoil_npy)(chance, chance.choice(self.corpus), self.corpus)

    def read(self, folder: Path, name: str, data: bytes) -> None:
        from convkit.graph.samples import make_cases
        from convkit.pipeline.artifact import gather
        from convkit.spec.tensor import DType, Interface, TensorSpec

        (folder / name).write_bytes(data)
        for dtype in (DType.FLOAT32, DType.INT64, DType.STRING):
            spec = TensorSpec(name="x", dtype=dtype, dims=("batch", 4))
            with contextlib.suppress(ConvkitError):
                make_cases(Interface(inputs=(spec,), outputs=(spec,), max_batch_size=8), gather(folder, [name]))


def _spoil_npy(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Spoil the header's text, or any byte."""
    end = data.find(b"\n") + 1
    if not end or chance.random() < 0.3:
        return spoil(chance, data, others)
    header = spoil_text(chance, data[10:end], others)
    return data[:8] + len(header).to_bytes(4, "little")[:2] + header + data[end:]


KINDS: dict[str, type[Kind]] = {
    "config": ConfigTxt,
    "recipe": Recipes,
    "onnx": OnnxFiles,
    "convert": Conversions,
    "checkpoint": Checkpoints,
    "manifest": Manifests,
    "samples": Samples,
}
