"""What `convkit build` sees inside the engine that it built: layers, their precision, and the gate that hangs on it.

The layers are a real TensorRT-RTX build's; the machine is stood in for (`deferred.machines`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from e2e.command import Command
from targets.tensorrt_networks import conv_network

from deferred.machines import L4, Container, Machine

On = Callable[[Machine], Container]


def prepared(folder: Path, *asked: str) -> Path:
    model = folder / "conv" / "conv.onnx"
    model.parent.mkdir()
    onnx.save(conv_network(), model)
    cache = folder / "cache"
    cache.mkdir()
    options = ("--quantize", "int8", "--allow-random-calibration", "--calibration-samples", "8")
    Command(cache).converted(
        model, "-o", folder / "models", "--to", "tensorrt", *options, "--set", "check.min_sqnr=5", *asked
    )
    return folder / "models"


def report_of(repository: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((repository / "conv" / "1" / "convkit" / "report.json").read_bytes())
    return found


def test_an_engine_that_is_built_elsewhere_is_judged_by_its_layers_and_leaves_its_timings(
    tmp_path: Path, on: On
) -> None:
    repository = prepared(tmp_path, "--min-low-precision", "0.1%")
    plan = json.loads((repository / "conv" / "pending" / "1" / "build.json").read_bytes())
    wanted = {node: work["precision"] for node, work in plan["work"].items()}

    volume = tmp_path / "volume"
    asked = ("--measure", "quick", "--json")
    outcome = on(L4).command("build", repository, *asked, variables={"CONVKIT_TIMING_CACHE": str(volume)})

    assert outcome.exit_status == 0, outcome.stderr
    report = report_of(repository)
    inside = report["inside"]
    assert inside["told_by"] == "the build's log"
    assert inside["seen_by"] == f"TensorRT {L4.tensorrt}"
    ran = {node: layer["precision"] for layer in inside["layers"] if layer["macs"] for node in layer["nodes"]}
    assert {node: ran[node] for node in wanted} == wanted
    final = report["subjects"][-1]
    assert final["latency"]["p50_ms"] > 0
    assert final["latency_alone"]["p50_ms"] > 0
    assert final["macs_seen_by"] == f"TensorRT {L4.tensorrt}"
    assert sum(final["macs"].values()) == sum(work["macs"] for work in plan["work"].values())
    assert ("min-low-precision", "passed") in [(gate["name"], gate["verdict"]) for gate in report["gates"]]
    [kept] = volume.rglob("*.timings")
    assert kept.parent.name == f"NVIDIA-L4-8.9-tensorrt-{L4.tensorrt}"


def test_where_a_gpu_is_convert_builds_checks_and_times_the_engine_in_both_ways(tmp_path: Path, on: On) -> None:
    model = tmp_path / "conv.onnx"
    onnx.save(conv_network(), model)

    outcome = on(L4).command(
        "convert", model, "-o", tmp_path / "models", "--to", "tensorrt", "--measure", "quick", "--json"
    )

    assert outcome.exit_status == 0, outcome.stderr
    assert outcome.result["engine"] == "built"
    report = report_of(tmp_path / "models")
    final = report["subjects"][-1]
    assert final["latency"]["p50_ms"] > 0
    assert final["latency_alone"]["p50_ms"] > 0
    assert not final["emulated"]
    how = " ".join(report["measured_how"])
    assert "copies to the GPU and back included, without a CUDA graph, as trtexec 10 measures" in how
    assert "without copies, as a CUDA graph, as trtexec 11 measures" in how
    assert report["inside"]["layers"]
