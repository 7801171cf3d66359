"""Every model is timed in turn, so that what disturbs the machine disturbs all of them alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from pipeline.steps import measure

from convkit.measure.latency import PLANS, measure_latency
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import nobody
from convkit.pipeline.runner import Contender, Runner
from convkit.spec.options import MeasureMode


@pytest.mark.parametrize("mode", [MeasureMode.QUICK, MeasureMode.FULL])
def test_each_contender_gets_the_plans_rounds_in_alternation(
    mode: MeasureMode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVKIT_ISOLATION", "off")  # the steps write a log of their own
    log = tmp_path / "log"
    contenders = {name: Contender(measure, name=name, log=str(log)) for name in ("a", "b")}
    with Runner(Cache(tmp_path / "cache"), nobody) as run:
        results = measure_latency(run, contenders, mode)  # type: ignore[arg-type]
    turns = log.read_text(encoding="utf-8")

    assert {name: len(rounds) for name, rounds in results.items()} == dict.fromkeys("ab", PLANS[mode].rounds)
    assert turns.count("a") == turns.count("b") == PLANS[mode].rounds + 1
    assert "aaa" not in turns
    assert "bbb" not in turns


def test_nothing_is_measured_where_nothing_was_asked_for(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Runner(Cache(tmp_path / "cache"), nobody) as run:
        assert measure_latency(run, {"a": Contender(measure, name="a", log=str(log))}, MeasureMode.NONE) == {}
        assert measure_latency(run, {}, MeasureMode.QUICK) == {}

    assert not log.exists()
