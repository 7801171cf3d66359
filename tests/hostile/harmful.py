"""Files that harm by what they claim: sizes, paths, depths, names, and kinds of file without an end."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from onnx import TensorProto, helper
from sources.hostile import in_zip
from sources.onnx_files import FLOAT, X, model, node, value, write
from spec.configs import DL_INFERENCE_EXAMPLE

from convkit.graph.wire import key, varint

HUGE = 2**62


class Harmful(NamedTuple):
    """A file, and how convkit refuses it."""

    name: str
    make: Callable[[Path], Path]
    code: str
    status: int = 3
    arguments: tuple[str, ...] = ()
    """More of the command line; ``FOLDER`` stands for the folder."""


# External data of ONNX


def external(**entries: object) -> Callable[[Path], Path]:
    """Return what writes an ONNX file whose weight lies where these entries say; w.bin is there."""

    def make(folder: Path) -> Path:
        (folder / "w.bin").write_bytes(bytes(48))
        proto = model()
        weight = proto.graph.initializer[0]
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        for name, text in entries.items():
            weight.external_data.add(key=name, value=str(text))
        return write(folder, proto)

    return make


def linked(target: str) -> Callable[[Path], Path]:
    """Return what writes an ONNX file whose external data are a link."""

    def make(folder: Path) -> Path:
        file = external(location="data.bin", length=48)(folder)
        (folder / "data.bin").symlink_to(target)
        return file

    return make


def fifo_data(folder: Path) -> Path:
    file = external(location="data.bin", length=48)(folder)
    os.mkfifo(folder / "data.bin")
    return file


# Sizes


def giant_input(*dims: int) -> Callable[[Path], Path]:
    return lambda folder: write(
        folder, model([node("Relu", ["x"], ["y"])], [value("x", FLOAT, dims)], [value("y", FLOAT, dims)], [])
    )


def giant_weight(dims: list[int]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        proto = model()
        proto.graph.initializer[0].dims[:] = dims
        return write(folder, proto)

    return make


def giant_inside(folder: Path) -> Path:
    """A graph of a few bytes that makes a tensor of 2^62 elements."""
    weights = [helper.make_tensor("s", TensorProto.INT64, [1], [HUGE])]
    nodes = [node("ConstantOfShape", ["s"], ["c"]), node("ReduceSum", ["c"], ["r"]), node("Add", ["x", "r"], ["y"])]
    return write(folder, model(nodes, [X], [value("y", FLOAT, ["N", 4])], weights))


def torch_file(content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "config.txt").write_text(DL_INFERENCE_EXAMPLE)
        (folder / "model.pth").write_bytes(content)
        return folder / "model.pth"

    return make


def deflated_zeros() -> bytes:
    """1 TB of zeros, said to be in a zip of 1 kB: the directory's numbers are not true, as in any bomb."""
    return _claiming(in_zip(pickle.dumps({}, protocol=2)), 1 << 31)


def _claiming(archive: bytes, size: int) -> bytes:
    """Let each member of an archive claim to unpack to `size` bytes."""
    data = bytearray(archive)
    at = data.find(b"PK\x01\x02")
    while at >= 0:
        data[at + 10 : at + 12] = struct.pack("<H", zipfile.ZIP_DEFLATED)
        data[at + 24 : at + 28] = struct.pack("<I", size)
        at = data.find(b"PK\x01\x02", at + 4)
    return bytes(data)


def overlapping() -> bytes:
    """Many members whose bytes are the same ones: 30 kB unpack to 10 GB (https://www.bamsoftware.com/hacks/zipbomb/)."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    kernel = compressor.compress(bytes(10 << 20)) + compressor.flush()
    name, crc = b"archive/data.pkl", zlib.crc32(bytes(10 << 20))
    head = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 8, 0, 33, crc, len(kernel), 10 << 20, len(name), 0)
    body = head + name + kernel
    entry = struct.pack(
        "<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 8, 0, 33, crc, len(kernel), 10 << 20, len(name), 0, 0, 0, 0, 0, 0
    )
    directory = (entry + name) * 1000
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1000, 1000, len(directory), len(body), 0)
    return body + directory + end


def samples(header: str, *, claimed: int | None = None) -> Callable[[Path], Path]:
    """Return what writes a clean ONNX file and samples whose one array has this header."""

    def make(folder: Path) -> Path:
        text = header.encode()
        array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(16)
        with zipfile.ZipFile(folder / "data.npz", "w") as archive:
            archive.writestr("x.npy", array)
        if claimed is not None:
            (folder / "data.npz").write_bytes(_claiming((folder / "data.npz").read_bytes(), claimed))
        return write(folder, model())

    return make


def sparse(name: str, size: int) -> Callable[[Path], Path]:
    """Return what makes a file of many bytes that takes no room."""

    def make(folder: Path) -> Path:
        file = write(folder, model())
        with (folder / name).open("wb") as stream:
            stream.truncate(size)
        return file

    return make


# Depths


def config_of(text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        file = write(folder, model())
        (folder / "config.txt").write_text(text)
        return file

    return make


def recipe_of(text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "recipe.toml").write_text(text)
        return write(folder, model())

    return make


def nested_pickle() -> bytes:
    return in_zip(b"\x80\x02" + b"(" * 100_000 + b"l" * 100_000 + b".")


def nested_subgraphs(folder: Path) -> Path:
    """A graph in a node in a graph in a node: deeper than any reader goes."""
    graph = b""
    for _ in range(2000):
        attribute = _field(1, b"then_branch") + _field(6, graph)  # numbers as in onnx.proto
        graph = _field(1, _field(4, b"If") + _field(5, attribute))
    (folder / "net.onnx").write_bytes(b"\x08\x0a" + _field(7, graph))
    return folder / "net.onnx"


def _field(number: int, data: bytes) -> bytes:
    return key(number) + varint(len(data)) + data


# Kinds of file, and links


def fifo(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        os.mkfifo(folder / name)
        return folder / name

    return make


def fifo_samples(folder: Path) -> Path:
    os.mkfifo(folder / "data.npz")
    return write(folder, model())


def device(folder: Path) -> Path:
    (folder / "net.onnx").symlink_to("/dev/zero")
    return folder / "net.onnx"


def loop(folder: Path) -> Path:
    (folder / "net").symlink_to("net")
    return folder / "net"


def loop_inside(folder: Path) -> Path:
    (folder / "net").mkdir()
    for name in ("again", "model.onnx"):
        (folder / "net" / name).symlink_to(folder / "net")
    return folder / "net"


def saved_model(folder: Path) -> Path:
    """The least that is found as a SavedModel: one graph, for serving."""
    (folder / "net" / "variables").mkdir(parents=True)
    tags = b"\x0a\x07\x22\x05serve"
    (folder / "net" / "saved_model.pb").write_bytes(b"\x08\x01\x12" + bytes([len(tags)]) + tags)
    return folder / "net"


def asset(name: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        found = saved_model(folder)
        described = b"\x12" + bytes([len(name)]) + name
        graph = b"\x0a\x07\x22\x05serve\x32" + bytes([len(described)]) + described
        (found / "saved_model.pb").write_bytes(b"\x08\x01\x12" + bytes([len(graph)]) + graph)
        return found

    return make


def saved_model_link(place: str, target: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        found = saved_model(folder)
        (found / place).symlink_to(target)
        return found

    return make


# Names


def named(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        file = write(folder, model())
        return file.rename(folder / name)

    return make


def _deep(brackets: int) -> str:
    return '{"batch_size": ' + "[" * brackets + "]" * brackets + "}"


SAMPLES = ("--samples", "FOLDER/data.npz")
RECIPE = ("--recipe", "FOLDER/recipe.toml")

HARMFUL = (
    Harmful("data in /etc/passwd", external(location="/etc/passwd", length=48), "source.external-data"),
    Harmful("data in ../", external(location="../../../../etc/passwd", length=48), "source.external-data"),
    Harmful("data in a/../..", external(location="a/../../../etc/passwd"), "source.external-data"),
    Harmful("data in /dev/zero", external(location="/dev/zero", length=48), "source.external-data"),
    Harmful("data at an offset of 2^62", external(location="w.bin", offset=HUGE, length=48), "source.invalid"),
    Harmful("data of 2^62 bytes", external(location="w.bin", offset=0, length=HUGE), "source.invalid"),
    Harmful("data at an offset of -1", external(location="w.bin", offset=-1, length=48), "source.invalid"),
    Harmful("data at an offset in words", external(location="w.bin", offset="x", length=48), "source.invalid"),
    Harmful("data in a file of no name", external(location=""), "source.external-data"),
    Harmful("data in its own folder", external(location="."), "source.external-data"),
    Harmful("data in a file with a NUL", external(location="w\0.bin"), "source.external-data"),
    Harmful("data in a file with a long name", external(location="w" * 5000), "source.external-data"),
    Harmful("data behind a link to /etc/passwd", linked("/etc/passwd"), "source.link"),
    Harmful("data behind a link to /dev/zero", linked("/dev/zero"), "source.link"),
    Harmful("data behind a link to itself", linked("data.bin"), "source.external-data"),
    Harmful("data in a pipe", fifo_data, "source.external-data"),
    Harmful("an input of 2^62 elements", giant_input(HUGE), "samples.too-large"),
    Harmful("an input of 2^64 elements", giant_input(2**32, 2**32), "samples.too-large"),
    Harmful("a weight of 2^62 elements", giant_weight([HUGE]), "source.invalid"),
    Harmful("a weight of 2^64 elements", giant_weight([2**32, 2**32]), "source.invalid"),
    Harmful("a weight of -1 elements", giant_weight([-1, -12]), "source.invalid"),
    Harmful("a tensor of 2^62 elements inside", giant_inside, "onnxruntime.failed", status=4),
    Harmful("a bomb of zeros", torch_file(deflated_zeros()), "source.unreadable"),
    Harmful("a bomb of overlapping members", torch_file(overlapping()), "source.unreadable"),
    Harmful(
        "samples of 1 TB",
        samples("{'descr': '<f4', 'fortran_order': False, 'shape': (250000000000, 4)}\n"),
        "data.unreadable",
        arguments=SAMPLES,
    ),
    Harmful(
        "samples that claim 1 TB",
        samples("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4)}\n", claimed=(1 << 32) - 2),
        "data.unreadable",
        arguments=SAMPLES,
    ),
    Harmful(
        "samples of a type that is code",
        samples("{'descr': __import__('os').system('true'), 'fortran_order': False, 'shape': (1, 4)}\n"),
        "data.unreadable",
        arguments=SAMPLES,
    ),
    Harmful(
        "samples of a deep type",
        samples("{'descr': " + "(" * 5000 + ")" * 5000 + "}\n"),
        "data.unreadable",
        arguments=SAMPLES,
    ),
    Harmful(
        "samples of a type without an end",
        samples("{'descr': [('a', '<f4', (" + "9" * 400 + ",))], 'fortran_order': False, 'shape': (1,)}\n"),
        "data.unreadable",
        arguments=SAMPLES,
    ),
    Harmful("samples in a pipe", fifo_samples, "data.missing", arguments=SAMPLES),
    Harmful("config.txt of 10 GB", sparse("config.txt", 10 << 30), "metadata.file"),
    Harmful("a recipe of 10 GB", sparse("recipe.toml", 10 << 30), "recipe.unreadable", arguments=RECIPE),
    Harmful("an ONNX file of 10 GB", sparse("net.onnx", 10 << 30), "source.unreadable"),
    Harmful("config.txt 10^5 deep", config_of(_deep(100_000)), "metadata.nesting"),
    Harmful("a recipe 10^5 deep", recipe_of("x = " + "[" * 100_000 + "]" * 100_000), "recipe.syntax", arguments=RECIPE),
    Harmful(
        "a recipe of 10^5 tables",
        recipe_of("[" + ".".join("a" * 100_000) + "]\nb = 1"),
        "recipe.nesting",
        arguments=RECIPE,
    ),
    Harmful(
        "a recipe of a dotted key", recipe_of(".".join("a" * 100_000) + " = 1"), "recipe.nesting", arguments=RECIPE
    ),
    Harmful("a recipe of a long number", recipe_of("x = " + "9" * 100_000), "recipe.syntax", arguments=RECIPE),
    Harmful("a recipe that extends a NUL", recipe_of('extends = "a\\u0000b"'), "path.impossible", arguments=RECIPE),
    Harmful("a recipe whose config has a NUL", recipe_of('config = "a\\u0000b"'), "path.impossible", arguments=RECIPE),
    Harmful("a recipe whose lock is long", recipe_of(f'locked = "{"x" * 5000}"'), "path.impossible", arguments=RECIPE),
    Harmful("a recipe whose name is a path", recipe_of('name = "../../x"'), "usage.name", status=2, arguments=RECIPE),
    Harmful("a pickle 10^5 deep", torch_file(nested_pickle()), "source.no-definition"),
    Harmful("a graph 2000 deep", nested_subgraphs, "source.unreadable"),
    Harmful("a pipe as ONNX file", fifo("net.onnx"), "source.no-file"),
    Harmful("a pipe as checkpoint", fifo("model.pth"), "source.no-file"),
    Harmful("an endless device", device, "source.no-file"),
    Harmful("a link to itself", loop, "source.missing"),
    Harmful("a folder of links to itself", loop_inside, "source.missing"),
    Harmful("an asset in ../", asset(b"../../../etc/passwd"), "source.reaches-out"),
    Harmful("an asset in /etc/passwd", asset(b"/etc/passwd"), "source.reaches-out"),
    Harmful("variables behind a link", saved_model_link("variables/variables.index", "/etc/passwd"), "source.link"),
    Harmful("assets behind a link to everything", saved_model_link("assets", "/"), "source.link"),
    Harmful("a file name with a line break", named("a\nb.onnx"), "usage.name", status=2),
    Harmful("a file name that hides", named("-.onnx"), "usage.name", status=2),
)
