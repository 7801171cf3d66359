"""One run of a model has a limit, for a graph may loop for ever; a step has none by default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fuzz.graphs import loop
from sources.onnx_files import write

from convkit.errors import ExitStatus, StepError
from convkit.graph.model import save_model
from convkit.graph.simplify import simplify
from convkit.pipeline import patience
from convkit.pipeline.artifact import gather
from convkit.pipeline.cache import Cache
from convkit.pipeline.runner import Runner
from convkit.pipeline.watch import Limits, limits_from
from convkit.sources.onnx import find_external_data, import_onnx
from convkit.spec.options import ExportOptions, LimitOptions, Simplifier
from convkit.spec.tensor import Interface
from pipeline.greedy_steps import run_often, run_stubbornly

SHORT = Limits(memory_bytes=1 << 34, memory_from="for a test", run_seconds=1.5)
FOR_EVER = 4 * 10**11
AS_IT_IS: dict[str, Any] = {
    "file": "net.onnx",
    "metadata": None,
    "options": ExportOptions(),
    "samples": None,
    "max_opset": 21,
}
NO_MATTER = Interface(inputs=(), outputs=())


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_a_graph_that_loops_for_ever_is_ended_and_its_worker_lives_on(cache: Cache, tmp_path: Path) -> None:
    source = gather(write(tmp_path / "source", loop(FOR_EVER)).parent)
    with Runner(cache, lambda event: None, limits=SHORT) as run:
        with pytest.raises(StepError) as failed:
            run(import_onnx, source, **AS_IT_IS)
        assert run(find_external_data, source).names == ()

    error = failed.value
    assert (error.code, error.stage, error.exit_status) == ("worker.run-limit", "source", ExitStatus.STEP_FAILED)
    assert error.message.startswith("the model on the inputs x [1, 4]: not done after 1.5 s")
    assert "--time-limit" in error.hint


def test_a_run_that_cannot_be_ended_from_within_takes_its_worker_along(cache: Cache) -> None:
    with Runner(cache, lambda event: None, limits=SHORT) as run, pytest.raises(StepError) as failed:
        run(run_stubbornly, seconds=60.0)

    assert (failed.value.code, failed.value.stage) == ("worker.run-limit", "measure")
    assert failed.value.message.startswith("a stubborn model: not done after 1.5 s")


def test_a_step_of_many_runs_may_take_longer_than_one_run(cache: Cache) -> None:
    with Runner(cache, lambda event: None, limits=SHORT) as run:
        assert run(run_often, runs=20, seconds=0.1) == 20


def test_who_says_how_long_a_step_may_take_says_it_for_its_runs() -> None:
    assert limits_from(LimitOptions()).run_seconds == patience.RUN_SECONDS
    assert limits_from(LimitOptions(time="2h")).run_seconds is None
    assert limits_from(LimitOptions(time="2h", memory="1GB")).run_seconds is None


def test_no_simplifier_computes_a_loop_of_constants_that_is_long(tmp_path: Path) -> None:
    model = save_model(loop(FOR_EVER, constant=True), NO_MATTER)

    assert "a loop of constants" in simplify(model, chain=(Simplifier.ONNXSLIM,)).applied[0]


def test_a_short_loop_of_constants_is_computed(tmp_path: Path) -> None:
    model = save_model(loop(3, constant=True), NO_MATTER)

    assert simplify(model, chain=(Simplifier.ONNXSLIM,)).after.operators == {"Add": 1}
