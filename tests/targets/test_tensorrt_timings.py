"""TensorRT's timings are kept, for each GPU and version, and nothing that one build adds is lost to another.

The timing cache itself is a stand-in: a real one wants a GPU. Folders, processes and signals are real.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from convkit.errors import MissingError
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import Event
from convkit.pipeline.kept import TIMINGS, kept, kept_folder
from convkit.pipeline.runner import Runner
from convkit.pipeline.step import step
from convkit.targets.cuda_driver import Gpu
from convkit.targets.trt_timings import kept_timings, timings_folder
from targets import fake_timings
from targets.fake_timings import FakeConfig, build
from targets.tensorrt_networks import warnings_of

L4 = Gpu(name="NVIDIA L4", compute_capability="8.9", cuda="13.0")
H200 = Gpu(name="NVIDIA H200", compute_capability="9.0", cuda="13.0")


def test_timings_lie_by_gpu_and_version(tmp_path: Path) -> None:
    folders = {timings_folder(tmp_path, gpu, version) for gpu in (L4, H200) for version in ("10.16.1.11", "11.4.0.106")}

    assert len(folders) == 4
    assert tmp_path / "NVIDIA-L4-8.9-tensorrt-11.4.0.106" in folders


def test_there_is_nothing_to_keep_without_a_gpu_or_a_place(tmp_path: Path) -> None:
    assert timings_folder(tmp_path, None, "11.4") is None
    assert timings_folder(None, L4, "11.4") is None
    config = FakeConfig()
    with kept_timings(config, None):  # type: ignore[arg-type]
        assert config.cache is None


def test_a_build_begins_with_what_earlier_ones_measured(tmp_path: Path) -> None:
    folder = tmp_path / "gpu"

    assert build(folder, "conv") == set()
    assert build(folder, "gemm") == {"conv"}
    assert build(folder) == {"conv", "gemm"}
    assert len(list(folder.iterdir())) == 1, "the last one holds all"


def test_two_builds_at_once_lose_nothing_of_each_other(tmp_path: Path) -> None:
    first, second = FakeConfig(), FakeConfig()
    with kept_timings(first, tmp_path):  # type: ignore[arg-type]
        with kept_timings(second, tmp_path):  # type: ignore[arg-type]
            assert first.cache is not None
            assert second.cache is not None
            second.cache.names.add("second")
        first.cache.names.add("first")

    assert build(tmp_path) == {"first", "second"}
    assert len(list(tmp_path.iterdir())) == 1


def test_several_processes_that_build_again_and_again_lose_nothing(tmp_path: Path) -> None:
    names = [[f"{process}-{number}" for number in range(10)] for process in range(4)]
    program = [sys.executable, fake_timings.__file__, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    running = [subprocess.Popen([*program, *each], env=environment) for each in names]

    assert [process.wait(60) for process in running] == [0, 0, 0, 0]
    assert build(tmp_path) == {name for each in names for name in each}


def stop_in_the_middle(folder: Path) -> None:
    config = FakeConfig()
    with kept_timings(config, folder):  # type: ignore[arg-type]
        assert config.cache is not None
        config.cache.names.add("conv")
        raise KeyboardInterrupt


def test_a_build_that_is_stopped_keeps_what_it_has_measured(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        stop_in_the_middle(tmp_path)

    assert build(tmp_path) == {"conv"}


def test_a_file_that_is_damaged_is_dropped(tmp_path: Path) -> None:
    build(tmp_path, "conv")
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1])

    assert build(tmp_path, "gemm") == set()
    assert not path.exists()


def test_timings_of_another_gpu_that_got_there_are_left_alone(tmp_path: Path) -> None:
    other = FakeConfig("another")
    with kept_timings(other, tmp_path):  # type: ignore[arg-type]
        assert other.cache is not None
        other.cache.names.add("theirs")
    [theirs] = tmp_path.iterdir()

    assert build(tmp_path, "ours") == set()
    assert build(tmp_path) == {"ours"}
    assert theirs.exists()


def test_a_builder_that_refuses_its_timings_builds_all_the_same(tmp_path: Path, happened: list[Event]) -> None:
    config = FakeConfig(takes=False)
    with kept_timings(config, tmp_path):  # type: ignore[arg-type]
        pass

    assert warnings_of(happened) == ["tensorrt.timings"]


def test_a_folder_that_cannot_be_written_costs_time_and_not_the_build(tmp_path: Path, happened: list[Event]) -> None:
    place = tmp_path / "file"
    place.write_text("no folder", encoding="ascii")

    build(place / "gpu", "conv")

    assert warnings_of(happened) == ["tensorrt.timings"]


def test_the_folder_lies_in_the_cache_or_where_the_variable_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TIMINGS, raising=False)
    assert kept_folder("tensorrt", tmp_path) == tmp_path / "timings"
    assert kept_folder("torch", tmp_path) is None
    assert kept_folder("tensorrt-rtx", tmp_path) is None

    monkeypatch.setenv(TIMINGS, str(tmp_path / "volume"))
    assert kept_folder("tensorrt", tmp_path) == tmp_path / "volume"
    assert (tmp_path / "volume").is_dir()

    (tmp_path / "file").touch()
    monkeypatch.setenv(TIMINGS, str(tmp_path / "file" / "in it"))
    with pytest.raises(MissingError, match="CONVKIT_TIMING_CACHE"):
        kept_folder("tensorrt", tmp_path)


@step(version=1, stage="compile", title="Keep something", needs="tensorrt")
def keep_something(name: str) -> str:
    """Build once with the stand-in, in whatever folder the worker was given."""
    folder = kept()
    assert folder is not None
    build(folder / "gpu", name)
    try:
        (folder.parent / "elsewhere").write_text("x", encoding="ascii")
    except OSError:
        return f"{folder} and nowhere else"
    return f"{folder} and elsewhere too"


def test_a_worker_of_tensorrt_may_write_there_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = tmp_path / "volume"
    monkeypatch.setenv(TIMINGS, str(volume))

    with Runner(Cache(tmp_path / "cache"), observer=lambda _: None) as run:
        said = [run(keep_something, name) for name in ("conv", "gemm")]

    assert build(volume / "gpu") == {"conv", "gemm"}
    assert said[0] == f"{volume} and nowhere else"
