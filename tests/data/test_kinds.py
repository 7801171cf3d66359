"""Data of every kind become the same rows: files, folders, images, lines of text and functions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convkit.data.open import open_data
from convkit.data.prepare import prepare_data
from convkit.errors import ConvkitError, InputError, StepError, UsageError
from convkit.graph.feed import labelled_batches
from convkit.pipeline.artifact import Artifact
from convkit.pipeline.cache import Cache
from convkit.pipeline.runner import Runner
from convkit.spec.preprocess import Colour, Interpolation, PreprocessOptions
from convkit.spec.tensor import DType, Interface, TensorSpec


def face(*inputs: TensorSpec) -> Interface:
    return Interface(inputs=inputs, outputs=())


ROWS = np.arange(20, dtype=np.float32).reshape(10, 2)
LABELS = np.arange(10) % 3
PAIRS = face(TensorSpec(name="x:0", alias="x", dtype=DType.FLOAT32, dims=("batch", 2)))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Runner]:
    with Runner(Cache(tmp_path / "cache"), observer=lambda event: None) as runner:
        yield runner


def rows_of(files: Artifact, interface: Interface, name: str) -> list[Any]:
    batches = labelled_batches(interface, files, labels=None, size=4)
    return [row for batch in batches for row in batch.inputs[name].tolist()]


class Rows:
    """What a model is given of some data: inputs under their names, and labels."""

    def __init__(self, text: Path | str, interface: Interface, **options: Any) -> None:
        labels, at_most = options.pop("labels", "labels"), options.pop("at_most", None)
        data = open_data(str(text), "--eval-data", options=PreprocessOptions(**options), labels=labels, at_most=at_most)
        prepared = prepare_data(
            data.raw,
            interface=interface,
            options=data.options,
            function=data.function,
            labels=labels,
            at_most=at_most,
            state="",
        )
        self.files, self.samples = prepared.files, prepared.samples
        self.interface = interface

    def __getitem__(self, name: str) -> list[Any]:
        return rows_of(self.files, self.interface, name)

    @property
    def labels(self) -> list[Any]:
        batches = labelled_batches(self.interface, self.files, labels="labels", size=4)
        return [label for batch in batches if batch.labels is not None for label in batch.labels.tolist()]


def refusal(kind: type[ConvkitError], text: Path | str, interface: Interface = PAIRS, **options: Any) -> ConvkitError:
    with pytest.raises(kind) as refused:
        Rows(text, interface, **options)
    assert refused.value.hint
    return refused.value


# Arrays


def test_a_folder_of_npy_files_has_one_for_each_tensor(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", ROWS)
    np.save(tmp_path / "labels.npy", LABELS)
    rows = Rows(tmp_path, PAIRS)

    assert rows["x:0"] == ROWS.tolist()
    assert rows.labels == LABELS.tolist()


def test_a_folder_of_folders_has_one_npy_file_for_each_sample(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for number, row in enumerate(ROWS):
        np.save(tmp_path / "x" / f"{number:03d}.npy", row)
    np.save(tmp_path / "labels.npy", LABELS)
    rows = Rows(tmp_path, PAIRS)

    assert rows["x:0"] == ROWS.tolist()
    assert rows.labels == LABELS.tolist()


def test_npy_files_of_other_lengths_are_told(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", ROWS)
    np.save(tmp_path / "labels.npy", LABELS[:9])

    assert "its arrays have [9, 10] rows" in refusal(InputError, tmp_path).message


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"text"])
def test_a_damaged_npy_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(content)

    assert "x.npy cannot be read as a .npy file" in refusal(InputError, tmp_path).message


def test_samples_of_other_lengths_are_kept_apart(tmp_path: Path) -> None:
    interface = face(TensorSpec(name="ids", dtype=DType.INT64, dims=("batch", "length")))
    (tmp_path / "ids").mkdir()
    for number, length in enumerate((3, 5, 3, 5, 3)):
        np.save(tmp_path / "ids" / f"{number}.npy", np.full(length, number))
    batches = labelled_batches(interface, Rows(tmp_path, interface).files, labels=None, size=8)

    assert sorted(batch.inputs["ids"].shape for batch in batches) == [(2, 5), (3, 3)]


def test_what_is_held_at_once_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convkit.data.shards.SHARD_BYTES", 24)
    np.save(tmp_path / "x.npy", ROWS)
    rows = Rows(tmp_path, PAIRS)

    assert len(rows.files.files) == 4  # three rows of 8 bytes in each, and one left
    assert rows["x:0"] == ROWS.tolist()


# Images

GRADIENT = np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3)


def photo(*dims: int | str, dtype: DType = DType.FLOAT32) -> Interface:
    return face(TensorSpec(name="image", dtype=dtype, dims=("batch", *dims)))


def save_image(path: Path, pixels: np.ndarray = GRADIENT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def only_row(folder: Path, interface: Interface, **options: Any) -> np.ndarray:
    (row,) = Rows(folder, interface, **options)["image"]
    return np.array(row)


def test_pixels_are_scaled_normalized_and_laid_out(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png")
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.1, 0.3)
    expected = (GRADIENT / 255 - mean) / std

    assert only_row(tmp_path, photo(8, 12, 3), mean=mean, std=std) == pytest.approx(expected, abs=1e-6)
    channels_first = only_row(tmp_path, photo(3, 8, 12), mean=mean, std=std)
    assert channels_first == pytest.approx(expected.transpose(2, 0, 1), abs=1e-6)


def test_whole_numbers_are_taken_as_they_are(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png")

    assert only_row(tmp_path, photo(8, 12, 3, dtype=DType.UINT8)).tolist() == GRADIENT.tolist()
    shifted = only_row(tmp_path, photo(8, 12, 3, dtype=DType.INT8), mean=(128.0,))
    assert shifted.tolist() == (GRADIENT.astype(int) - 128).tolist()
    assert "which int8 does not hold" in refusal(InputError, tmp_path, photo(8, 12, 3, dtype=DType.INT8)).message


@pytest.mark.parametrize(("colour", "order"), [("rgb", [0, 1, 2]), ("bgr", [2, 1, 0])])
def test_channels_are_in_the_order_asked_for(colour: str, order: list[int], tmp_path: Path) -> None:
    save_image(tmp_path / "a.png")
    row = only_row(tmp_path, photo(8, 12, 3, dtype=DType.UINT8), colour=Colour(colour))

    assert row.tolist() == GRADIENT[..., order].tolist()


@pytest.mark.parametrize("dims", [(1, 8, 12), (8, 12, 1), (8, 12)])
def test_an_input_of_one_channel_gets_grey(dims: tuple[int, ...], tmp_path: Path) -> None:
    save_image(tmp_path / "a.png")
    grey = np.asarray(Image.fromarray(GRADIENT).convert("L"))

    assert only_row(tmp_path, photo(*dims, dtype=DType.UINT8)).tolist() == grey.reshape(dims).tolist()


def test_images_are_resized_to_the_models_own_size_where_nothing_is_said(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png")
    expected = np.asarray(Image.fromarray(GRADIENT).resize((6, 4), Image.Resampling.BILINEAR))

    assert only_row(tmp_path, photo(4, 6, 3, dtype=DType.UINT8)).tolist() == expected.tolist()


def test_the_shorter_side_is_resized_and_the_centre_kept(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png")
    small = Image.fromarray(GRADIENT).resize((6, 4), Image.Resampling.BICUBIC).crop((1, 0, 5, 4))
    row = only_row(tmp_path, photo(4, 4, 3, dtype=DType.UINT8), resize=4, crop=4, interpolation=Interpolation.BICUBIC)

    assert row.tolist() == np.asarray(small).tolist()


def test_labels_come_from_the_folders_in_sorted_order(tmp_path: Path) -> None:
    for number, name in enumerate(["b/1.png", "b/2.png", "a/1.png", "c/deep/1.jpg"]):
        save_image(tmp_path / name, np.full((4, 4, 3), 40 * number, np.uint8))
    rows = Rows(tmp_path, photo(4, 4, 3))

    assert rows.labels == [0, 1, 1, 2]
    assert [round(255 * row[0][0][0]) for row in rows["image"]] == [80, 0, 40, 120]


def test_fewer_images_are_taken_evenly_from_all_classes(tmp_path: Path) -> None:
    for name in "abcd":
        for number in range(5):
            save_image(tmp_path / name / f"{number}.png", np.zeros((4, 4, 3), np.uint8))
    rows = Rows(tmp_path, photo(4, 4, 3), at_most=8)

    assert rows.labels == [0, 0, 1, 1, 2, 2, 3, 3]


def test_images_in_one_place_have_no_labels(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png")

    with pytest.raises(InputError, match="has no labels"):
        assert Rows(tmp_path, photo(8, 12, 3)).labels


@pytest.mark.parametrize(
    ("interface", "options", "message"),
    [
        (photo(8, 12, 5), {}, "is none that images fit: its dims do not tell the layout"),
        (photo("h", "w", "c"), {}, "its dims do not tell the layout"),
        (photo(3, 8, 3), {}, "its dims do not tell the layout"),
        (photo(3, 8, 12), {"colour": Colour.GREY}, "is none that images fit in grey"),
        (photo(7), {}, "the input image float32[batch, 7] is none that images fit"),
        (photo(4, 4, 3), {"resize": 4}, "'image' has the shape [4, 6, 3], a sample of image float32[batch, 4, 4, 3]"),
        (photo(4, 4, 3), {"crop": 10}, "a.png has 8 x 12 pixels once it is resized, and 10 x 10 are to be cropped"),
        (photo(8, 12, 3), {"mean": (0.5, 0.5)}, "gives 2 numbers for mean or std"),
        (face(*PAIRS.inputs, *photo(8, 12, 3).inputs), {}, "feeds one input, and the model has 2: x:0, image"),
    ],
)
def test_images_that_do_not_fit_are_told(
    interface: Interface, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    save_image(tmp_path / "a.png")

    assert message in refusal(InputError, tmp_path, interface, **options).message


def test_an_image_that_would_be_huge_once_it_is_resized_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (1, 50_000)).save(tmp_path / "a.png")

    error = refusal(InputError, tmp_path, photo("h", "w", 3), resize=256)

    assert "a.png has 50000 x 1 pixels, and would have 12800000 x 256 once it is resized" in error.message
    assert error.code == "data.image-size"


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    for content in (whole[: len(whole) // 2], b"no image", b""):
        (tmp_path / "a.png").write_bytes(content)

        assert "a.png cannot be read as an image" in refusal(InputError, tmp_path, photo(8, 12, 3)).message
    Image.fromarray(np.zeros((8, 12), np.uint16)).save(tmp_path / "a.png")
    assert "more than 8 bits" in refusal(InputError, tmp_path, photo(8, 12, 3)).message


# Functions

LENGTHS = """
import numpy as np

def tokenize(sample):
    text = sample["text"] if isinstance(sample, dict) else sample
    return {"x": np.array([len(text), text.count(" ")], np.float32)}
"""


def code(folder: Path, text: str, name: str = "code.py") -> Path:
    (folder / name).write_text("import numpy as np\n" + text)
    return folder / name


def test_a_function_yields_samples_without_the_batch(tmp_path: Path) -> None:
    file = code(
        tmp_path, "def data():\n    for n in range(9):\n        yield {'x': np.full(2, n, 'f4'), 'labels': n % 4}"
    )
    rows = Rows(f"{file}:data", PAIRS, at_most=6)

    assert rows["x:0"] == [[n, n] for n in range(6)]
    assert rows.labels == [0, 1, 2, 3, 0, 1]


def test_lines_of_text_become_arrays_by_a_function(tmp_path: Path) -> None:
    file = code(tmp_path, LENGTHS, "tokens.py")
    (tmp_path / "lines.txt").write_text("ab cd\n\nä b c\n")
    (tmp_path / "lines.jsonl").write_text('{"text": "ab cd", "kind": 1}\n{"text": "ä b c", "kind": 0}\n')

    for name in ("lines.txt", "lines.jsonl"):
        rows = Rows(tmp_path / name, PAIRS, function=f"{file}:tokenize", labels="kind")
        assert rows["x:0"] == [[5, 1], [5, 2]]
    assert [batch.labels.tolist() for batch in labelled_batches(PAIRS, rows.files, labels="kind", size=8)] == [[1, 0]]  # type: ignore[union-attr]
    assert "a text becomes arrays by a function" in refusal(UsageError, tmp_path / "lines.txt").message


def test_a_function_may_take_images_and_rows(tmp_path: Path) -> None:
    file = code(
        tmp_path,
        "def image(pixels):\n    return {'x': np.array(pixels.shape[:2], 'f4')}\n"
        "def row(arrays):\n    return {'x': arrays['raw'] * 2, 'labels': 7}",
    )
    save_image(tmp_path / "images" / "a.png")
    np.savez(tmp_path / "rows.npz", raw=ROWS)

    assert Rows(tmp_path / "images", PAIRS, function=f"{file}:image")["x:0"] == [[8, 12]]
    doubled = Rows(tmp_path / "rows.npz", PAIRS, function=f"{file}:row")
    assert doubled["x:0"] == (ROWS * 2).tolist()
    assert doubled.labels == [7] * 10


@pytest.mark.parametrize(
    ("body", "code_", "message"),
    [
        ("yield {'x': np.zeros((1, 2), 'f4')}", "data.shape", "sample 0: 'x:0' has the shape [1, 2], a sample of x:0"),
        ("yield {'x': np.zeros(2)}", "data.type", "sample 0: 'x:0' is float64, the model takes float32"),
        ("yield {'y': 1}", "data.missing-tensor", "sample 0 has no array called 'x:0' or 'x'"),
        ("yield {'x': np.full(2, np.nan, 'f4')}", "data.not-finite", "sample 0: 'x:0' holds NaN"),
        ("yield np.zeros(2, 'f4')", "data.no-dict", "sample 0 is a ndarray, not a dict of arrays"),
        ("yield {'x': [[1], [2, 3]]}", "data.no-array", "sample 0: 'x:0' is no array"),
        ("yield {'x': object()}", "data.no-array", "but a object"),
        ("yield {'x': ZERO}\n    yield {'x': ZERO, 'labels': 1}", "data.labels", "sample 1 has a label"),
        ("return []", "data.too-few", "the data hold no sample"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_sample_is_told_with_its_number(body: str, code_: str, message: str, tmp_path: Path) -> None:
    file = code(tmp_path, f"ZERO = np.zeros(2, 'f4')\ndef data():\n    {body}\n")
    error = refusal(InputError, f"{file}:data")

    assert error.code == code_
    assert message in error.message


def test_what_the_users_code_raises_is_told_with_its_line(tmp_path: Path) -> None:
    file = code(tmp_path, "def data():\n    yield {'x': np.zeros(2, 'f4')}\n    raise RuntimeError('lost')\n")

    error = refusal(StepError, f"{file}:data")
    assert "code.py:data raised RuntimeError: lost (code.py, line 4)" in error.message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.npz", "--eval-data {}/nothing.npz does not exist"),
        ("empty", "--eval-data {}/empty holds neither .npz nor .npy files, nor images"),
        ("notes.md", "notes.md is no kind of data that convkit knows"),
        ("gone.py:data", "--eval-data {}/gone.py does not exist"),
        ("code.py:absent", "defines no function absent()"),
        ("no_such_module:data", "there is no Python module 'no_such_module' here"),
    ],
)
def test_what_is_not_there_is_told(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.md").write_text("no data")
    code(tmp_path, "")
    text = name if name.startswith("no_such") else str(tmp_path / name)

    assert message.format(tmp_path) in refusal(InputError, text).message


# Remembered


def test_data_are_prepared_once_and_again_where_what_the_code_reads_has_changed(run: Runner, tmp_path: Path) -> None:
    file = code(
        tmp_path,
        "from pathlib import Path\nimport json\nhere = Path(__file__).parent\n"
        "def data():\n    for path in sorted((here / 'texts').glob('*.json')):\n"
        "        yield {'x': np.array(json.loads(path.read_text()), 'f4')}\n",
    )
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "1.json").write_text(json.dumps([1, 2]))

    def prepared() -> list[Any]:
        data = open_data(f"{file}:data", "--eval-data", options=PreprocessOptions())
        files = data.prepared(run, lambda: PAIRS)
        return rows_of(files, PAIRS, "x:0")

    assert prepared() == [[1, 2]]
    assert prepared() == [[1, 2]]
    assert [stage.cached for stage in run.stages] == [False, True]
    (tmp_path / "beside.txt").write_text("nobody reads this")
    assert prepared() == [[1, 2]]
    assert run.stages[-1].cached
    (tmp_path / "texts" / "1.json").write_text(json.dumps([3, 4]))
    assert prepared() == [[3, 4]]
    (tmp_path / "texts" / "2.json").write_text(json.dumps([5, 6]))
    assert prepared() == [[3, 4], [5, 6]]
    assert prepared() == [[3, 4], [5, 6]]
    assert run.stages[-1].cached


def test_images_are_prepared_again_where_an_image_or_the_recipe_has_changed(run: Runner, tmp_path: Path) -> None:
    interface = photo(8, 12, 3)

    def prepared(**options: Any) -> bool:
        data = open_data(str(tmp_path / "images"), "--eval-data", options=PreprocessOptions(**options))
        data.prepared(run, lambda: interface)
        return run.stages[-1].cached

    save_image(tmp_path / "images" / "a.png")
    assert [prepared(), prepared(), prepared(scale=1.0), prepared(scale=1.0)] == [False, True, False, True]
    save_image(tmp_path / "images" / "a.png", GRADIENT[::-1])
    assert [prepared(), prepared()] == [False, True]
