"""What convkit makes of convolutional networks and encoders, in every precision, TensorRT-RTX parses and builds."""

from __future__ import annotations

from pathlib import Path

import pytest

from convkit.graph.model import Model
from convkit.graph.work import LOW, declared_work
from convkit.pipeline.artifact import use_scratch
from convkit.spec.options import Precision
from rtx.networks import FULL, NARROW, exported
from rtx.steps import PRECISIONS, build, narrowed, samples_of

pytest.importorskip("tensorrt_rtx")

IN_SHORT = (Precision.NONE, Precision.INT8, Precision.FP8)
LEAST = {False: 0.6, True: 0.9}
"""The least share of the work that must be in 8 bits, of narrow networks and full ones: all but the first convolution
and the products of attention, which a narrow one has more of."""


class Networks:
    """Exports each network once."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._made: dict[tuple[str, bool], Model] = {}

    def __call__(self, name: str, *, full: bool) -> Model:
        if (name, full) not in self._made:
            folder = self._factory.mktemp(name)
            use_scratch(folder / "scratch")
            self._made[name, full] = exported(name, folder, FULL if full else NARROW)
        return self._made[name, full]


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    return Networks(tmp_path_factory)


CASES = [
    *(
        pytest.param(name, False, precision, id=f"narrow-{name}-{precision.value}")
        for name in NARROW
        for precision in IN_SHORT
    ),
    *(
        pytest.param(name, True, precision, id=f"{name}-{precision.value}", marks=pytest.mark.rtx)
        for name in FULL
        for precision in PRECISIONS
    ),
]


@pytest.mark.parametrize(("name", "full", "precision"), CASES)
def test_it_parses_and_builds(name: str, full: bool, precision: Precision, networks: Networks, tmp_path: Path) -> None:
    model = networks(name, full=full)
    use_scratch(tmp_path / "scratch")

    low = narrowed(model, precision)

    assert build(low, precision).files.bytes > 0
    if precision.bits == 8:
        work = declared_work(low, samples=samples_of(model, None))
        assert work.share(8) >= LEAST[full], work.macs
        assert set(work.macs) & set(LOW) <= {precision.value.partition("+")[0], "fp16"}
