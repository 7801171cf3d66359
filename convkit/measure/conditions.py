"""What the machine was doing while it was measured: load, clock, and what its host took away.

proc_loadavg(5), proc_stat(5); https://docs.kernel.org/admin-guide/pm/cpufreq.html for the governor and the clock.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from convkit.pipeline.step import observation

_ROOT = Path("/")


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """The machine at one moment. None stands for what the system does not tell."""

    load: float | None
    """Runnable and waiting processes, averaged over the last minute."""
    mhz: tuple[float, float] | None
    """The slowest and the fastest core's clock."""
    governor: str | None
    """How the system chooses the clock: ``performance``, ``powersave`` and so on."""
    ticks: int | None
    """Time of all cores since the machine started, in the kernel's ticks."""
    stolen: int | None
    """How much of it the host gave to other guests."""


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """The machine during a measurement. None stands for what the system does not tell."""

    load_before: float | None = None
    """Runnable and waiting processes in the minute before."""
    load_after: float | None = None
    """The same at the end, the measurement's own threads included."""
    mhz_low: float | None = None
    mhz_high: float | None = None
    """The lowest and the highest clock seen in any round, in MHz."""
    governor: str | None = None
    stolen: float | None = None
    """Share of the machine's time that the host gave to other guests."""


@observation(version=1, stage="measure", title="Look at the machine", needs="onnx")
def look_at_the_machine() -> Moment:
    """Read what the system tells of the machine's load, clock and stolen time."""
    return read_moment(_ROOT)


def read_moment(root: Path) -> Moment:
    """Read a moment; `root` is the folder that has ``proc`` and ``sys``, another than ``/`` in tests."""
    load = _text(root / "proc/loadavg").split()
    frequencies = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq"))
    clocks = [int(text) / 1000 for folder in frequencies if (text := _text(folder / "scaling_cur_freq")).isdigit()]
    clocks = clocks or [
        float(line.partition(":")[2])
        for line in _text(root / "proc/cpuinfo").splitlines()
        if line.startswith("cpu MHz")
    ]
    governors = {text for folder in frequencies if (text := _text(folder / "scaling_governor"))}
    first = _text(root / "proc/stat").partition("\n")[0].split()[1:]
    ticks = [int(text) for text in first if text.isdigit()][:8]  # guest time is counted in user time already
    return Moment(
        load=float(load[0]) if load else None,
        mhz=(min(clocks), max(clocks)) if clocks else None,
        governor=", ".join(sorted(governors)) or None,
        ticks=sum(ticks) if len(ticks) == 8 else None,
        stolen=ticks[7] if len(ticks) == 8 else None,
    )


def conditions(moments: Sequence[Moment]) -> Conditions:
    """Sum up moments from before the first round to the last one."""
    if not moments:
        return Conditions()
    first, last = moments[0], moments[-1]
    clocks = [clock for moment in moments for clock in moment.mhz or ()]
    stolen = None
    if None not in (first.ticks, last.ticks, first.stolen, last.stolen) and last.ticks != first.ticks:
        stolen = (last.stolen - first.stolen) / (last.ticks - first.ticks)  # type: ignore[operator]
    return Conditions(
        load_before=first.load,
        load_after=last.load,
        mhz_low=min(clocks, default=None),
        mhz_high=max(clocks, default=None),
        governor=first.governor,
        stolen=stolen,
    )


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").strip()
    return ""
