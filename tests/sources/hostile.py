"""Files that run code when they are loaded, in every form that torch reads. The code makes a folder: the canary."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001


class MakesFolder:
    """Unpickling an instance makes a folder."""

    def __init__(self, canary: Path) -> None:
        self.canary = str(canary)

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.canary,)


def plain_pickle(canary: Path) -> bytes:
    """Protocol 2: the function's name stands in one GLOBAL opcode."""
    return pickle.dumps({"weight": MakesFolder(canary)}, protocol=2)


def stack_global(canary: Path) -> bytes:
    """Protocol 4: module and name are strings on the stack."""
    return pickle.dumps({"weight": MakesFolder(canary)}, protocol=4)


def text(value: str) -> bytes:
    """SHORT_BINUNICODE."""
    data = value.encode()
    return b"\x8c" + bytes([len(data)]) + data


def call(canary: Path) -> bytes:
    """One argument, a tuple of it, and the call."""
    return text(str(canary)) + b"\x85R."


def memoized_strings(canary: Path) -> bytes:
    """Module and name are memoized, dropped, hidden behind harmless ones, and fetched again."""
    return (
        b"\x80\x04"
        + (text("posix") + b"\x940")  # memo 0, dropped
        + (b"}\x94" + b"0")  # memo 1 is a dict, which moves every later number
        + (text("mkdir") + b"\x940")  # memo 2, dropped
        + (text("torch.nn.modules.linear") + b"\x940" + text("Linear") + b"\x940")
        + (b"h\x00h\x02\x93")  # what is called: memo 0, memo 2
        + call(canary)
    )


def dropped_strings(canary: Path) -> bytes:
    """The last strings pushed before the name is looked up are harmless ones, which are popped off again."""
    return (
        b"\x80\x04"
        + (text("posix") + text("mkdir"))
        + (text("torch.nn.modules.linear") + text("Linear") + b"00")
        + b"\x93"
        + call(canary)
    )


def overwritten_memo(canary: Path) -> bytes:
    """A memo slot that held a harmless string is given another one by number."""
    return (
        b"\x80\x04"
        + (text("torch.nn.modules.linear") + b"q\x070" + text("posix") + b"r\x07\x00\x00\x000")  # BINPUT, LONG_BINPUT
        + (b"h\x07" + text("mkdir") + b"\x93")
        + call(canary)
    )


def doubled_string(canary: Path) -> bytes:
    """DUP: the module's name stands once in the file and twice on the stack."""
    return b"\x80\x04" + text("posix") + b"2" + b"0" + text("mkdir") + b"\x93" + call(canary)


def through_a_module_class(canary: Path) -> bytes:
    """A dotted name, which reaches through one of torch's own modules into what that imports."""
    return b"\x80\x04" + text("torch.nn.modules.module") + text("torch.os.mkdir") + b"\x93" + call(canary)


def inst_opcode(canary: Path) -> bytes:
    """An INST opcode of protocol 0, whose name and module stand on lines of their own."""
    return b"(S'" + str(canary).encode() + b"'\niposix\nmkdir\n."


def second_pickle_in_one_file(canary: Path) -> bytes:
    """A harmless pickle with the hostile one behind it, as torch's old format has several in one file."""
    return pickle.dumps(MAGIC_NUMBER, protocol=2) + pickle.dumps(PROTOCOL_VERSION, protocol=2) + plain_pickle(canary)


PICKLES = {
    form.__name__.replace("_", " "): form
    for form in (
        plain_pickle,
        stack_global,
        memoized_strings,
        dropped_strings,
        overwritten_memo,
        doubled_string,
        through_a_module_class,
        inst_opcode,
    )
}


def in_zip(data: bytes) -> bytes:
    """The archive that torch.save writes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return buffer.getvalue()


def in_legacy_file(data: bytes) -> bytes:
    """torch's format before 1.6: magic number, protocol, system, object, storage keys."""
    system = {"protocol_version": PROTOCOL_VERSION, "little_endian": True, "type_sizes": {}}
    head = [pickle.dumps(part, protocol=2) for part in (MAGIC_NUMBER, PROTOCOL_VERSION, system)]
    return b"".join((*head, data, pickle.dumps([], protocol=2)))


def in_tar(data: bytes) -> bytes:
    """torch's format before 0.1.10."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo("storages")  # the first of three members
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def bare(data: bytes) -> bytes:
    """A pickle and nothing around it."""
    return data


WRAPPINGS = {"zip": in_zip, "legacy": in_legacy_file, "tar": in_tar, "raw pickle": bare}


def zip_behind_a_prefix(data: bytes) -> bytes:
    """A legacy file for torch, which reads from the front, and a harmless zip for whoever reads from the back."""
    harmless = in_zip(pickle.dumps({}, protocol=2))
    return in_legacy_file(data) + harmless


def little_endian(number: int) -> bytes:
    return struct.pack("<I", number)
