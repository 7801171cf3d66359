"""What the machine did meanwhile is read from the system, and is unknown where the system is silent."""

from __future__ import annotations

from pathlib import Path

import pytest

from convkit import timing
from convkit.measure.conditions import Conditions, conditions, read_moment


def machine(root: Path, *, load: str, ticks: str, clocks: tuple[int, ...] = (), governor: str = "ondemand") -> Path:
    (root / "proc").mkdir(parents=True, exist_ok=True)
    (root / "proc/loadavg").write_text(f"{load} 0.10 0.20 1/200 1234\n")
    (root / "proc/stat").write_text(f"cpu  {ticks}\ncpu0 1 2 3\n")
    for number, clock in enumerate(clocks):
        folder = root / f"sys/devices/system/cpu/cpu{number}/cpufreq"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "scaling_cur_freq").write_text(f"{clock}\n")
        (folder / "scaling_governor").write_text(f"{governor}\n")
    return root


def test_load_clock_governor_and_stolen_time_are_read(tmp_path: Path) -> None:
    before = machine(
        tmp_path / "1",
        load="0.25",
        ticks="100 0 100 700 0 0 0 100 50 0",
        clocks=(2_000_000, 2_500_000),
        governor="ondemand",
    )
    after = machine(
        tmp_path / "2",
        load="1.50",
        ticks="150 0 150 750 0 0 0 150 50 0",
        clocks=(3_000_000, 1_900_000),
        governor="ondemand",
    )

    found = conditions([read_moment(before), read_moment(after)])

    assert found == Conditions(
        load_before=0.25, load_after=1.5, mhz_low=1900, mhz_high=3000, governor="ondemand", stolen=0.25
    )


def test_the_clock_is_that_of_cpuinfo_where_the_system_has_no_governor(tmp_path: Path) -> None:
    root = machine(tmp_path, load="0.5", ticks="1 2 3 4 5 6 7 8")
    (root / "proc/cpuinfo").write_text("processor : 0\ncpu MHz\t\t: 2596.1\nprocessor : 1\ncpu MHz\t\t: 2400.0\n")

    moment = read_moment(root)

    assert (moment.mhz, moment.governor) == ((2400.0, 2596.1), None)


@pytest.mark.parametrize("moments", [0, 1, 2])
def test_a_system_that_says_nothing_leaves_everything_unknown(tmp_path: Path, moments: int) -> None:
    assert conditions([read_moment(tmp_path)] * moments) == Conditions()


def test_a_load_that_cannot_be_convkits_own_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "cores", lambda: 2)

    assert [timing.busy(load) for load in (None, 0.5, 6.0, 6.1)] == [False, False, False, True]
