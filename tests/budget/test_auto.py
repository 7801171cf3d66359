"""`--quantize auto`: what it chooses, and what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e.command import Command

from budget.test_search import command, report_of

__all__ = ["command"]
SAMPLES = Path(__file__).parents[2] / "sample_models"
DATA = ("--calibration-data", SAMPLES / "digits_cnn" / "calibration.npz")


@pytest.mark.parametrize(
    ("arguments", "chosen", "said"),
    [
        ((), "none", "convolutions do 100 % of the work"),
        (DATA, "int8", "int8 is chosen"),
        (("--to", "tensorrt", *DATA), "int8+fp16", "its speed is not measured here"),
        (("--to", "tensorrt"), "fp16", "int8+fp16 is left out: it needs --calibration-data"),
        (("--to", "openvino"), "none", "int8 is left out: it needs --calibration-data"),
    ],
)
def test_the_choice_follows_from_target_data_and_work(
    command: Command,
    tmp_path: Path,
    arguments: tuple[str | Path, ...],
    chosen: str,
    said: str,
) -> None:
    outcome = command.converted(
        SAMPLES / "digits_cnn", "--trust", "--quantize", "auto", *arguments, "-o", tmp_path / "models"
    )

    report = report_of(outcome.result)
    assert report["precision"] == chosen
    assert any(said in line for line in report["choice"])


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (("tensorrt",), "fp8 is left out: which GPU will build the engine is not known"),
        (("tensorrt-rtx",), "fp8 is left out: compute capability 8.6, for which the engine is built, has none"),
        (
            ("tensorrt-rtx", "--set", 'tensorrt-rtx.compute_capabilities=["8.9"]'),
            "fp8 is left out: its numbers are too far off",
        ),
    ],
    ids=["a plan", "all GPUs", "Ada"],
)
def test_fp8_is_tried_after_int8_where_every_gpu_has_it(
    command: Command, tmp_path: Path, target: tuple[str, ...], said: str
) -> None:
    outcome = command.converted(
        SAMPLES / "digits_cnn",
        *("--trust", "--quantize", "auto", *DATA, "--min-sqnr", "48", "--measure", "none"),
        *("-o", tmp_path / "models", "--to", *target),
    )

    report = report_of(outcome.result)
    assert report["precision"] == "fp16"
    assert [line.split()[0] for line in report["choice"][:2]] == ["int8+fp16", "fp8"]
    assert report["choice"][1].startswith(said)


def test_what_loses_too_much_is_not_chosen(command: Command, tmp_path: Path) -> None:
    mobile = SAMPLES / "digits_mobile"
    outcome = command.converted(
        mobile,
        *("--trust", "--quantize", "auto", "--calibration-data", mobile / "calibration.npz", "--min-sqnr", "60"),
        *("-o", tmp_path / "models"),
    )

    report = report_of(outcome.result)
    assert report["precision"] == "none"
    assert any(line.startswith("int8 is left out: its numbers are too far off") for line in report["choice"])
