"""The accuracy budget of an engine that is built elsewhere: carried beside it, judged by `convkit build`.

TensorRT and the GPU are stood in for: the engine answers from its ONNX graph in ONNX Runtime, or wrong on purpose.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e.command import Command
from e2e.digits import CNN

from convkit import built_accuracy, convert, evaluation
from convkit.errors import CheckError, ConvkitError, UsageError
from convkit.graph.model import Tensors, read_npz, save_tensors
from convkit.graph.session import open_session, run_model, run_session
from convkit.measure.gates import Verdict
from convkit.pipeline.artifact import Artifact
from convkit.pipeline.runner import Runner
from convkit.pipeline.step import Step
from convkit.report.document import Report, read_report
from convkit.spec.tensor import Interface
from convkit.targets import tensorrt, trt_make
from convkit.targets.answering import answers_to
from convkit.targets.build_plan import read_build_plan
from gates.made_up import GPU, made_engine

INT8 = ("--trust", "--to", "tensorrt", "--engine", "defer", "--quantize", "int8", "--measure", "none")
CALIBRATED = ("--calibration-data", CNN.calibration)
HELD_OUT = CNN.folder / "heldout.npz"
Build = Callable[..., tuple[Report, ...]]
Scores = Callable[[Any], Any]


@pytest.fixture
def prepare(convkit: Command, repository: Path) -> Callable[..., Path]:
    """Convert the sample to an engine to be built, its accuracy bounded; return the pending folder."""

    def run(*asked: object) -> Path:
        convkit.converted(CNN.folder, *INT8, *CALIBRATED, "-o", repository, *asked)
        return repository / "digits_cnn" / "pending" / "1"

    return run


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, repository: Path) -> Callable[[Scores], list[int]]:
    """Let the engine answer what the graph answers, changed by a function; return how many rows each batch had."""

    def install(change: Scores) -> list[int]:
        batches: list[int] = []
        graph = repository / "digits_cnn" / "pending" / "1" / "model.onnx"
        monkeypatch.setattr(built_accuracy, "answer_tensorrt", answering(lambda: graph, change, batches))
        return batches

    return install


def answering(graph: Callable[[], Path], change: Scores, batches: list[int]) -> Callable[..., Tensors]:
    """Stand in for `answer_tensorrt`: the graph's answers, changed; `batches` gets the number of rows of each batch."""

    def answer(
        _: Any, *, interface: Interface, data: Artifact, outputs: tuple[str, ...], at_most: int | None, on: Any
    ) -> Tensors:
        assert on == GPU
        session = open_session(graph())

        def scores(inputs: dict[str, Any]) -> dict[str, Any]:
            batches.append(len(inputs["image"]))
            return {name: change(array) for name, array in run_session(session, outputs, inputs).items()}

        return save_tensors(answers_to(interface, data, outputs, at_most, scores), digits=6)

    return answer


def as_it_is(scores: Any) -> Any:
    return scores


def upside_down(scores: Any) -> Any:
    return -scores


def test_an_engine_within_its_budget_is_published_with_its_own_accuracy(
    prepare: Callable[..., Path], engine: Callable[[Scores], list[int]], build_here: Build, convkit: Command
) -> None:
    pending = prepare("--eval-data", HELD_OUT, "--max-drop", "1%")
    repository = pending.parents[2]
    told = read_report((pending / "report.json").read_bytes(), where="report.json").accuracy
    assert told is not None
    assert told.emulated is True
    gate = read_build_plan(pending / "build.json").accuracy
    assert gate is not None
    assert (gate.metric, gate.labels, gate.max_drop, gate.source) == ("top1", "labels", 0.01, told.source)
    assert (pending / "evaluation" / "data" / "000000.npz").read_bytes() == HELD_OUT.read_bytes()
    assert convkit("check", repository, "--json").exit_status == 0
    batches = engine(as_it_is)

    (report,) = build_here(repository)

    assert sum(batches) == told.samples
    assert report.accuracy is not None
    assert (report.accuracy.emulated, report.accuracy.verdict) == (False, Verdict.PASSED)
    assert report.accuracy.final == told.final, "the graph's own answers"
    assert [(gate.name, gate.verdict) for gate in report.gates] == [("max-drop", Verdict.PASSED)]
    version = repository / "digits_cnn" / "1"
    published = read_report((version / "convkit" / "report.json").read_bytes(), where="report.json")
    assert published.accuracy == report.accuracy
    page = (version / "convkit" / "report.md").read_text("utf-8")
    assert "judged anew by convkit build on NVIDIA Fake" in page
    assert "emulated" not in page
    kept = version / "convkit" / "evaluation" / "data" / "000000.npz"
    assert kept.read_bytes() == HELD_OUT.read_bytes(), "an engine for another GPU will be judged, too"
    assert not pending.exists()
    again = convkit.converted(
        *(CNN.folder, *INT8, *CALIBRATED, "-o", repository, "--eval-data", HELD_OUT, "--max-drop", "1%")
    )
    assert again.result["status"] == "unchanged"
    assert convkit("check", repository, "--json").exit_status == 0


def test_an_engine_beyond_its_budget_is_not_published_and_stays_pending(
    prepare: Callable[..., Path], engine: Callable[[Scores], list[int]], build_here: Build
) -> None:
    pending = prepare("--eval-data", HELD_OUT, "--max-drop", "1%")
    engine(upside_down)

    with pytest.raises(CheckError) as refused:
        build_here(pending.parents[2])

    assert (refused.value.code, int(refused.value.exit_status)) == ("gates.failed", 5)
    assert "--max-drop: asked for at most 0.01 (1 %), found" in refused.value.message
    document = refused.value.document
    assert isinstance(document, Report)
    assert document.accuracy is not None
    assert document.accuracy.final is not None
    assert document.accuracy.final < 0.1
    assert (document.accuracy.emulated, document.accuracy.verdict) == (False, Verdict.FAILED)
    assert not (pending.parents[1] / "1").exists()
    assert (pending / "evaluation" / "data" / "000000.npz").is_file()


def test_agreement_carries_what_the_source_chose_and_no_more(
    prepare: Callable[..., Path], engine: Callable[[Scores], list[int]], build_here: Build, tmp_path: Path
) -> None:
    np.savez(tmp_path / "unlabelled.npz", image=CNN.images[:100])
    pending = prepare("--eval-data", tmp_path / "unlabelled.npz", "--max-drop", "5%")

    kept = [read_npz(path)["logits"] for path in sorted((pending / "evaluation" / "answers").iterdir())]
    assert np.concatenate(kept).tolist() == CNN.scores[:100].argmax(1).tolist()
    engine(upside_down)
    with pytest.raises(CheckError, match="--max-drop"):
        build_here(pending.parents[2])
    engine(as_it_is)
    (report,) = build_here(pending.parents[2])
    assert report.accuracy is not None
    assert (report.accuracy.metric, report.accuracy.source, report.accuracy.emulated) == ("agreement", 1.0, False)
    assert report.accuracy.final is not None
    assert report.accuracy.final >= 0.95


@pytest.fixture
def too_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, repository: Path, convkit: Command) -> tuple[Path, Path]:
    """A pending engine whose evaluation data are more than is carried; and those data."""
    monkeypatch.setattr(evaluation, "MOST_CARRIED", 1000)
    data = tmp_path / "held out" / "rows.npz"
    data.parent.mkdir()
    shutil.copy(HELD_OUT, data)
    report = convert(
        str(CNN.folder),
        trust=True,
        to="tensorrt",
        engine="defer",
        quantize={"precision": "int8", "data": str(CNN.calibration)},
        measure={"mode": "none"},
        accuracy={"data": str(data), "max_drop": "1%"},
        output=str(repository),
        cache=convkit.cache,
    )
    (warning,) = [warning for warning in report.warnings if warning.code == "accuracy.data-left"]
    assert f"take {data} along" in warning.message
    pending = repository / "digits_cnn" / "pending" / "1"
    assert not (pending / "evaluation").exists()
    return pending, data


def test_data_too_large_to_be_carried_are_named_and_must_be_the_same(
    too_large: tuple[Path, Path], engine: Callable[[Scores], list[int]], build_here: Build, tmp_path: Path
) -> None:
    pending, data = too_large
    engine(as_it_is)
    np.savez(tmp_path / "other.npz", image=CNN.images, labels=CNN.labels[::-1])
    for named, code in ((None, "build.no-data"), (tmp_path / "other.npz", "build.other-data")):
        with pytest.raises(ConvkitError) as refused:
            build_here(pending.parents[2], eval_data=named)
        assert refused.value.code == code
        assert (pending / "build.json").is_file()

    (report,) = build_here(pending.parents[2], eval_data=data.parent)

    assert report.accuracy is not None
    assert (report.accuracy.emulated, report.accuracy.drop) == (False, report.gates[0].found)


def test_a_metric_of_the_users_own_is_code_that_is_named_again(
    prepare: Callable[..., Path], engine: Callable[[Scores], list[int]], build_here: Build, tmp_path: Path
) -> None:
    text = "def hits(outputs, labels):\n    return float((outputs['logits'].argmax(1) == labels).sum())\n"
    for folder in ("here", "there", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "task.py").write_text(text + ("# changed\n" if folder == "other" else ""))
    asked = ("--metric", f"{tmp_path / 'here' / 'task.py'}:hits", "--max-drop", "5")
    pending = prepare("--eval-data", HELD_OUT, *asked)
    engine(as_it_is)
    for named, code in ((None, "build.no-metric"), ("other", "build.other-metric")):
        with pytest.raises(ConvkitError) as refused:
            build_here(pending.parents[2], metric=named and f"{tmp_path / named / 'task.py'}:hits")
        assert refused.value.code == code

    (report,) = build_here(pending.parents[2], metric=f"{tmp_path / 'there' / 'task.py'}:hits")

    assert report.accuracy is not None
    assert report.accuracy.final is not None
    assert report.accuracy.final > 400
    assert report.accuracy.emulated is False


def test_rows_that_were_damaged_on_the_way_are_refused_before_anything_is_built(
    prepare: Callable[..., Path], build_here: Build
) -> None:
    pending = prepare("--eval-data", HELD_OUT, "--max-drop", "1%")
    rows = pending / "evaluation" / "data" / "000000.npz"
    rows.write_bytes(rows.read_bytes()[:-1] + b"?")

    with pytest.raises(ConvkitError, match="is not the file that"):
        build_here(pending.parents[2])


def test_data_that_nothing_wants_are_refused(prepare: Callable[..., Path], build_here: Build) -> None:
    pending = prepare("--eval-data", HELD_OUT, "--max-drop", "1%")

    with pytest.raises(UsageError) as refused:
        build_here(pending.parents[2], eval_data=HELD_OUT)

    assert refused.value.code == "build.not-wanted"


@pytest.mark.parametrize("judged", [True, False])
def test_an_engine_whose_accuracy_is_judged_is_not_held_to_ten_decibels(
    judged: bool,
    prepare: Callable[..., Path],
    engine: Callable[[Scores], list[int]],
    build_here: Build,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pending = prepare(*(("--eval-data", HELD_OUT, "--max-drop", "1%") if judged else ()))
    engine(as_it_is)

    def noisy(_: Any, samples: Tensors) -> Tensors:
        """Answer as the source did, with noise of five decibels."""
        noise = np.random.default_rng(0)
        cases = []
        for path in sorted((pending / "references").iterdir()):
            scores = read_npz(path)["logits"]
            drawn = noise.standard_normal(scores.shape)
            drawn *= np.sqrt(np.square(scores).sum() / np.square(drawn).sum() / 10**0.5)
            cases.append({"logits": (scores + drawn).astype(scores.dtype)})
        return save_tensors(cases)

    monkeypatch.setattr("convkit.targets.trt_make.run_tensorrt", noisy)

    if not judged:
        with pytest.raises(CheckError, match="SQNR >= 10 dB"):
            build_here(pending.parents[2])
        return
    (report,) = build_here(pending.parents[2])
    assert report.checks[-1].tolerance == "SQNR >= 0 dB"
    assert [gate.name for gate in report.gates] == ["max-drop"], "a tolerance that nobody asked for is no gate"


@pytest.fixture
def gpu_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Scores], None]:
    """Let a conversion find a GPU, whose engine answers what the graph answers, changed by a function."""
    built: list[Any] = []

    def build_engine(model: Any, profiles: Any, options: Any, *, on: Any) -> Any:
        built.append(model)
        return made_engine(tmp_path / "engine", profiles, options)

    def run_engine(_: Any, samples: Tensors) -> Tensors:
        return save_tensors(run_model(built[-1], samples))

    def install(change: Scores) -> None:
        monkeypatch.setattr(tensorrt, "answer_tensorrt", answering(lambda: built[-1].path, change, []))

    run_step = Runner.__call__

    def run_here(self: Runner, called: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(called, Step):
            return run_step(self, called, *arguments, **options)
        return called(*arguments, **options)

    monkeypatch.setattr(Runner, "__call__", run_here)
    for name, stand_in in (
        ("gpu", lambda: GPU),
        ("tensorrt_version", lambda: "11.4.0.106"),
        ("installed", lambda _: True),
        ("driver_present", lambda: True),
    ):
        monkeypatch.setattr(tensorrt, name, stand_in)
    monkeypatch.setattr(trt_make, "build_tensorrt", build_engine)
    monkeypatch.setattr(trt_make, "run_tensorrt", run_engine)
    return install


def convert_here(convkit: Command, repository: Path) -> Report:
    return convert(
        str(CNN.folder),
        trust=True,
        to="tensorrt",
        engine="now",
        quantize={"precision": "int8", "data": str(CNN.calibration)},
        measure={"mode": "none"},
        accuracy={"data": str(HELD_OUT), "max_drop": "1%"},
        output=str(repository),
        cache=convkit.cache,
    )


def test_an_engine_that_is_built_at_once_is_judged_by_its_own_answers(
    gpu_here: Callable[[Scores], None], convkit: Command, repository: Path
) -> None:
    gpu_here(upside_down)
    with pytest.raises(CheckError) as refused:
        convert_here(convkit, repository)
    assert refused.value.code == "gates.failed"
    assert not (repository / "digits_cnn").exists()

    gpu_here(as_it_is)
    report = convert_here(convkit, repository)

    assert report.accuracy is not None
    assert (report.accuracy.emulated, report.accuracy.verdict) == (False, Verdict.PASSED)
    records = repository / "digits_cnn" / "1" / "convkit"
    gate = read_build_plan(records / "build.json").accuracy
    assert gate is not None
    assert (gate.carried, gate.max_drop) == (True, 0.01)
    assert (records / "evaluation" / "data" / "000000.npz").is_file()
    assert convkit("check", repository, "--json").exit_status == 0


def test_a_judgement_needs_neither_onnx_nor_its_runtime(tmp_path: Path) -> None:
    """As in a Triton container, where `convkit build` runs."""
    np.savez(tmp_path / "rows.npz", x=np.eye(3, dtype=np.float32), labels=np.arange(3))
    program = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(('onnx', 'onnxruntime', 'ml_dtypes'))\n"
        "from pathlib import Path\n"
        "import convkit.building\n"
        "from convkit.graph.model import save_tensors\n"
        "from convkit.measure.accuracy import evaluate_answers\n"
        "from convkit.measure.metrics import Metric\n"
        "from convkit.pipeline.artifact import gather\n"
        "from convkit.spec.tensor import DType, Interface, TensorSpec\n"
        "from convkit.targets.answering import answers_to\n"
        "x, y = (TensorSpec(name=name, dtype=DType.FLOAT32, dims=('n', 3)) for name in 'xy')\n"
        "interface, data = Interface(inputs=(x,), outputs=(y,)), gather(Path(sys.argv[1]), ['rows.npz'])\n"
        "answers = save_tensors(answers_to(interface, data, ('y',), None, lambda case: {'y': case['x']}))\n"
        "metric = Metric(name='top1', outputs=('y',), labels='labels')\n"
        "print(evaluate_answers(answers, interface=interface, data=data, metric=metric, references=None, "
        "at_most=None).value)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False, cwd=tmp_path
    )

    assert (ended.stdout, ended.returncode) == ("1.0\n", 0), ended.stderr
