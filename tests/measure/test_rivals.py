"""What else a model could run in, timed beside it: torch.compile, OpenVINO."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from report.samples import FP32, INT8, TORCH, faster_report, latency
from triton_server.models import RELU, graph, interface, relu, tensor

from convkit import rivals
from convkit.graph.model import Model, save_model, save_tensors
from convkit.pipeline.cache import Cache
from convkit.pipeline.runner import Contender, Runner
from convkit.pipeline.stopwatch import Timing
from convkit.report.document import Role, Subject
from convkit.report.latency import Comparison, Finding
from convkit.report.markdown import to_markdown
from convkit.report.verdict import improved, worsened
from convkit.rivals import find_rivals
from convkit.sources import torch_compile
from convkit.sources.torch import time_torch
from convkit.sources.torch_compile import compile_torch
from convkit.spec.tensor import DType

SAMPLES = {"x:0": np.array([[-1, 2, 3]], np.float32)}


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Runner]:
    with Runner(Cache(tmp_path / "cache"), observer=lambda event: None) as running:
        yield running


def found(run: Runner, model: Model, *, target: str = "onnxruntime", source: Contender[Timing] | None = None) -> list:
    samples = save_tensors([SAMPLES])
    return find_rivals(run, source, model, samples, target=target, framework=TORCH, seconds=0.01)


def test_openvino_runs_the_fp32_graph_where_it_is_not_the_target(run: Runner) -> None:
    model = save_model(relu(), RELU)

    ((rival, contender),) = found(run, model)

    assert (rival.label, rival.is_timed) == ("OpenVINO FP32", True)
    assert rival.said.startswith("OpenVINO FP32: OpenVINO 20")
    assert rival.file_bytes
    rounds = run.alternate([contender], rounds=2, title="Measure")
    assert all(timing.latencies_ns for timing in rounds[0])
    assert not {name for name in run.libraries if "openvino" in name}
    assert found(run, model, target="openvino") == []


def test_what_openvino_cannot_run_is_a_sentence_and_no_failure(run: Runner) -> None:
    node = onnx.helper.make_node("Unheard", ["x:0"], ["y:0"], domain="of.nobody")
    strange = save_model(graph([node], RELU), RELU)
    texts = interface([tensor("text", DType.STRING, 3)], [tensor("same", DType.STRING, 3)])
    strings = save_model(graph([onnx.helper.make_node("Identity", ["text"], ["same"])], texts), texts)

    said = [found(run, model)[0] for model in (strange, strings)]

    assert [(rival.is_timed, contender) for rival, contender in said] == [(False, None)] * 2
    assert said[0][0].said.startswith("OpenVINO was not measured: OpenVINO 20")
    assert "Unheard" in said[0][0].said
    assert said[1][0].said == "OpenVINO was not measured: 'text' holds strings."
    ((rival, contender),) = found(run, save_model(relu(), RELU))  # in a worker of its own
    assert rival.is_timed
    assert contender is not None


def of_torch(folder: Path) -> Contender[Timing]:
    """What times a PyTorch model as it is."""
    import torch

    from convkit.sources.find import find_model
    from convkit.sources.open import open_source
    from convkit.spec.metadata import read_metadata
    from convkit.spec.options import ExportOptions

    folder.mkdir()
    (folder / "config.txt").write_text(
        '{"input": [{"name": "x:0", "data_type": "float", "dims": [-1, 3], "node_name": "x:0"}],'
        ' "output": [{"name": "y", "data_type": "float", "dims": [-1, 3], "node_name": "y"}], "batch_size": 8}'
    )
    torch.save(torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU()), folder / "model.pth")
    found_model = find_model(folder)
    source = open_source(found_model, read_metadata(folder / "config.txt"), ExportOptions(), ("yes",), "convkit")
    return Contender(
        time_torch,
        source.source,
        metadata=source.metadata,
        options=source.options,
        inputs=save_tensors([SAMPLES]),
        seconds=0.01,
    )


def test_without_a_compiler_torch_compile_is_a_sentence(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rivals, "find_compiler", lambda: None)

    (rival, contender), _ = found(run, save_model(relu(), RELU), source=of_torch(tmp_path / "net"))

    assert contender is None
    assert rival.said == "torch.compile was not measured: there is no C++ compiler here."


def test_a_compiler_that_fails_is_a_sentence_and_the_framework_is_still_timed(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    false = shutil.which("false")
    assert false
    monkeypatch.setenv("CXX", false)
    source = of_torch(tmp_path / "net")

    (rival, contender), _ = found(run, save_model(relu(), RELU), source=source)

    assert contender is None
    assert rival.said.startswith("torch.compile was not measured: ")
    (rounds,) = run.alternate([source], rounds=1, title="Measure")
    assert rounds[0].latencies_ns


def test_compilation_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_compile, "LONGEST_S", 0.05)
    arguments = of_torch(tmp_path / "net").arguments
    given = {name: value for name, value in arguments.items() if name not in ("gpu", "seconds")}

    compiled = compile_torch(**compile_torch.decode_arguments(given))

    assert compiled.problem == "it takes longer than 0.05 s"


@pytest.mark.soak
@pytest.mark.skipif(torch_compile.find_compiler() is None, reason="there is no C++ compiler here")
def test_torch_compile_is_timed_in_alternation_with_the_module_as_it_is(run: Runner, tmp_path: Path) -> None:
    source = of_torch(tmp_path / "net")

    (rival, contender), _ = found(run, save_model(relu(), RELU), source=source)

    assert rival.label == f"{TORCH}, compiled"
    assert contender is not None, rival.said
    eager, compiled = run.alternate([source, contender], rounds=2, title="Measure")
    assert all(timing.latencies_ns for timing in (*eager, *compiled))


def test_a_rival_is_a_column_and_a_row_and_no_verdict() -> None:
    plain = faster_report()
    other = Subject(label="OpenVINO FP32", role=Role.OTHER, latency=latency(0.001), file_bytes=1)
    slower = Comparison(
        before=other.label, after=INT8, speedup=0.01, low=0.009, high=0.011, rounds=20, finding=Finding.SLOWER
    )
    report = msgspec.structs.replace(
        plain, subjects=(plain.subjects[0], other, *plain.subjects[1:]), comparisons=(*plain.comparisons, slower)
    )

    assert (worsened(report), tuple(improved(report))) == (worsened(plain), tuple(improved(plain)))
    text = to_markdown(report)
    assert f"| {TORCH} (source) | OpenVINO FP32 (other) | {FP32} (baseline) | {INT8} (final) |" in text
    (row,) = [line for line in text.splitlines() if f"{INT8} against OpenVINO FP32" in line]
    assert "SLOWER" in row
