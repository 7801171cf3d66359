"""Every file-system call of a process, counted and made to fail: seccomp's user notification, seccomp_unotify(2).

A child process hands each of its file-system calls to this one before the kernel carries it out. Here they are counted,
and one of them is answered with an error, is cut short, or is the child's last: nothing between Python and the kernel
is left out, and nothing is stood in for. It needs no rights; where a container forbids it, tests are skipped.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import pickle
import platform
import select
import signal
import socket
import struct
import traceback
from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import NamedTuple

import pytest

from convkit.errors import ConvkitError

NUMBERS = {
    "x86_64": {
        "read": 0, "write": 1, "open": 2, "stat": 4, "lstat": 6, "pread64": 17, "pwrite64": 18, "writev": 20,
        "access": 21, "sendfile": 40, "flock": 73, "fsync": 74, "fdatasync": 75, "truncate": 76, "ftruncate": 77,
        "getdents": 78, "rename": 82, "mkdir": 83, "rmdir": 84, "creat": 85, "link": 86, "unlink": 87, "symlink": 88,
        "readlink": 89, "chmod": 90, "fchmod": 91, "chown": 92, "fchown": 93, "lchown": 94, "utime": 132,
        "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190, "getxattr": 191, "lgetxattr": 192, "listxattr": 194,
        "llistxattr": 195, "getdents64": 217, "utimes": 235, "openat": 257, "mkdirat": 258, "newfstatat": 262,
        "unlinkat": 263, "renameat": 264, "linkat": 265, "symlinkat": 266, "readlinkat": 267, "fchmodat": 268,
        "faccessat": 269, "utimensat": 280, "renameat2": 316, "copy_file_range": 326, "statx": 332, "ioctl": 16,
        "openat2": 437, "faccessat2": 439,
    },
    "aarch64": {
        "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "getxattr": 8, "lgetxattr": 9, "listxattr": 11, "llistxattr": 12,
        "ioctl": 29, "flock": 32, "mkdirat": 34, "unlinkat": 35, "symlinkat": 36, "linkat": 37, "renameat": 38,
        "truncate": 45, "ftruncate": 46, "faccessat": 48, "fchmod": 52, "fchmodat": 53, "fchownat": 54, "fchown": 55,
        "openat": 56, "getdents64": 61, "read": 63, "write": 64, "writev": 66, "pread64": 67,
        "pwrite64": 68, "sendfile": 71, "readlinkat": 78, "newfstatat": 79, "fsync": 82, "fdatasync": 83,
        "utimensat": 88, "renameat2": 276, "copy_file_range": 285, "statx": 291, "openat2": 437, "faccessat2": 439,
    },
}.get(platform.machine(), {})  # fmt: skip
NAMES = {number: name for name, number in NUMBERS.items()}
_SECCOMP = {"x86_64": 317, "aarch64": 277}.get(platform.machine(), 0)
_PIDFD_GETFD = 438

_OPENS = {"open": 1, "openat": 2}
"""Calls that open a file, and which of their arguments holds the flags."""
_STORES = (
    *("write", "pwrite64", "writev", "sendfile", "copy_file_range", "creat", "mkdir", "mkdirat", "link", "linkat"),
    *("symlink", "symlinkat", "setxattr", "lsetxattr", "fsetxattr"),
)
"""Calls that a disk without a free block refuses, besides those that make a file."""
_MAY_STORE = ("rename", "renameat", "renameat2", "fsync", "fdatasync", "ftruncate", "truncate")
"""Those that it may refuse: a name goes into a folder, or what was stored before is flushed."""
_CHANGES = (
    *("rmdir", "unlink", "unlinkat", "chmod", "fchmod", "fchmodat", "chown", "fchown", "lchown", "fchownat"),
    *("utime", "utimes", "utimensat", "flock", "ioctl"),
)
"""Those that change something and take no space."""
_CUT_SHORT = ("write", "copy_file_range", "sendfile")


class How(Enum):
    """What becomes of the call whose turn it is.

    To be killed before a call that only reads is to be killed before the next that changes something: those do not
    count. Nor does close(2) at all: Linux closes a descriptor whatever it answers, and what was flushed before has
    nothing left to report.
    """

    KILLED = "killed"
    EIO = "EIO"
    ENOSPC = "ENOSPC"
    FULL = "full from there on"
    SHORT = "cut short"


class Raised(NamedTuple):
    """What an act raised, as the user sees it; a status of None: nothing that convkit raises on purpose."""

    text: str
    status: int | None
    code: str
    hint: str


class Ended(NamedTuple):
    """How the child ended: what its act raised, if anything; the call whose turn it was, None if none had its turn."""

    raised: Raised | None
    call: str | None


class _Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


_NOTICE = struct.Struct("=QIIiIQ6Q")  # struct seccomp_notif
_ANSWER = struct.Struct("=QqiI")  # struct seccomp_notif_resp
_RECEIVE = 0xC0502100
_SEND = 0xC0182101
_SET_FLAGS = 0x40082104
_SYNCHRONOUS = 1
_CONTINUE = 1
_libc = ctypes.CDLL(None, use_errno=True)


def fail_at(moment: int, how: How, act: Callable[[], object]) -> Ended:
    """Run `act` in a child, and let its file-system call number `moment` fail; only those count that can fail so."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        _be_child(theirs, how, act)
    theirs.close()
    with ours:
        _, (listener,), _, _ = socket.recv_fds(ours, 1, 1)
        try:
            call = _Supervisor(child, listener, moment, how).run(ours)
        finally:
            os.close(listener)
        killed = how is How.KILLED and call is not None
        data = b"" if killed else b"".join(iter(lambda: ours.recv(1 << 16), b""))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == (-signal.SIGKILL if killed else 0)
    return Ended(None if killed else pickle.loads(data), call)


def _be_child(parent: socket.socket, how: How, act: Callable[[], object]) -> None:
    """Send this process's listener to the parent, act, and send what came of it."""
    status = 1
    try:
        listener = _install([NUMBERS[name] for name in _counted(how)])
        socket.send_fds(parent, [b"x"], [listener])
        raised = None
        try:
            act()
        except ConvkitError as error:
            raised = Raised(str(error), int(error.exit_status), error.code, error.hint)
        except Exception as error:  # noqa: BLE001 - the parent judges
            raised = Raised("".join(traceback.format_exception(error)), None, "", "")
        parent.sendall(pickle.dumps(raised))
        status = 0
    finally:
        os._exit(status)


class _Supervisor:
    def __init__(self, child: int, listener: int, moment: int, how: How) -> None:
        self._child = child
        self._listener = listener
        self._left = moment
        self._how = how
        self._call: str | None = None
        self._buffer = bytearray(_NOTICE.size)

    def run(self, results: socket.socket) -> str | None:
        """Answer every call until the child reports or dies; return the call whose turn it was."""
        with contextlib.suppress(OSError):  # a younger kernel changes over to the child at once
            fcntl.ioctl(self._listener, _SET_FLAGS, _SYNCHRONOUS)
        waiting = select.poll()
        waiting.register(self._listener, select.POLLIN)
        waiting.register(results, select.POLLIN)
        while True:
            ready = dict(waiting.poll(30_000))
            assert ready, "the child hangs"
            if self._listener not in ready:
                return self._call
            if not self._answer_next():
                return self._call

    def _answer_next(self) -> bool:
        self._buffer[:] = bytes(_NOTICE.size)
        try:
            fcntl.ioctl(self._listener, _RECEIVE, self._buffer)
        except OSError:  # the child has gone
            return False
        identity, _, _, number, _, _, *arguments = _NOTICE.unpack(self._buffer)
        name = NAMES[number]
        value, error, flags = 0, 0, _CONTINUE
        if self._has_its_turn(name, arguments):
            if self._call is None:
                self._call = name
            if self._how is How.KILLED:
                os.kill(self._child, signal.SIGKILL)
                return False
            if self._how is How.SHORT:
                value, flags = self._do_a_part(name, arguments), 0
            else:
                error, flags = (-5 if self._how is How.EIO else -28), 0
        fcntl.ioctl(self._listener, _SEND, _ANSWER.pack(identity, value, error, flags))
        return True

    def _has_its_turn(self, name: str, arguments: list[int]) -> bool:
        if not _counts(name, arguments, self._how):
            return False
        self._left -= 1
        return self._left == 0 or (self._left < 0 and self._how is How.FULL)

    def _do_a_part(self, name: str, arguments: list[int]) -> int:
        """Carry out the first half of a call in the child's stead; return how many bytes that were."""
        process = os.pidfd_open(self._child)
        try:
            if name == "write":
                target, address, length = arguments[:3]
                with open(f"/proc/{self._child}/mem", "rb", buffering=0) as memory:
                    memory.seek(address)
                    data = memory.read((length + 1) // 2)
                with os.fdopen(_take(process, target), "wb", buffering=0) as file:
                    return file.write(data)
            source, target = arguments[0], arguments[2 if name == "copy_file_range" else 1]
            if name == "sendfile":
                source, target = target, source
            with os.fdopen(_take(process, source), "rb", buffering=0) as file:
                data = file.read(min(arguments[4 if name == "copy_file_range" else 3], 100))
            with os.fdopen(_take(process, target), "wb", buffering=0) as file:
                return file.write(data)
        finally:
            os.close(process)


def _counted(how: How) -> list[str]:
    """Return the calls that count; those that open a file only where they make it, but for EIO."""
    match how:
        case How.KILLED:
            names = [*_STORES, *_MAY_STORE, *_CHANGES, *_OPENS]
        case How.EIO:
            names = list(NUMBERS)
        case How.ENOSPC:
            names = [*_STORES, *_MAY_STORE, *_OPENS]
        case How.FULL:
            names = [*_STORES, *_OPENS]
        case How.SHORT:
            names = list(_CUT_SHORT)
    return [name for name in names if name in NUMBERS]


def _counts(name: str, arguments: list[int], how: How) -> bool:
    return how is How.EIO or name not in _OPENS or bool(arguments[_OPENS[name]] & os.O_CREAT)


def _take(process: int, descriptor: int) -> int:
    """Return a duplicate of another process's descriptor, with the same place in the file."""
    taken = _libc.syscall(_PIDFD_GETFD, process, descriptor, 0)
    if taken < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(taken)


def _install(numbers: list[int]) -> int:
    """Hand these calls of this thread to a listener from here on, and return it."""
    load, equal, give = 0x20, 0x15, 0x06  # classic BPF: load a word, jump if equal, return
    allow, notify = 0x7FFF0000, 0x7FC00000
    code = [struct.pack("=HBBI", load, 0, 0, 0)]
    code += [struct.pack("=HBBI", equal, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
    code += [struct.pack("=HBBI", give, 0, 0, allow), struct.pack("=HBBI", give, 0, 0, notify)]
    program = ctypes.create_string_buffer(b"".join(code))
    described = _Filter(len(code), ctypes.addressof(program))
    _libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    listener = _libc.syscall(_SECCOMP, 1, 8, ctypes.byref(described))  # SET_MODE_FILTER, NEW_LISTENER
    if listener < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(listener)


@cache
def unavailable() -> str | None:
    """Say why calls cannot be supervised here; None where they can."""
    if not NUMBERS:
        return f"the numbers of the system calls of {platform.machine()} are not known here"
    said = mmap.mmap(-1, 4)
    child = os.fork()
    if child == 0:
        try:
            _install([])
        except OSError as error:
            said[:4] = struct.pack("=i", error.errno)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    (number,) = struct.unpack("=i", said[:4])
    return os.strerror(number) if number else None


supervised = pytest.mark.skipif(unavailable() is not None, reason=f"no seccomp listener: {unavailable()}")
