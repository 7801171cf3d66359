"""Publishing over a model that a polling server serves: no request fails, and every answer is one model's."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from triton_server.client import PROTOCOLS, Protocol, infer
from triton_server.server import TritonServer

from e2e.command import Command
from e2e.networks import write_affine

pytestmark = pytest.mark.triton

X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
SCALES = (1.0, 10.0, 100.0, 1000.0)
POLLS_S = 1.5
PAUSE_S = 0.005
"""Between an answer and the next request: some hundred requests a second, and a processor left for the server."""


class Caller(threading.Thread):
    """Sends one request after another, and keeps the answers and the failures."""

    def __init__(self, server: TritonServer, protocol: Protocol) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._protocol = protocol
        self._ended = threading.Event()
        self.answers: list[np.ndarray[Any, Any]] = []
        self.times: list[float] = []
        self.failures: list[str] = []

    def run(self) -> None:
        while not self._ended.wait(PAUSE_S):
            try:
                self.answers.append(infer(self._server, self._protocol, "live", {"x": X})["y"])
                self.times.append(time.monotonic())
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a lost request
                self.failures.append(repr(error))

    def end(self) -> None:
        self._ended.set()
        self.join(timeout=30)


def test_new_versions_over_a_live_model_lose_no_request_and_cost_one_reload_each(
    tmp_path: Path, repository: Path, convkit: Command
) -> None:
    def publish(scale: float, version: int, *arguments: str) -> None:
        source = write_affine(tmp_path / "live.onnx", scale=scale)
        outcome = convkit.converted(source, "-o", repository, *arguments)
        assert (outcome.result["name"], outcome.result["version"]) == ("live", version)

    publish(SCALES[0], 1)
    with TritonServer(repository, model_control="poll") as server:
        callers = [Caller(server, protocol) for protocol in PROTOCOLS]
        for caller in callers:
            caller.start()
        wait_for_answers(callers, SCALES[0], then_s=0)
        publish(SCALES[1], 2)
        wait_for_answers(callers, SCALES[1])
        delay = ("--set", "triton.max_queue_delay_us=50")
        publish(SCALES[2], 3, *delay)  # the configuration changes along with the weights
        wait_for_answers(callers, SCALES[2])
        publish(SCALES[3], 3, *delay, "--version", "3", "--replace")
        wait_for_answers(callers, SCALES[3])
        for caller in callers:
            caller.end()
        log = server.log()

    for caller in callers:
        assert caller.failures == []
        order = [which(answer) for answer in caller.answers]
        assert set(order) == set(SCALES)
        assert order == sorted(order), "an answer came from an older version after a newer one's"
    assert loads(log) == len(SCALES), log  # whole: it says which version was loaded twice


@pytest.mark.parametrize(("published", "removed"), [(15, 3), pytest.param(50, 10, marks=pytest.mark.soak)])
def test_many_versions_published_and_removed_under_load_lose_no_request(
    published: int, removed: int, tmp_path: Path, repository: Path, convkit: Command
) -> None:
    """Some are removed when newer ones serve, some while they serve: then the one before has to answer again."""
    since: dict[float, float] = {}
    serving: list[tuple[int, float]] = []

    def publish(scale: float) -> None:
        since[scale] = time.monotonic()
        outcome = convkit.converted(write_affine(tmp_path / "live.onnx", scale=scale), "-o", repository)
        serving.append((outcome.result["version"], scale))

    def remove(at: int) -> None:
        """Take a version away as a careful user does: out of the repository at once, and then to pieces."""
        version, _ = serving.pop(at)
        (repository / "live" / str(version)).rename(tmp_path / "removed")
        shutil.rmtree(tmp_path / "removed")

    publish(1.0)
    with TritonServer(repository, model_control="poll") as server:
        callers = [Caller(server, protocol) for protocol in PROTOCOLS]
        for caller in callers:
            caller.start()
        wait_for_answers(callers, 1.0, then_s=0)
        for number in range(2, published + 1):
            publish(float(number))
            if number % (published // removed) == 0:
                remove(-1 if number % 2 else 0)
        wait_for_answers(callers, serving[-1][1])
        for caller in callers:
            caller.end()
        log = server.log()

    seen = set()
    for caller in callers:
        assert caller.failures == []
        for answer, moment in zip(caller.answers, caller.times, strict=True):
            scale = float(answer[-1, -1] / 2)  # the last x is 1
            assert np.allclose(answer, X * scale + scale, rtol=1e-5), "no published model gives this answer"
            assert since[round(scale)] < moment
            seen.add(round(scale))
    assert len(seen) > published / 5
    assert published - removed == len(serving)
    assert loads(log) <= published + removed
    answers = sum(len(caller.answers) for caller in callers)
    print(f"{published} published, {removed} removed: {answers} answers of {len(seen)} versions, {loads(log)} loads")


def wait_for_answers(callers: list[Caller], scale: float, *, then_s: float = POLLS_S) -> None:
    """Wait until every caller is answered by this model, and then for as long as a further reload would take."""
    deadline = time.monotonic() + 60
    while not all(caller.answers and np.allclose(caller.answers[-1], X * scale + scale) for caller in callers):
        assert time.monotonic() < deadline, f"no answer of the model with the scale {scale}"
        time.sleep(0.02)
    time.sleep(then_s)


def which(answer: np.ndarray[Any, Any]) -> float:
    """Tell which of the published models gave an answer.

    Raises:
        AssertionError: none of them gave it.
    """
    for scale in SCALES:
        if np.allclose(answer, X * scale + scale, rtol=1e-5):
            return scale
    raise AssertionError(f"no published model gives {answer}")


def loads(log: str) -> int:
    """Count how often the server has begun to load the model."""
    return log.count('"loading: live:')
