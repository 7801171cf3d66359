"""A machine with TensorRT and a GPU that are made up: what the engine weighs, answers and takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convkit import building
from convkit.graph.model import Tensors
from convkit.measure.conditions import look_at_the_machine
from convkit.pipeline.artifact import gather
from convkit.pipeline.runner import StageRecord
from convkit.pipeline.stopwatch import Timing
from convkit.report.document import Report
from convkit.targets import trt_make
from convkit.targets.build_plan import read_build_plan
from convkit.targets.cuda_driver import Gpu
from convkit.targets.here import Here
from convkit.targets.trt_api import Flavour
from convkit.targets.trt_build import Engine

ENGINE_BYTES = 5000
GPU = Gpu(name="NVIDIA Fake", compute_capability="8.9", cuda="13.2")


class RunnerInPlace:
    """Calls the stand-ins for steps where they are, and answers every measurement with made-up rounds."""

    def __init__(self, call_ms: float) -> None:
        self.call_ms = call_ms
        self.stages: list[Any] = []
        self.warnings: list[Any] = []

    def __enter__(self) -> RunnerInPlace:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, step: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        return step(*arguments, **options)

    def alternate(
        self, contenders: list[Any], *, rounds: int, title: str, fresh: bool = False, **_: object
    ) -> list[list[Any]]:
        record = StageRecord(name="measure", title=title, seconds=1.0, peak_bytes=0, cached=not fresh)
        self.stages.append(record)
        call = Timing(latencies_ns=(int(self.call_ms * 1e6),) * 3)
        return [[look_at_the_machine() if each.step is look_at_the_machine else call] * rounds for each in contenders]

    def observe(self, event: object) -> None:
        pass

    def account(self, *_: str) -> RunnerInPlace:
        return self


def made_engine(folder: Path, profiles: Any, options: Any) -> Engine:
    """Return an engine that is nothing but bytes."""
    folder.mkdir(exist_ok=True)
    (folder / "model.plan").write_bytes(b"p" * ENGINE_BYTES)
    return Engine(
        files=gather(folder), flavour=Flavour.TENSORRT, version="11.4", compute_capabilities=("8.9",), gpu=GPU,
        layers=3, profiles=profiles, options=options,
    )  # fmt: skip


@pytest.fixture
def build_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[Report, ...]]:
    """Return `convkit build` on a machine whose GPU and TensorRT are made up."""

    def build(repository: Path, *, call_ms: float = 1.0, **options: Any) -> tuple[Report, ...]:
        runner = RunnerInPlace(call_ms)
        monkeypatch.setattr(building, "Runner", lambda *_, **__: runner)
        return building.build(repository, **options)

    def build_engine(model: Any, profiles: Any, options: Any, *, on: Gpu) -> Engine:
        return made_engine(tmp_path / "engine", profiles, options)

    def answer(engine: Any, samples: Tensors) -> Tensors:
        """Answer as the source framework did."""
        pending = Path(samples.files.path)
        return Tensors(files=gather(pending, read_build_plan(pending / "build.json").references))

    monkeypatch.setattr(building, "machine_here", lambda: Here(gpu=GPU, tensorrt="11.4.0.106"))
    monkeypatch.setattr(trt_make, "build_tensorrt", build_engine)
    monkeypatch.setattr(trt_make, "run_tensorrt", answer)
    return build
