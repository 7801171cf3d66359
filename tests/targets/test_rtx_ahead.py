"""An engine that is built while its graph is still being checked is the one that would have been built after it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from convkit import conversion
from convkit.conversion import convert
from convkit.errors import CheckError, ConvkitError
from convkit.measure.compare import compare_outputs
from convkit.pipeline import ahead
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import Event, StepFinished, StepStarted, Warned
from convkit.pipeline.runner import Runner
from convkit.pipeline.step import Step
from convkit.pipeline.worker import Worker
from convkit.report.document import Report
from convkit.request import Request, make_request
from convkit.sources.onnx import import_onnx, read_graph
from convkit.targets.trt_build import build_rtx
from convkit.targets.trt_rewrite import rewrite
from targets.tensorrt_networks import conv_network, network


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


@pytest.fixture
def at_work(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The titles of the steps in the order in which workers begin them."""
    titles: list[str] = []
    begin = Worker.begin

    def noted(worker: Worker, step: Step[..., Any], *args: Any, **kwargs: Any) -> None:
        titles.append(step.title)
        begin(worker, step, *args, **kwargs)

    monkeypatch.setattr(Worker, "begin", noted)
    return titles


def has_processors(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the machine have so many, and memory enough for two small workers, whatever it has."""
    monkeypatch.setattr(ahead, "cores", lambda: cores)
    monkeypatch.setattr(ahead, "_BARE", 0)


def test_it_begins_before_onnx_runtime_answers(
    at_work: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_processors(2, monkeypatch)
    convert(asked(tmp_path), cache=Cache(tmp_path / "cache"))

    assert at_work.count(read_graph.title) == at_work.count(build_rtx.title) == 1
    assert at_work.index(read_graph.title) < at_work.index(build_rtx.title) < at_work.index(import_onnx.title)


def test_with_inputs_of_the_users_it_begins_once_they_are_read(
    at_work: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may widen the profile."""
    has_processors(2, monkeypatch)
    np.savez(tmp_path / "samples.npz", x=np.ones((3, 3, 16, 16), np.float32))
    request = asked(tmp_path, export={"samples": str(tmp_path / "samples.npz")})
    convert(request, cache=Cache(tmp_path / "cache"))

    assert read_graph.title not in at_work
    assert at_work.index(import_onnx.title) < at_work.index(build_rtx.title) < at_work.index(compare_outputs.title)


def on_so_many_processors(
    cores: int, folder: Path, proto: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> tuple[Report | ConvkitError, list[str]]:
    """What comes of converting a graph, or its error; and what was told of steps and warnings."""
    has_processors(cores, monkeypatch)
    events: list[Event] = []
    request = asked(folder)
    onnx.save(proto, str(folder / "net.onnx"))
    told = {StepStarted: "begins", StepFinished: "ends"}
    found: Report | ConvkitError
    try:
        found = convert(request, cache=Cache(folder / "cache"), observer=events.append)
    except ConvkitError as error:
        found = error
    return found, [
        event.message if isinstance(event, Warned) else f"{event.title} {told[type(event)]}"
        for event in events
        if isinstance(event, Warned | StepStarted | StepFinished)
    ]


def test_what_is_read_first_warns_as_it_does_in_its_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proto = conv_network()
    proto.opset_import[0].version = 23
    (_, beside), (_, after) = (
        on_so_many_processors(cores, tmp_path / str(cores), proto, monkeypatch) for cores in (2, 1)
    )

    assert beside == after
    assert sum("opset 23 was converted" in text for text in beside) == 1


def foreign() -> onnx.ModelProto:
    """A graph that ONNX takes and ONNX Runtime does not."""
    return network([helper.make_node("Own", ["x"], ["y"], domain="house.made")], {"x": ["n", 4]}, {"y": ["n", 4]})


def broken() -> onnx.ModelProto:
    """A graph that ONNX does not take."""
    return network([helper.make_node("Relu", ["nowhere"], ["y"])], {"x": ["n", 4]}, {"y": ["n", 4]})


@pytest.mark.parametrize("made", [foreign, broken])
def test_a_model_that_is_refused_is_refused_in_the_same_words(
    made: Callable[[], onnx.ModelProto], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (beside, told), (after, told_then) = (
        on_so_many_processors(cores, tmp_path / str(cores), made(), monkeypatch) for cores in (2, 1)
    )

    assert isinstance(beside, ConvkitError)
    assert isinstance(after, ConvkitError)
    assert (beside.message, beside.hint, beside.code, beside.stage) == (
        (after.message, after.hint, after.code, after.stage)
    )
    assert told == told_then
    assert list((tmp_path / "2" / "cache" / "scratch").glob("[0-9]*")) == []


def test_what_tensorrt_has_written_otherwise_is_what_begins(
    at_work: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the graph with the operator that it lacks, whose engine nobody would ask for."""
    nodes = [
        helper.make_node("Unsqueeze", ["x", "last"], ["u"], name="unsqueeze"),
        helper.make_node("DFT", ["u"], ["y"], name="spectrum", onesided=1),
    ]
    proto = network(nodes, {"x": ["batch", 12]}, {"y": ["batch", 7, 2]}, {"last": np.array([2])})
    report, told = on_so_many_processors(2, tmp_path, proto, monkeypatch)

    assert not isinstance(report, ConvkitError)
    assert at_work.count(build_rtx.title) == at_work.count(rewrite.title) == 1
    assert at_work.index(build_rtx.title) < at_work.index(compare_outputs.title)
    assert f"{rewrite.title} ends" in told
