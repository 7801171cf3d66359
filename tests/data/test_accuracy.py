"""Accuracy through the real command: the source's, the final model's, and what may be lost between them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e.command import Command, Outcome, hold_to_head
from PIL import Image
from test_sample_models import CNN, KERAS, documented_accuracy

from convkit.errors import InputError, StepError, UsageError
from convkit.graph.model import save_tensors
from convkit.pipeline.artifact import gather
from convkit.report.document import read_report
from convkit.request import make_request
from convkit.sources.answers import Questions, answer_all
from convkit.spec.tensor import DType, Interface, TensorSpec

INT8 = ("--trust", "--quantize", "int8", "--calibration-data", str(CNN / "calibration.npz"))


@pytest.fixture(scope="module")
def convkit(tmp_path_factory: pytest.TempPathFactory) -> Command:
    return Command(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 120 held-out digits as grey PNGs, in a folder for each digit."""
    folder = tmp_path_factory.mktemp("images")
    with np.load(KERAS / "heldout.npz") as data:
        for number, (image, label) in enumerate(zip(data["image"][:120], data["labels"], strict=False)):
            (folder / f"digit {label}").mkdir(exist_ok=True)
            pixels = np.rint(image[..., 0] * 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"digit {label}" / f"{number:03d}.png")
    return folder


def accuracy_of(outcome: Outcome) -> dict[str, Any]:
    hold_to_head(outcome.result)
    accuracy = outcome.result["accuracy"]
    assert accuracy is not None, outcome.stderr
    return dict(accuracy)


def test_the_accuracy_of_source_and_result_is_measured_and_may_not_drop(convkit: Command, tmp_path: Path) -> None:
    outcome = convkit.converted(CNN, *INT8, "-o", tmp_path, "--eval-data", CNN / "heldout.npz", "--max-drop", "1%")
    accuracy = accuracy_of(outcome)

    _, correct, total = documented_accuracy(CNN)
    assert (accuracy["metric"], accuracy["output"], accuracy["samples"]) == ("top1", "logits", total)
    assert accuracy["source"] == pytest.approx(correct / total)
    assert accuracy["final"] >= accuracy["source"] - 0.01
    assert accuracy["drop"] == pytest.approx(accuracy["source"] - accuracy["final"])
    assert (accuracy["max_drop"], accuracy["verdict"], accuracy["emulated"]) == (0.01, "passed", False)
    (gate,) = outcome.result["gates"]
    assert gate == {"name": "max-drop", "asked": 0.01, "found": accuracy["drop"], "verdict": "passed"}
    records = tmp_path / "digits_cnn" / "1" / "convkit"
    report = read_report((records / "report.json").read_bytes(), where="report.json")
    assert report.accuracy is not None
    for page in ("report.md", "report.html"):
        text = (records / page).read_text(encoding="utf-8").replace("<wbr>", "")
        assert f"{100 * accuracy['source']:.2f} %" in text
        assert "at most 1.00 %" in text


def test_a_drop_beyond_what_was_asked_for_publishes_nothing(convkit: Command, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).random((3000, 1, 8, 8), np.float32)
    np.savez(tmp_path / "noise.npz", image=noise)
    asked = ("--eval-data", tmp_path / "noise.npz", "--max-drop", "0")
    outcome = convkit.convert(CNN, *INT8, "-o", tmp_path / "models", *asked)
    accuracy = accuracy_of(outcome)

    assert outcome.exit_status == 5
    assert outcome.result["error"]["code"] == "gates.failed"
    assert "--max-drop: asked for at most 0 (0 %), found" in outcome.result["error"]["message"]
    assert (accuracy["metric"], accuracy["source"], accuracy["verdict"]) == ("agreement", 1.0, "failed")
    assert 0.9 < accuracy["final"] < 1
    assert Path(outcome.result["candidate"]).is_file()
    assert not (tmp_path / "models" / "digits_cnn").exists()


def test_a_deferred_engine_is_judged_by_its_graph(convkit: Command, tmp_path: Path) -> None:
    asked = ("--to", "tensorrt", "--eval-data", CNN / "heldout.npz", "--max-drop", "1%")
    accuracy = accuracy_of(convkit.converted(CNN, *INT8, "-o", tmp_path, *asked))

    assert accuracy["emulated"] is True
    assert accuracy["verdict"] == "passed"


def test_images_are_prepared_for_a_model_that_describes_itself(convkit: Command, images: Path, tmp_path: Path) -> None:
    without_config = tmp_path / "digits"
    shutil.copytree(KERAS, without_config)
    (without_config / "config.txt").unlink()
    outcome = convkit.converted(without_config, "-o", tmp_path, "--eval-data", images, "--samples", images)
    of_keras = accuracy_of(outcome)

    assert of_keras["samples"] == 120
    assert of_keras["source"] == of_keras["final"] >= 0.95
    model = tmp_path / "digits" / "1" / "model.onnx"
    again = convkit.converted(model, "--name", "again", "-o", tmp_path, "--eval-data", images, "--max-drop", "0")
    assert accuracy_of(again)["source"] == of_keras["source"]


def test_a_recipe_names_metric_and_data_by_functions_beside_it(convkit: Command, tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(
        "import numpy as np\n"
        "def rows():\n"
        f"    with np.load({str(CNN / 'heldout.npz')!r}) as data:\n"
        "        for image, label in zip(data['image'], data['labels']):\n"
        "            yield {'image': image, 'digit': label}\n"
        "def errors(outputs, labels):\n"
        "    return -float((outputs['logits'].argmax(1) != labels).sum())\n"
    )
    (tmp_path / "recipe.toml").write_text(
        f'model = "{CNN}"\ntrust = ["yes"]\n[accuracy]\ndata = "task.py:rows"\nlabels = "digit"\nsamples = 200\n'
        'metric = "task.py:errors"\nmax_drop = 3\n'
    )
    outcome = convkit.convert(None, "--recipe", tmp_path / "recipe.toml", "-o", tmp_path / "models")
    accuracy = accuracy_of(outcome)

    assert outcome.exit_status == 0, outcome.stderr
    assert (accuracy["metric"], accuracy["output"]) == ("task.py:errors", None)
    assert accuracy["samples"] == 200
    assert accuracy["source"] == accuracy["final"] <= 0


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("{cnn}/calibration.npz", "--metric", "top1"), "data.no-labels", "no array is called 'labels'"),
        (("{cnn}/heldout.npz", "--labels-key", "y", "--metric", "top1"), "data.no-labels", "'y'"),
        (("{cnn}/nothing",), "data.missing", "nothing does not exist"),
        (("{keras}/heldout.npz",), "data.shape", "heldout.npz: 'image' has the shape [450, 8, 8, 1]"),
    ],
)
def test_data_that_cannot_be_judged_on_are_refused(
    convkit: Command, tmp_path: Path, options: tuple[str, ...], code: str, message: str
) -> None:
    given = [option.format(cnn=CNN, keras=KERAS) for option in options]
    outcome = convkit.convert(CNN, "--trust", "-o", tmp_path, "--eval-data", *given)

    assert outcome.exit_status == 3, outcome.stderr
    assert outcome.result["error"]["code"] == code
    assert message in outcome.result["error"]["message"]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ({"accuracy": {"max_drop": "1%"}}, "accuracy.no-data", "--max-drop: there are no data"),
        ({"accuracy": {"data": "d", "max_drop": "a bit"}}, "accuracy.max-drop", "--max-drop: 'a bit' is no drop"),
        ({"accuracy": {"data": "d", "metric": "f1"}}, "accuracy.metric", "--metric: there is no metric 'f1'"),
        ({"accuracy": {"data": "d", "budget_evals": 3}}, "accuracy.no-budget", "--budget-evals: it bounds the search"),
        ({"preprocess": {"crop": [1, 2, 3]}}, "preprocess.size", "preprocess.crop: it has 3 numbers"),
        ({"preprocess": {"colour": "grey", "mean": [1, 2, 3]}}, "preprocess.channels", "preprocess.mean: it has 3"),
        ({"preprocess": {"function": "a:b", "crop": 3}}, "preprocess.function", "crop would not be heeded"),
    ],
)
def test_options_that_mean_nothing_together_are_refused(options: dict[str, Any], code: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        make_request({"model": "m", **options}, environment={})

    assert refused.value.code == code
    assert message in refused.value.message


# The source's answers

FACE = Interface(
    inputs=(TensorSpec(name="x", dtype=DType.FLOAT32, dims=(4, 2)),),
    outputs=(TensorSpec(name="y", dtype=DType.FLOAT32, dims=(4, 2)),),
)


def questions(folder: Path, *, references: float) -> Questions:
    np.savez(folder / "data.npz", x=np.arange(20, dtype=np.float32).reshape(10, 2))
    case = {"x": np.ones((4, 2), np.float32)}
    return Questions(
        interface=FACE,
        data=gather(folder, ["data.npz"]),
        outputs=("y",),
        at_most=None,
        samples=save_tensors([case]),
        references=save_tensors([{"y": np.full((4, 2), references, np.float32)}]),
    )


def test_a_source_answers_every_row_and_none_that_only_fills_a_batch(tmp_path: Path) -> None:
    answers = answer_all(questions(tmp_path, references=2.0), lambda case: {"y": case["x"] * 2})

    assert [len(batch["y"]) for batch in answers] == [4, 4, 2]
    assert np.concatenate([batch["y"] for batch in answers]).ravel().tolist() == [2 * n for n in range(20)]


def test_a_model_that_was_built_again_and_is_another_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="it was built again, and is another"):
        answer_all(questions(tmp_path, references=2.1), lambda case: {"y": case["x"] * 2})


def test_evaluation_data_that_do_not_fit_are_told_by_the_source_already(tmp_path: Path) -> None:
    asked = questions(tmp_path, references=2.0)
    np.savez(tmp_path / "data.npz", x=np.zeros((3, 3), np.float32))

    with pytest.raises(InputError, match="'x' has the shape"):
        answer_all(asked, lambda case: {"y": case["x"] * 2})
