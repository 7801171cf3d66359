"""Many convkits at once on one cache and one repository."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from serving.publications import faults, left_over
from sources.onnx_files import model, write

from cli.program import Program

DISTINCT = 12
OTHERWISE = (
    ("--opset", "19"),
    ("--quantize", "fp16"),
    ("--set", "triton.instances=2"),
    ("--set", "triton.max_queue_delay_us=50"),
)
IDENTICAL = 4


def variant(folder: Path, number: int) -> Path:
    """A network that is told by its weights."""
    weight = np.arange(12, dtype=np.float32).reshape(4, 3) / 10 + number
    return write(folder / f"source{number}", model(weights=[numpy_helper.from_array(weight, "w")]))


def weight_of(version: Path) -> float:
    return float(numpy_helper.to_array(onnx.load(version / "model.onnx").graph.initializer[0]).reshape(-1)[0])


def test_twenty_at_once_on_one_cache_and_one_repository_all_end_right(convkit: Program, tmp_path: Path) -> None:
    convkit.cache = tmp_path / "cache"
    repository = tmp_path / "models"
    orders: list[tuple[str, float, tuple[object, ...]]] = [
        *(("live", number, (variant(tmp_path, number),)) for number in range(1, DISTINCT + 1)),
        *(("live", 1, (variant(tmp_path, 1), *options)) for options in OTHERWISE),
        *(("same", 99, (variant(tmp_path, 99),)) for _ in range(IDENTICAL)),
    ]
    assert len(orders) == 20

    running = [
        convkit.start("convert", *arguments, "-o", "models", "--name", name, "--json", "--measure", "none", "--replace")
        for name, _, arguments in orders
    ]
    ended = [(process.communicate(timeout=300), process.returncode) for process in running]

    assert [status for _, status in ended] == [0] * len(orders), [err for (_, err), status in ended if status]
    results = [json.loads(out) for (out, _), _ in ended]
    for (name, weight, _), result in zip(orders, results, strict=True):
        assert weight_of(repository / name / str(result["version"])) == weight
    live = [result for result in results if result["name"] == "live"]
    assert {result["status"] for result in live} == {"ok"}
    assert sorted(result["version"] for result in live) == list(range(1, len(live) + 1))
    same = [(result["status"], result["version"]) for result in results if result["name"] == "same"]
    assert sorted(same) == [("ok", 1)] + [("unchanged", 1)] * (IDENTICAL - 1)
    assert faults(repository, config_of=("live", "same")) == left_over(repository) == []
    assert list((tmp_path / "cache" / "scratch").glob("[0-9]*")) == []

    again = convkit("convert", *orders[-1][2], "-o", "models", "--name", "same", "--json", "--measure", "none").result
    assert again["status"] == "unchanged"
    assert all(stage["cached"] for stage in again["stages"] if stage["name"] != "publish")
