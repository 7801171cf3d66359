"""What this process may use of the machine: processors and memory, as affinity and control groups allow.

Both kinds of control group are read, and every group above this process's own that can be seen from here.
cgroups(7); https://docs.kernel.org/admin-guide/cgroup-v2.html for ``cpu.max`` and ``memory.max``,
https://docs.kernel.org/admin-guide/cgroup-v1/memory.html for ``memory.limit_in_bytes``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

_ROOT = Path("/")
_V2 = "cgroup2"


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """An amount of memory, and whose it is."""

    bytes: int
    owner: str
    """``the machine``, or ``the control group /...``."""


def memory(root: Path = _ROOT) -> Memory:
    """Return the memory that this process may use: the machine's, or the least that one of its control groups has.

    Args:
        root: the folder that has ``proc`` and the control groups; another than ``/`` in tests.
    """
    found = [Memory(bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), owner="the machine")]
    for name, group in _groups("memory", root):
        number = _read(group / "memory.max") or _read(group / "memory.limit_in_bytes")
        if number.isdigit() and int(number) > 0:
            found.append(Memory(bytes=int(number), owner=f"the control group {name}"))
    return min(found, key=lambda each: each.bytes)


def cores(root: Path = _ROOT) -> int:
    """Return the number of processors that this process may use: affinity, then its control groups' quotas."""
    available = len(os.sched_getaffinity(0))
    for _, group in _groups("cpu", root):
        version_2 = _read(group / "cpu.max").split()
        quota, period = version_2 or (_read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us"))
        if quota.isdigit() and period.isdigit() and int(period):
            available = min(available, int(quota) // int(period))
    return max(1, available)


def threads() -> int | None:
    """Return how many threads a library is to start where its own default would be too many; else None.

    Most count the processors that they see, whatever a control group's quota leaves of them.
    """
    allowed = cores()
    return allowed if allowed < (os.cpu_count() or allowed) else None


THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)


def thread_variables() -> dict[str, str]:
    """Return the environment variables that hold libraries to `threads`; what the user has set stays."""
    allowed = threads()
    return {} if allowed is None else {name: str(allowed) for name in THREAD_VARIABLES if name not in os.environ}


def _groups(controller: str, root: Path) -> Iterator[tuple[str, Path]]:
    """Yield name and folder of this process's group, and of each above it, for a controller; of both versions."""
    for kinds, name in _memberships(root):
        is_v2 = kinds == [""]
        if not is_v2 and controller not in kinds:
            continue
        for mounted, top in _mounts(_V2 if is_v2 else controller, root):
            below = Path(os.path.relpath(name, mounted)) if Path(name).is_relative_to(mounted) else Path()
            group = top / below
            while not group.is_dir() and group != top:  # a process that was moved, or a mount of another container's
                group = group.parent
            yield from ((_name(each, top), each) for each in (group, *group.parents) if each.is_relative_to(top))


def _name(group: Path, top: Path) -> str:
    return "/" + group.relative_to(top).as_posix().removeprefix(".")


def _memberships(root: Path) -> Iterator[tuple[list[str], str]]:
    """Yield the controllers and the path of each group that this process is in; no controller: version 2."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        yield controllers.split(","), path


def _mounts(controller: str, root: Path) -> Iterator[tuple[str, Path]]:
    """Yield, for each mount of a controller's hierarchy, which group is mounted and where; see proc(5), mountinfo."""
    for line in _read(root / "proc/self/mountinfo").splitlines():
        place, _, kind = line.partition(" - ")
        fields, (filesystem, _, options) = place.split(), kind.split(" ", 2)
        if filesystem == controller == _V2 or (filesystem == "cgroup" and controller in options.split(",")):
            yield _unescaped(fields[3]), root / _unescaped(fields[4]).lstrip("/")


def _unescaped(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
