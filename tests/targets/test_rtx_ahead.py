"""An engine that is built while its graph is still being checked is the one that would have been built after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

from convkit import conversion
from convkit.conversion import convert
from convkit.errors import CheckError
from convkit.pipeline import ahead
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import Event, StepFinished, StepStarted
from convkit.pipeline.runner import Runner
from convkit.pipeline.step import Step
from convkit.request import Request, make_request
from convkit.targets.trt_build import build_rtx
from targets.tensorrt_networks import conv_network


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The titles of the steps that begin ahead."""
    titles: list[str] = []
    begin = Runner.begin

    def noted(run: Runner, step: Step[..., Any], *args: Any, **kwargs: Any) -> None:
        titles.append(step.title)
        begin(run, step, *args, **kwargs)

    monkeypatch.setattr(Runner, "begin", noted)
    return titles


def asked(folder: Path, **tables: Any) -> Request:
    """A conversion of one small network to TensorRT-RTX."""
    folder.mkdir(exist_ok=True)
    onnx.save(conv_network(), str(folder / "net.onnx"))
    arguments = {"model": str(folder / "net.onnx"), "to": "tensorrt-rtx", "output": str(folder / "models")}
    return make_request({**arguments, "measure": {"mode": "none"}, **tables}, environment={})


def converted(folder: Path, cores: int, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, bytes], list[str]]:
    """The files that are published, but for the reports; and the titles of what ran, in order."""
    monkeypatch.setattr(ahead, "cores", lambda: cores)
    events: list[Event] = []
    convert(asked(folder), cache=Cache(folder / "cache"), observer=events.append)
    version = folder / "models" / "net" / "1"
    files = {str(path.relative_to(version)): path.read_bytes() for path in version.rglob("*") if path.is_file()}
    told = [
        f"{type(event).__name__} {event.title}" for event in events if isinstance(event, StepStarted | StepFinished)
    ]
    return {name: data for name, data in files.items() if "report" not in name and "SUMS" not in name}, told


def test_the_same_is_published_and_told_in_the_same_order(
    begun: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one processor nothing begins ahead."""
    beside, told = converted(tmp_path / "two", 2, monkeypatch)
    after, told_then = converted(tmp_path / "one", 1, monkeypatch)

    assert begun == [build_rtx.title] * 2
    assert {"model.engine", "model_ctx.onnx", "convkit/model.onnx", "convkit/manifest.json"} <= set(beside)
    assert beside == after
    assert told == told_then


def test_an_engine_whose_graph_fails_its_check_is_thrown_away(
    begun: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "cores", lambda: 2)

    def differs(run: Runner, *args: Any) -> None:
        raise CheckError("it is another model", hint="mend it", code="check.outputs-differ", stage="check")

    monkeypatch.setattr(conversion, "_require_equal", differs)
    with pytest.raises(CheckError, match="it is another model"):
        convert(asked(tmp_path), cache=Cache(tmp_path / "cache"))

    assert begun == [build_rtx.title]
    assert list((tmp_path / "models").glob("net/*")) == []
    assert list((tmp_path / "cache" / "scratch").glob("[0-9]*")) == []


def test_nothing_is_begun_where_the_graph_is_still_to_be_narrowed(begun: list[str], tmp_path: Path) -> None:
    convert(asked(tmp_path, quantize={"precision": "fp16"}), cache=Cache(tmp_path / "cache"))

    assert begun == []
