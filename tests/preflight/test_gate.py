"""What a conversion asks before an engine is built, and what it does with the answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from targets.tensorrt_networks import conv_network, model_of

from convkit.errors import StepError
from convkit.pipeline import events
from convkit.pipeline.cache import Cache
from convkit.pipeline.runner import Runner
from convkit.targets import trt_preflight
from convkit.targets.finding import Weight
from convkit.targets.trt_api import Flavour
from convkit.targets.trt_preflight import gate, preflight, warn_of_rules
from preflight.corpus import corpus
from preflight.ending import end

CORPUS = {broken.name: broken.model for broken in corpus()}


def test_a_parser_that_ends_its_process_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt_preflight, "parse_rtx", end)

    with Runner(Cache(tmp_path), events.nobody) as run:
        verdict = preflight(run, model_of(conv_network()), (), Flavour.TENSORRT_RTX)

    (finding,) = verdict.of(Weight.ERROR)
    assert (finding.code, verdict.parsed) == ("parser-ended", None)


def test_without_any_parser_the_rules_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt_preflight, "installed", lambda _: False)

    with Runner(Cache(tmp_path), events.nobody) as run, pytest.raises(StepError, match=r"bias_DQ") as refused:
        gate(run, model_of(CORPUS["int32_bias"]), ())

    assert refused.value.code == "tensorrt.unsupported"


def test_what_no_parser_sees_is_warned_of_before_an_engine_is_built_here(tmp_path: Path) -> None:
    happened: list[events.Event] = []

    with Runner(Cache(tmp_path), happened.append) as run:
        warn_of_rules(run, model_of(CORPUS["uint8_activations_around_zero"]), ())

    warned = [event.message for event in happened if isinstance(event, events.Warned)]
    assert len(warned) == 2
    assert "act_Q (QuantizeLinear): it is uint8, which TensorRT reads as int8" in warned[0]
