"""`--measure full` from PyTorch, as its users have it: torch.compile and OpenVINO stand beside source and result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from e2e.command import Command
from e2e.digits import CNN

from convkit.sources.torch_compile import find_compiler

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler here"),
]


def test_a_full_measurement_has_a_column_and_a_row_for_each_rival(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    convkit = Command(tmp_path / "cache")
    convkit.cache.mkdir()

    done = convkit(
        "convert", CNN.folder, "--trust", "-o", tmp_path / "models", "--name", "cnn", "--measure", "full", "--json"
    )

    assert done.exit_status == 0, done.stderr
    records = tmp_path / "models" / "cnn" / "1" / "convkit"
    report = json.loads((records / "report.json").read_text(encoding="utf-8"))
    others = {each["label"]: each for each in report["subjects"] if each["role"] == "other"}
    compiled, openvino = others
    assert (compiled, openvino) == (f"{report['source']['framework']}, compiled", "OpenVINO FP32")
    assert all(each["latency"]["p50_ms"] > 0 for each in others.values())
    assert set(others) < {comparison["before"] for comparison in report["comparisons"]}
    page = (records / "report.html").read_text(encoding="utf-8")
    shown = convkit("report", tmp_path / "models" / "cnn").stdout
    for text in (page, (records / "report.md").read_text(encoding="utf-8")):
        assert f"{compiled} (other)" in text
        assert f"{compiled}: torch.compile as it comes" in text
        assert "OpenVINO FP32: OpenVINO 20" in text
    assert "OpenVINO FP32" in shown

    again = convkit("report", tmp_path / "models" / "cnn", "--remeasure", "--json").result
    assert f"{compiled}; OpenVINO FP32" in again["notes"][0]
