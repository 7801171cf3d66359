"""Which engines may be in FP8, as far as their GPUs are known."""

from __future__ import annotations

import pytest

from convkit.spec.options import EngineMode
from convkit.targets import trt_fp8
from convkit.targets.cuda_driver import Gpu
from convkit.targets.trt_fp8 import why_no_fp8
from convkit.targets.trt_options import TensorRTOptions


def on_a_gpu(capability: str, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(trt_fp8, "installed", lambda flavour: True)
    patch.setattr(trt_fp8, "gpu", lambda: Gpu(name="NVIDIA Fake", compute_capability=capability, cuda="13.0"))


@pytest.mark.parametrize(
    ("capabilities", "said"),
    [
        ((), "compute capability 8.6, for which the engine is built, has none ([tensorrt-rtx] compute_capabilities"),
        (("8.9", "12.0"), None),
        (("8.6", "12.0"), "compute capability 8.6, for which the engine is built, has none"),
    ],
)
def test_an_rtx_engine_may_be_in_fp8_where_all_gpus_have_it(capabilities: tuple[str, ...], said: str | None) -> None:
    found = why_no_fp8("tensorrt-rtx", TensorRTOptions(compute_capabilities=capabilities), EngineMode.AUTO)

    assert (found or "").startswith(said or "")
    assert (found is None) == (said is None)


def test_a_plan_may_be_in_fp8_where_it_is_built_here_on_a_gpu_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu("9.0", monkeypatch)
    assert why_no_fp8("tensorrt", None, EngineMode.AUTO) is None
    assert "not known" in (why_no_fp8("tensorrt", None, EngineMode.DEFER) or "")

    on_a_gpu("8.6", monkeypatch)
    assert why_no_fp8("tensorrt", None, EngineMode.NOW) == "NVIDIA Fake is of compute capability 8.6, which has none"


def test_of_other_targets_nothing_is_held_against_it() -> None:
    assert why_no_fp8("someone-elses", None, EngineMode.AUTO) is None
