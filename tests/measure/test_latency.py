"""Every model is timed in turn, so that what disturbs the machine disturbs all of them alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pipeline.steps import measure

from convkit.measure.latency import PLANS, REACH, Measurement, _enough, measure_latency
from convkit.measure.ratio import MIN_ROUNDS, ratio
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import nobody
from convkit.pipeline.runner import Contender, Runner
from convkit.pipeline.stopwatch import Timing
from convkit.spec.options import MeasureMode


def test_contenders_take_turns_until_the_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVKIT_ISOLATION", "off")  # the steps write a log of their own
    monkeypatch.setitem(PLANS, MeasureMode.QUICK, PLANS[MeasureMode.QUICK]._replace(budget=0.0))
    log = tmp_path / "log"
    contenders = {name: Contender(measure, name=name, log=str(log)) for name in ("a", "b")}
    with Runner(Cache(tmp_path / "cache"), nobody) as run:
        found = measure_latency(run, contenders, MeasureMode.QUICK)  # type: ignore[arg-type]
    turns = log.read_text(encoding="utf-8")

    assert {name: len(rounds) for name, rounds in found.timings.items()} == dict.fromkeys("ab", MIN_ROUNDS)
    assert turns.count("a") == turns.count("b") == MIN_ROUNDS + 1
    assert "aaa" not in turns
    assert "bbb" not in turns
    assert found.conditions.load_before is not None


@pytest.mark.parametrize(("seed", "scatter", "ends"), [(1, 0.001, True), (1, 0.2, False)])
def test_it_ends_when_the_intervals_are_narrow(seed: int, scatter: float, ends: bool) -> None:
    plan = PLANS[MeasureMode.FULL]
    enough = _enough(plan, ["a", "b"], "a")
    generator = np.random.default_rng(seed)
    rounds = [
        [Timing(latencies_ns=(int(2e6 * np.exp(generator.normal(0, scatter))),)) for _ in range(plan.rounds)]
        for _ in range(3)
    ]

    assert not enough([[None] * (plan.rounds - 1), *([side[:-1] for side in rounds])])
    assert enough([[None] * plan.rounds, *rounds]) is ends


def test_it_ends_when_the_difference_is_clear_however_wide_the_interval() -> None:
    plan = PLANS[MeasureMode.QUICK]
    generator = np.random.default_rng(3)
    slow, fast = (
        [Timing(latencies_ns=(int(mean * np.exp(generator.normal(0, 0.1))),)) for _ in range(plan.rounds)]
        for mean in (9e6, 2e6)
    )

    assert ratio(slow, fast).reach > REACH
    assert _enough(plan, ["a", "b"], None)([[None] * plan.rounds, slow, fast])


def test_a_model_is_measured_twice_as_if_it_were_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVKIT_ISOLATION", "off")
    monkeypatch.setitem(PLANS, MeasureMode.QUICK, PLANS[MeasureMode.QUICK]._replace(budget=0.0))
    log = str(tmp_path / "log")
    with Runner(Cache(tmp_path / "cache"), nobody) as run:
        found = measure_latency(
            run,
            {"a": Contender(measure, name="a", log=log)},  # type: ignore[dict-item]
            MeasureMode.QUICK,
            again=("a", Contender(measure, name="A", log=log)),  # type: ignore[arg-type]
        )

    assert (found.twin, len(found.again)) == ("a", MIN_ROUNDS)


def test_nothing_is_measured_where_nothing_was_asked_for(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Runner(Cache(tmp_path / "cache"), nobody) as run:
        a = {"a": Contender(measure, name="a", log=str(log))}
        assert measure_latency(run, a, MeasureMode.NONE) == Measurement()  # type: ignore[arg-type]
        assert measure_latency(run, {}, MeasureMode.QUICK) == Measurement()

    assert not log.exists()
