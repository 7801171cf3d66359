"""What a worker gives up before it imports anything: writing outside its scratch space, and the network.

Both are asked of the kernel and last as long as the process and everything that it starts. Where the system does not
let a process give them up, such as in a container whose seccomp filter forbids it, `HELD` says so.

Landlock: https://docs.kernel.org/userspace-api/landlock.html. Namespaces: unshare(2), user_namespaces(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

from convkit.pipeline import events

HELD: dict[str, bool] = {}
"""In a worker: whether ``writes`` are confined, and whether the ``network`` is out of reach."""

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000

_WRITE_FILE, _REFER, _TRUNCATE = 1 << 1, 1 << 13, 1 << 14
_MAKE_AND_REMOVE = sum(1 << bit for bit in range(4, 13))  # remove a directory or file; make any kind of node


class _Ruleset(ctypes.Structure):
    _fields_ = (("handled_access_fs", ctypes.c_uint64),)


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def confine_writes(folders: Sequence[Path]) -> bool:
    """Let this process, which has no other thread yet, write below these folders alone; tell whether that holds."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    if version < 1:
        return False
    access = _WRITE_FILE | _MAKE_AND_REMOVE | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    ruleset = _Ruleset(access)
    descriptor = libc.syscall(_CREATE_RULESET, ctypes.byref(ruleset), ctypes.sizeof(ruleset), 0)
    if descriptor < 0:
        return False
    try:
        for folder in folders:
            if not _allow(libc, descriptor, folder, access):
                return False
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        return bool(libc.syscall(_RESTRICT_SELF, descriptor, 0) == 0)
    finally:
        os.close(descriptor)


def _allow(libc: ctypes.CDLL, ruleset: int, folder: Path, access: int) -> bool:
    try:
        parent = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return True  # what is not there needs no permission
    try:
        rule = _PathBeneath(access, parent)
        return bool(libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0) == 0)
    finally:
        os.close(parent)


def leave_network() -> bool:
    """Move this process, which has no other thread yet, where there is no network; tell whether the system does it.

    Its user stays who it was, outside as inside.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return False
    libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # /proc/self stays readable to itself
    with contextlib.suppress(OSError):  # without the maps it runs as nobody, with the same rights to its files
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    return True


def can_confine_writes() -> bool:
    """Tell whether this system has Landlock; nothing is given up."""
    return bool(ctypes.CDLL(None, use_errno=True).syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG) >= 1)


def can_leave_network() -> bool:
    """Tell whether this system lets a process leave the network, by a child that tries it and ends."""
    child = os.fork()
    if child == 0:
        held = False
        try:
            held = leave_network()
        finally:
            os._exit(0 if held else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


SWITCH = "CONVKIT_ISOLATION"
"""An environment variable: ``off`` leaves workers as free as the user who started them."""


def isolate(*folders: Path) -> None:
    """Give up the network and writing outside `folders` and the devices, and note in `HELD` what could be given up."""
    if os.environ.get(SWITCH) == "off":
        HELD.update(network=False, writes=False)
        return
    HELD["network"] = leave_network()
    HELD["writes"] = confine_writes([*folders, Path("/dev")])


OF_THIS_MACHINE = "isolation."
"""How the codes of warnings begin that hold for the machine where the code ran: no result is remembered with them."""


def warn_of_reach() -> None:
    """Say, in a worker that is about to run a user's code, what that could reach; nothing where it is cut off."""
    if reach := missing():
        events.warn("isolation.partial", f"this system lets code under trust {reach}: it is not shut in")


def missing() -> str | None:
    """Say, in a worker, what code that runs here could reach; None where it is cut off, or was to be left free."""
    if not HELD or os.environ.get(SWITCH) == "off":
        return None
    reach = [
        what
        for held, what in (("writes", "write wherever this user may"), ("network", "use the network"))
        if not HELD[held]
    ]
    return " and ".join(reach) or None
