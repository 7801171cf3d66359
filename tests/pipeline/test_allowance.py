"""What a container may use: read from control groups of both versions, as they lie in real containers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from convkit.pipeline.allowance import Memory, cores, memory
from pipeline.control_groups import JOIN, control_group

GIB = 2**30
INSTALLED = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
VISIBLE = len(os.sched_getaffinity(0))
V2 = "31 24 0:28 / /sys/fs/cgroup ro,nosuid shared:9 - cgroup2 cgroup rw,nsdelegate"


def fake_system(root: Path, *, groups: str, mounts: str, files: Mapping[str, object]) -> Path:
    """Lay down what a kernel shows of control groups."""
    laid = {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts}
    laid |= {f"sys/fs/cgroup/{name}": f"{content}\n" for name, content in files.items()}
    for name, content in laid.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def group_of(name: str, size: int) -> Memory:
    return Memory(bytes=size, owner=f"the control group {name}")


def test_without_control_groups_it_is_the_machine_s(tmp_path: Path) -> None:
    assert memory(tmp_path) == Memory(bytes=INSTALLED, owner="the machine")
    assert cores(tmp_path) == VISIBLE


def test_a_container_of_version_2_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    files = {"memory.max": GIB, "cpu.max": "100000 100000"}
    root = fake_system(tmp_path, groups="0::/\n", mounts=V2, files=files)

    assert memory(root) == group_of("/", GIB)
    assert cores(root) == 1


def test_no_limit_is_none(tmp_path: Path) -> None:
    files = {"memory.max": "max", "cpu.max": "max 100000"}
    root = fake_system(tmp_path, groups="0::/\n", mounts=V2, files=files)

    assert memory(root).owner == "the machine"
    assert cores(root) == VISIBLE


def test_a_group_is_held_to_those_above_it(tmp_path: Path) -> None:
    files = {
        "job.slice/memory.max": GIB,
        "job.slice/cpu.max": "50000 100000",
        "job.slice/step.scope/memory.max": "max",
        "job.slice/step.scope/cpu.max": "max 100000",
    }
    root = fake_system(tmp_path, groups="0::/job.slice/step.scope\n", mounts=V2, files=files)

    assert memory(root) == group_of("/job.slice", GIB)
    assert cores(root) == 1  # half a processor is one, and no less


def test_a_container_of_version_1_sees_its_group_s_path_outside(tmp_path: Path) -> None:
    mounts = (
        "40 30 0:33 /docker/4f /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
        "41 30 0:34 /docker/4f /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
    )
    groups = "9:memory:/docker/4f\n3:cpu,cpuacct:/docker/4f\n1:name=systemd:/docker/4f\n0::/system.slice\n"
    files = {
        "memory/memory.limit_in_bytes": GIB,
        "cpu,cpuacct/cpu.cfs_quota_us": 150000,
        "cpu,cpuacct/cpu.cfs_period_us": 100000,
    }
    root = fake_system(tmp_path, groups=groups, mounts=mounts, files=files)

    assert memory(root) == group_of("/", GIB)
    assert cores(root) == 1


def test_version_1_says_no_limit_with_a_large_number_and_with_minus_one(tmp_path: Path) -> None:
    mounts = (
        "40 30 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "41 30 0:34 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    )
    files = {"memory/memory.limit_in_bytes": 9223372036854771712, "cpu/cpu.cfs_quota_us": -1}
    root = fake_system(tmp_path, groups="4:memory:/\n1:cpu:/\n0::/\n", mounts=mounts, files=files)

    assert memory(root).owner == "the machine"
    assert cores(root) == VISIBLE


def test_a_group_that_cannot_be_seen_from_here_counts_as_the_nearest_that_can(tmp_path: Path) -> None:
    groups = "0::/../../other/container\n"
    root = fake_system(tmp_path, groups=groups, mounts=V2, files={"memory.max": GIB})

    assert memory(root) == group_of("/", GIB)


@pytest.fixture
def one_processor() -> Iterator[Path]:
    quota = ("cpu", "cpu.cfs_quota_us", "100000")
    with control_group(version_1=quota, version_2=("cpu.max", "100000 100000")) as group:
        yield group


IN_GROUP = f"""{JOIN}from convkit.pipeline.cache import Cache
from convkit.pipeline.runner import Runner
from pipeline.greedy_steps import count_threads
with Runner(Cache(Path(sys.argv[2])), lambda event: None) as run:
    print(*run(count_threads))
"""


@pytest.mark.skipif(VISIBLE < 2, reason="one processor is all there is")
def test_frameworks_start_no_more_threads_than_the_quota_lets_run(one_processor: Path, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", IN_GROUP, str(one_processor), str(tmp_path / "cache")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )

    assert ended.stdout.split() == ["1", "1", "1", "1"]
