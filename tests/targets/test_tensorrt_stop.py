"""Ctrl-C during a build: TensorRT-RTX itself ends it, because the monitor answers no."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from convkit.graph.model import Model
from convkit.pipeline import events
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import Event, StepProgress
from convkit.pipeline.runner import Runner
from convkit.targets import trt_progress
from convkit.targets.trt_build import build_rtx
from convkit.targets.trt_options import TensorRTOptions
from convkit.targets.trt_progress import stoppable
from targets.tensorrt_networks import model_of, network

ALL = TensorRTOptions()


def deep_model(layers: int = 60) -> Model:
    """A network whose build takes seconds: convolutions of as many sizes as layers, so that none is built twice."""
    numbers = np.random.default_rng(0)
    nodes, weights, channels = [], {}, 3
    for number in range(layers):
        wanted = 16 + 8 * (number % 13)
        weights[f"w{number}"] = (numbers.standard_normal((wanted, channels, 3, 3)) / 30).astype(np.float32)
        source = f"t{number}" if number else "x"
        nodes.append(helper.make_node("Conv", [source, f"w{number}"], [f"c{number}"], f"conv{number}", pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"t{number + 1}"], f"relu{number}"))
        channels = wanted
    nodes.append(helper.make_node("Identity", [f"t{layers}"], ["y"], "out"))
    return model_of(network(nodes, {"x": [1, 3, 64, 64]}, {"y": [1, channels, 64, 64]}, weights))


def interrupt_at(permille: int, number: int = signal.SIGINT) -> Callable[[Event], None]:
    sent: list[int] = []

    def observe(event: Event) -> None:
        if isinstance(event, StepProgress) and event.done >= permille and not sent:
            sent.append(event.done)
            os.kill(os.getpid(), number)

    return observe


@pytest.fixture(autouse=True)
def signals_as_python_has_them() -> Iterator[None]:
    """Another test of this process may have left the command line's own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_ctrl_c_ends_a_real_build_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    answers: list[bool] = []
    interrupt = interrupt_at(100)

    def observe(event: Event) -> None:
        if isinstance(event, StepProgress):
            seen.append(event.done)
        interrupt(event)

    made = trt_progress.progress_monitor

    def noting(module: object, told_to_stop: Callable[[], bool]) -> object:
        def asked() -> bool:
            answers.append(told_to_stop())
            return answers[-1]

        return made(module, asked)  # type: ignore[arg-type]

    monkeypatch.setattr("convkit.targets.trt_build.progress_monitor", noting)
    events.observe(observe)
    try:
        with pytest.raises(KeyboardInterrupt):
            build_rtx(deep_model(12), (), ALL)
    finally:
        events.observe(events.nobody)

    assert True in answers, "TensorRT was told"
    assert max(seen) < 1000, "and did not finish"


def test_a_build_that_nobody_stops_is_not_stopped() -> None:
    assert build_rtx(deep_model(3), (), TensorRTOptions(compute_capabilities=("8.9",))).files.bytes > 0


def send_and_look(reached: list[bool]) -> None:
    with stoppable() as told_to_stop:
        assert not told_to_stop()
        os.kill(os.getpid(), signal.SIGINT)
        thread = threading.Thread(target=lambda: reached.append(told_to_stop()))
        thread.start()
        thread.join()


def test_a_signal_is_noted_and_acted_on_at_the_end() -> None:
    reached: list[bool] = []
    with pytest.raises(KeyboardInterrupt):
        send_and_look(reached)

    assert reached == [True], "another thread saw it, and the main one went on"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stoppable() as told_to_stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert not told_to_stop()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_leave_signals_alone() -> None:
    told: list[bool] = []

    def body() -> None:
        with stoppable() as told_to_stop:
            told.append(told_to_stop())

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()

    assert told == [False]


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from targets.test_tensorrt_stop import in_a_worker
in_a_worker(Path({folder!r}))
"""


def in_a_worker(folder: Path) -> None:
    """Build in a worker, and say when it is on the way."""

    def observe(event: Event) -> None:
        if isinstance(event, StepProgress) and event.done > 50:
            print("on the way", flush=True)

    with Runner(Cache(folder), observer=observe) as run:
        run(build_rtx, deep_model(60), (), ALL)
    print("built", flush=True)


def test_ctrl_c_reaches_the_builder_in_its_worker(tmp_path: Path) -> None:
    script = SCRIPT.format(tests=str(Path(__file__).parents[1]), folder=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"on the way\n"
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)

    assert process.returncode != 0
    assert b"built" not in out
    [log] = (tmp_path / "logs").glob("*-tensorrt-rtx.log")
    assert "KeyboardInterrupt" in log.read_text(encoding="utf-8"), "it ended by itself, it was not killed"
    assert not list((tmp_path / "entries").rglob("*/*")), "no half engine is remembered"
    left = [folder for folder in (tmp_path / "scratch").iterdir() if folder.is_dir()]
    deadline = time.monotonic() + 30
    while left and time.monotonic() < deadline:
        left = [folder for folder in (tmp_path / "scratch").iterdir() if folder.is_dir()]
    assert not left
