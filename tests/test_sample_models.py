"""The sample models are small, as good as their READMEs say, and carry nothing of the machine that made them."""

import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from models.tf1_saved_model import INPUT, OUTPUT, make_tf1_saved_model
from numpy.typing import NDArray

SAMPLE_MODELS = Path(__file__).parent.parent / "sample_models"
CNN = SAMPLE_MODELS / "digits_cnn"
KERAS = SAMPLE_MODELS / "digits_keras"
MACHINE_PATH = re.compile(rb"/(?:home|root|tmp|usr|Users)/|site-packages|" + re.escape(str(SAMPLE_MODELS).encode()))


def shipped_files() -> list[Path]:
    return [path for path in SAMPLE_MODELS.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def held_out(folder: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    with np.load(folder / "heldout.npz") as data:
        return data["image"], data["labels"]


def documented_accuracy(folder: Path) -> tuple[str, int, int]:
    """The README's figure as (ratio, correct, total)."""
    readme = (folder / "README.md").read_text(encoding="utf-8")
    figure = re.search(r"^Held-out accuracy: (\S+) \((\d+) of (\d+)\)$", readme, re.MULTILINE)
    assert figure is not None, f"{folder.name}/README.md states no accuracy"
    ratio, correct, total = figure.groups()
    return ratio, int(correct), int(total)


def measured_accuracy(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[str, int, int]:
    correct = int((scores.argmax(axis=1) == labels).sum())
    return f"{correct / len(labels):.4f}", correct, len(labels)


def test_the_sample_models_are_under_a_megabyte_together() -> None:
    assert sum(path.stat().st_size for path in shipped_files()) < 1_000_000


def test_no_file_of_the_sample_models_names_a_path_of_the_machine_that_made_it() -> None:
    naming = {path: match for path in shipped_files() if (match := MACHINE_PATH.search(path.read_bytes()))}

    assert naming == {}


@pytest.mark.parametrize("folder", [CNN, KERAS], ids=lambda folder: folder.name)
def test_calibration_and_held_out_images_have_the_wire_name_type_and_shape_of_config_txt(folder: Path) -> None:
    [tensor] = json.loads((folder / "config.txt").read_text(encoding="utf-8"))["input"]
    for name in ("calibration.npz", "heldout.npz"):
        with np.load(folder / name) as data:
            images = data[tensor["node_name"]]

        assert images.dtype == np.float32
        assert [-1, *images.shape[1:]] == tensor["dims"]
        assert (images.min(), images.max()) == (0.0, 1.0)


def test_no_calibration_image_is_among_the_held_out_ones() -> None:
    with np.load(CNN / "calibration.npz") as data:
        calibration = {image.tobytes() for image in data["image"]}

    assert calibration.isdisjoint(image.tobytes() for image in held_out(CNN)[0])


def test_pytorch_reads_the_held_out_digits_as_well_as_the_readme_of_the_cnn_says() -> None:
    import torch

    model = runpy.run_path(str(CNN / "model.py"))["load_model"]()
    images, labels = held_out(CNN)
    with torch.inference_mode():
        logits = model(torch.from_numpy(images)).numpy()

    assert documented_accuracy(CNN) == measured_accuracy(logits, labels)
    assert float(documented_accuracy(CNN)[0]) >= 0.98


def test_tensorflow_reads_the_held_out_digits_as_well_as_the_readme_of_the_saved_model_says() -> None:
    import tensorflow as tf

    serving = tf.saved_model.load(str(KERAS)).signatures["serving_default"]
    images, labels = held_out(KERAS)
    probs = serving(image=tf.constant(images))["probs"].numpy()

    assert documented_accuracy(KERAS) == measured_accuracy(probs, labels)
    assert float(documented_accuracy(KERAS)[0]) >= 0.97


@pytest.mark.parametrize("signature", [True, False], ids=["with a signature", "without"])
def test_the_tensorflow_1_model_answers_to_the_names_of_dl_inferences_readme(signature: bool, tmp_path: Path) -> None:
    import tensorflow.compat.v1 as tf1

    make_tf1_saved_model(tmp_path, signature=signature, size=8, classes=5)
    with tf1.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
        meta_graph = tf1.saved_model.load(session, ["serve"], str(tmp_path))
        probs = session.run(OUTPUT, {INPUT: np.ones((2, 8, 8, 3), np.float32)})

    assert list(meta_graph.signature_def) == (["serving_default"] if signature else [])
    assert probs.shape == (2, 5)
    assert probs.sum(axis=1) == pytest.approx(1)
