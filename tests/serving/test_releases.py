"""Which ONNX each Triton release reads."""

from __future__ import annotations

import pytest

from convkit.errors import UsageError
from convkit.serving.releases import OLDEST, release


def test_the_oldest_release_reads_ir_version_10_and_opset_21() -> None:
    assert (OLDEST.name, OLDEST.onnxruntime, OLDEST.ir_version, OLDEST.opset) == ("24.10", "1.19.2", 10, 21)


@pytest.mark.parametrize(
    ("name", "onnxruntime", "ir_version", "opset", "tensorrt"),
    [
        ("24.10", "1.19.2", 10, 21, None),
        ("25.03", "1.21.0", 10, 22, None),
        ("25.10", "1.23.1", 11, 23, None),
        ("26.04", "1.24.4", 13, 25, "10.16"),
        ("26.06", "1.24.4", 13, 25, "11.0.0.114"),
        ("26.08", "1.28.0", 13, 26, None),
    ],
)
def test_a_known_release(name: str, onnxruntime: str, ir_version: int, opset: int, tensorrt: str | None) -> None:
    found = release(name)

    assert (found.onnxruntime, found.ir_version, found.opset, found.tensorrt) == (
        onnxruntime,
        ir_version,
        opset,
        tensorrt,
    )


@pytest.mark.parametrize(("between", "older"), [("24.11", "24.10"), ("25.08", "25.05"), ("27.01", "26.08")])
def test_an_unlisted_release_reads_what_the_one_before_it_reads(between: str, older: str) -> None:
    found, known = release(between), release(older)

    assert found.name == between
    assert (found.onnxruntime, found.ir_version, found.opset) == (known.onnxruntime, known.ir_version, known.opset)


def test_an_unlisted_release_promises_no_tensorrt() -> None:
    assert release("26.05").tensorrt is None


@pytest.mark.parametrize(
    "text", ["", "latest", "24", "24.13", "24.00", "24.1", "v24.10", "24.10-py3", "24.10\n", "２４.10"]
)
def test_nonsense_is_refused_and_the_hint_lists_what_is_known(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        release(text)

    assert refused.value.code == "triton.unknown-release"
    assert "24.10" in refused.value.hint


def test_a_release_before_the_oldest_is_refused() -> None:
    with pytest.raises(UsageError, match=r"24\.09 is older"):
        release("24.09")
