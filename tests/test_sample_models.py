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
MOBILE = SAMPLE_MODELS / "digits_mobile"
LINES = SAMPLE_MODELS / "python_lines"
NAMES = SAMPLE_MODELS / "python_names"
DOCS = SAMPLE_MODELS / "python_docs"
MACHINE_PATH = re.compile(rb"/(?:home|root|tmp|usr|Users)/|site-packages|" + re.escape(str(SAMPLE_MODELS).encode()))


def shipped_files() -> list[Path]:
    return [path for path in SAMPLE_MODELS.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def held_out(folder: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    with np.load(folder / "heldout.npz") as data:
        return data["image"], data["labels"]


def documented_accuracy(folder: Path, title: str = "Held-out accuracy") -> tuple[str, int, int]:
    """The README's figure as (ratio, correct, total)."""
    readme = (folder / "README.md").read_text(encoding="utf-8")
    figure = re.search(rf"^{title}: (\S+) \((\d+) of (\d+)\)$", readme, re.MULTILINE)
    assert figure is not None, f"{folder.name}/README.md states no accuracy"
    ratio, correct, total = figure.groups()
    return ratio, int(correct), int(total)


def measured_accuracy(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[str, int, int]:
    correct = int((scores.argmax(axis=1) == labels).sum())
    return f"{correct / len(labels):.4f}", correct, len(labels)


def test_the_sample_models_are_under_three_megabytes_together_and_none_above_one() -> None:
    by_model = dict.fromkeys(SAMPLE_MODELS.iterdir(), 0)
    for path in shipped_files():
        by_model[SAMPLE_MODELS / path.relative_to(SAMPLE_MODELS).parts[0]] += path.stat().st_size

    assert sum(by_model.values()) < 3_000_000
    assert max(by_model.values()) < 1_000_000


def test_no_file_of_the_sample_models_names_a_path_of_the_machine_that_made_it() -> None:
    naming = {path: match for path in shipped_files() if (match := MACHINE_PATH.search(path.read_bytes()))}

    assert naming == {}


@pytest.mark.parametrize("folder", [CNN, KERAS, MOBILE], ids=lambda folder: folder.name)
def test_calibration_and_held_out_images_have_the_wire_name_type_and_shape_of_config_txt(folder: Path) -> None:
    [tensor] = json.loads((folder / "config.txt").read_text(encoding="utf-8"))["input"]
    for name in ("calibration.npz", "heldout.npz"):
        with np.load(folder / name) as data:
            images = data[tensor["node_name"]]

        assert images.dtype == np.float32
        assert [-1, *images.shape[1:]] == tensor["dims"]
        assert (images.min(), images.max()) == (0.0, 1.0)


@pytest.mark.parametrize("folder", [CNN, MOBILE], ids=lambda folder: folder.name)
def test_no_calibration_image_is_among_the_held_out_ones(folder: Path) -> None:
    with np.load(folder / "calibration.npz") as data:
        calibration = {image.tobytes() for image in data["image"]}

    assert calibration.isdisjoint(image.tobytes() for image in held_out(folder)[0])


@pytest.mark.parametrize("folder", [CNN, MOBILE], ids=lambda folder: folder.name)
def test_pytorch_reads_the_held_out_digits_as_well_as_the_readme_says(folder: Path) -> None:
    import torch

    model = runpy.run_path(str(folder / "model.py"))["load_model"]()
    images, labels = held_out(folder)
    with torch.inference_mode():
        logits = model(torch.from_numpy(images)).numpy()

    assert documented_accuracy(folder) == measured_accuracy(logits, labels)
    assert float(documented_accuracy(folder)[0]) >= 0.98


def test_the_list_of_sample_models_gives_each_with_its_accuracy() -> None:
    listed = (SAMPLE_MODELS / "README.md").read_text(encoding="utf-8")

    found = dict(re.findall(r"^\| \[(\w+)\].*\| ([\d.]+) \|$", listed, re.MULTILINE))

    assert found == {folder.name: documented_accuracy(folder)[0] for folder in (CNN, KERAS, MOBILE, LINES, NAMES, DOCS)}


def test_pytorch_reads_the_held_out_lines_as_well_as_the_readme_says() -> None:
    import torch

    model = runpy.run_path(str(LINES / "model.py"))["load_model"]()
    with np.load(LINES / "heldout.npz") as data, np.load(LINES / "heldout_tags.npz") as more:
        lines, labels = {name: torch.from_numpy(data[name]) for name in ("tokens", "mask")}, data["labels"]
        tag_labels, shown = more["labels"], data["mask"] > 0
    with torch.inference_mode():
        kind, tags = (output.numpy() for output in model(**lines))

    assert documented_accuracy(LINES) == measured_accuracy(kind, labels)
    assert float(documented_accuracy(LINES)[0]) >= 0.95
    tags_accuracy = documented_accuracy(LINES, "Held-out accuracy of tags")
    assert tags_accuracy == measured_accuracy(tags[shown], tag_labels[shown])
    assert float(tags_accuracy[0]) >= 0.9


def test_what_stands_behind_the_end_of_a_line_changes_nothing() -> None:
    import torch

    model = runpy.run_path(str(LINES / "model.py"))["load_model"]()
    with np.load(LINES / "heldout.npz") as data:
        tokens, mask = torch.from_numpy(data["tokens"][:50]), torch.from_numpy(data["mask"][:50])
    noise = torch.randint(0, 128, tokens.shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        kind, tags = model(tokens, mask)
        other_kind, other_tags = model(torch.where(mask > 0, tokens, noise), mask)

    torch.testing.assert_close(other_kind, kind)
    torch.testing.assert_close(other_tags[mask > 0], tags[mask > 0])


def test_calibration_and_held_out_lines_are_ascii_ended_by_the_mask_and_none_is_in_both() -> None:
    lines = {}
    for name in ("calibration", "heldout"):
        with np.load(LINES / f"{name}.npz") as data:
            tokens, mask = data["tokens"], data["mask"]
        assert tokens.dtype == mask.dtype == np.int64
        assert tokens.shape == mask.shape
        assert ((tokens >= 32) & (tokens < 127) == (mask == 1)).all()
        assert ((tokens == 0) == (mask == 0)).all()
        lines[name] = {line.tobytes() for line in tokens}

    assert lines["calibration"].isdisjoint(lines["heldout"])


def test_pytorch_recommends_names_as_well_as_the_readme_says_and_better_than_their_popularity_does() -> None:
    import torch

    model = runpy.run_path(str(NAMES / "model.py"))["load_model"]()
    with np.load(NAMES / "heldout.npz") as data:
        pairs = dict(data)
    labels = {"uses": pairs.pop("labels"), "defines": pairs.pop("labels_defines")}
    with torch.inference_mode():
        uses, defines = model(**{name: torch.from_numpy(array) for name, array in pairs.items()})

    found = {"Held-out accuracy": (uses, "uses"), "Held-out accuracy of defines": (defines, "defines")}
    for title, (logits, task) in found.items():
        accuracy = documented_accuracy(NAMES, title)
        assert accuracy == measured_accuracy(logits.numpy(), labels[task])
        assert float(accuracy[0]) >= float(documented_accuracy(NAMES, f"By the name alone, {task}")[0]) + 0.03


def test_the_recommenders_ids_lie_in_the_ranges_of_config_txt_and_no_calibration_pair_is_held_out() -> None:
    inputs = json.loads((NAMES / "config.txt").read_text(encoding="utf-8"))["input"]
    pairs = {}
    for name in ("calibration", "heldout"):
        with np.load(NAMES / f"{name}.npz") as data:
            for tensor in inputs:
                array = data[tensor["name"]]
                assert [-1, *array.shape[1:]] == tensor["dims"]
                if "range" in tensor:
                    low, high = tensor["range"]
                    assert array.dtype == np.int64
                    assert ((array >= low) & (array <= high)).all()
            pairs[name] = set(zip(data["module"][:, 0].tolist(), data["name"][:, 0].tolist(), strict=True))

    assert pairs["calibration"].isdisjoint(pairs["heldout"])


def test_the_recommenders_tasks_use_every_expert_and_weigh_them_differently() -> None:
    import torch

    model = runpy.run_path(str(NAMES / "model.py"))["load_model"]()
    weights: dict[str, torch.Tensor] = {}
    for task in ("uses", "defines"):
        gate = getattr(model, task).gate
        gate.register_forward_hook(lambda _module, _inputs, out, task=task: weights.update({task: out.softmax(dim=1)}))
    with np.load(NAMES / "heldout.npz") as data, torch.inference_mode():
        model(**{name: torch.from_numpy(data[name]) for name in ("module", "package", "name", "features")})

    for shares in weights.values():
        assert shares.mean(dim=0).min() > 0.02
    assert (weights["uses"] - weights["defines"]).abs().mean() > 0.02


def test_tensorflow_matches_texts_as_well_as_the_readme_says_and_better_than_common_words_do() -> None:
    match, labels = matched()

    assert documented_accuracy(DOCS) == measured_accuracy(match, labels)
    assert float(documented_accuracy(DOCS)[0]) >= float(documented_accuracy(DOCS, "By words in common")[0]) + 0.03


def test_what_stands_behind_the_end_of_a_text_changes_nothing() -> None:
    match, _ = matched(slice(50))
    longer, _ = matched(slice(50), behind=7)

    np.testing.assert_allclose(longer, match, atol=1e-5)


def matched(rows: slice = slice(None), behind: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What the SavedModel says of held-out pairs with so many zeros more behind each text, and their labels."""
    import tensorflow as tf

    serving = tf.saved_model.load(str(DOCS)).signatures["serving_default"]
    with np.load(DOCS / "heldout.npz") as data:
        texts = {name: np.pad(data[name][rows], ((0, 0), (0, behind))) for name in ("summary", "body")}
        labels = data["labels"][rows]
    answers = serving(**{name: tf.constant(text) for name, text in texts.items()})
    return answers["match"].numpy(), labels


@pytest.mark.parametrize(("per_channel", "at_most"), [(False, 0.6), (True, 0.9)])
def test_plain_int8_hurts_the_mobilenet(per_channel: bool, at_most: float, tmp_path: Path) -> None:
    scores, labels = scores_in_plain_int8(MOBILE, tmp_path, per_channel=per_channel)

    assert float(measured_accuracy(scores, labels)[0]) <= at_most


def test_plain_int8_does_not_hurt_the_cnn(tmp_path: Path) -> None:
    scores, labels = scores_in_plain_int8(CNN, tmp_path, per_channel=False)

    assert float(measured_accuracy(scores, labels)[0]) >= 0.98


def scores_in_plain_int8(
    folder: Path, scratch: Path, *, per_channel: bool
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What ONNX Runtime's own static quantization, min-max over the calibration data, makes of a model's answers."""
    import onnxruntime
    import torch
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Calibration(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            with np.load(folder / "calibration.npz") as data:
                self.batches = iter(np.split(data["image"], 10))

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"image": batch}

    model = runpy.run_path(str(folder / "model.py"))["load_model"]()
    images, labels = held_out(folder)
    exported, quantized = scratch / "fp32.onnx", scratch / "int8.onnx"
    shapes = {"image": {0: torch.export.Dim.DYNAMIC}}
    torch.onnx.export(
        model, (torch.from_numpy(images[:2]),), exported, input_names=["image"], dynamo=True, dynamic_shapes=shapes
    )
    quantize_static(exported, quantized, Calibration(), per_channel=per_channel)
    session = onnxruntime.InferenceSession(quantized, providers=["CPUExecutionProvider"])
    [scores] = session.run(None, {"image": images})
    return scores, labels


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
