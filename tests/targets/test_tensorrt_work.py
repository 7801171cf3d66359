"""How much of a model truly runs in low precision, from a real TensorRT-RTX build through the target and the gates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from convkit.graph.engine_layers import EngineLayer, EngineLayers
from convkit.graph.model import Model, save_tensors
from convkit.graph.work import NodeWork
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import Event, Warned
from convkit.pipeline.runner import Runner
from convkit.spec.options import CheckOptions, EngineMode, Precision
from convkit.targets import tensorrt
from convkit.targets.build_plan import FILE_NAME, read_build_plan
from convkit.targets.target import Compiled, Job, open_target
from convkit.targets.trt_options import TensorRTOptions
from convkit.targets.trt_work import executed
from targets.tensorrt_networks import SYMMETRIC, conv_network, model_of, quantized

ADA = TensorRTOptions(compute_capabilities=("8.9",))


@pytest.fixture
def int8(tmp_path: Path) -> Model:
    folder = tmp_path / "quantized"
    folder.mkdir()
    return model_of(quantized(conv_network(), folder, per_channel=True, extra_options=SYMMETRIC))


def compiled(target: str, model: Model, folder: Path, precision: Precision) -> Compiled:
    recorded = save_tensors([{"x": np.zeros((1, 3, 16, 16), np.float32)}])
    job = Job(
        precision=precision,
        engine=EngineMode.AUTO,
        options=ADA if target == "tensorrt-rtx" else None,
        check=CheckOptions(),
        samples=recorded,
        references=recorded,
    )
    with Runner(Cache(folder), observer=lambda _: None) as run:
        return open_target(target).compile(run, model, job)


def test_the_work_of_a_built_engine_is_that_of_its_layers(int8: Model, tmp_path: Path) -> None:
    made = compiled("tensorrt-rtx", int8, tmp_path / "cache", Precision.INT8)

    assert made.work is not None
    assert made.work.seen_by is not None
    assert made.work.seen_by.startswith("TensorRT-RTX")
    assert made.work.share(8) == 1
    assert made.layers is not None
    assert {each.node for each in made.placed} == {"conv", "classify"}


def test_without_low_precision_nothing_is_counted_and_the_layers_are_still_shown(tmp_path: Path) -> None:
    made = compiled("tensorrt-rtx", model_of(conv_network()), tmp_path / "cache", Precision.NONE)

    assert made.work is None
    assert made.layers is not None


def test_a_deferred_engine_carries_the_work_of_its_nodes(
    int8: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt, "gpu", lambda: None)

    made = compiled("tensorrt", int8, tmp_path / "cache", Precision.INT8)

    document = made.files[FILE_NAME]
    assert isinstance(document, bytes)
    (tmp_path / FILE_NAME).write_bytes(document)
    assert read_build_plan(tmp_path / FILE_NAME).work == {
        "conv": NodeWork(macs=3 * 16 * 9 * 16 * 16, precision="int8"),
        "classify": NodeWork(macs=160, precision="int8"),
    }


def test_a_build_that_fell_back_is_warned_of_with_the_nodes_and_their_share() -> None:
    layers = tuple(EngineLayer(name=f"c{n}", kind="conv", nodes=(f"c{n}",), inputs=("fp32",)) for n in range(5))
    kept = EngineLayer(name="kept", kind="conv", nodes=("kept",), inputs=("int8",))
    found = EngineLayers(layers=(*layers, kept), seen_by="TensorRT 11.4", told_by="the engine inspector")
    work = {f"c{n}": NodeWork(macs=10 + n, precision="int8") for n in range(5)}
    happened: list[Event] = []

    counted = executed(happened.append, found, {**work, "kept": NodeWork(macs=40, precision="int8")})

    [warning] = happened
    assert isinstance(warning, Warned)
    assert warning.code == "tensorrt.fell-back"
    assert "60 % of the multiply-accumulates run in a wider type" in warning.message
    assert "c4 (fp32 for int8), c3 (fp32 for int8), c2 (fp32 for int8) and 2 more" in warning.message
    assert counted is not None
    assert counted.share(8) == 0.4


def test_layers_that_do_not_say_what_they_run_in_accuse_nobody() -> None:
    found = EngineLayers(
        layers=(EngineLayer(name="c", kind="", nodes=("c",)),), seen_by="TensorRT", told_by="the engine inspector"
    )
    happened: list[Event] = []

    assert executed(happened.append, found, {"c": NodeWork(macs=1, precision="int8")}) is None
    assert happened == []
