"""Batches on their way into a model: the same rows at any batch size, checked, and never held all at once."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.lib import format as npy

from convkit.errors import InputError
from convkit.graph.feed import batch_rows, batches, fixed_rows, labelled_batches
from convkit.pipeline.artifact import Artifact, gather
from convkit.spec.tensor import DType, Interface, TensorSpec


def spec(name: str, dtype: DType, *dims: int | str, **more: Any) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, dims=dims, **more)


def face(*inputs: TensorSpec) -> Interface:
    return Interface(inputs=inputs, outputs=())


IMAGES = face(spec("x", DType.FLOAT32, "batch", 2, alias="image"))
ROWS = np.arange(20, dtype=np.float32).reshape(10, 2)


def npz(folder: Path, name: str = "data.npz", *, packed: bool = False, **arrays: Any) -> Artifact:
    (np.savez_compressed if packed else np.savez)(folder / name, **arrays)
    return gather(folder, [name])


def lengths(data: Artifact, **options: Any) -> list[int]:
    return [len(batch["x"]) for batch in batches(IMAGES, data, **options)]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("size", [1, 3, 4, 10, 64])
@pytest.mark.parametrize("name", ["x", "image"])
def test_the_rows_are_the_same_whatever_the_batch(size: int, packed: bool, name: str, tmp_path: Path) -> None:
    given = list(batches(IMAGES, npz(tmp_path, packed=packed, **{name: ROWS}), size=size))

    assert np.concatenate([batch["x"] for batch in given]).tolist() == ROWS.tolist()
    assert {len(batch["x"]) for batch in given[:-1]} <= {size}


def test_batches_go_on_across_files_and_stop_in_time(tmp_path: Path) -> None:
    for number in range(3):
        npz(tmp_path, f"{number}.npz", x=ROWS[:3] + 100 * number)
    data = gather(tmp_path, ["0.npz", "1.npz", "2.npz"])

    assert lengths(data, size=4) == [4, 4, 1]
    assert lengths(data, size=4, at_most=6) == [4, 2]
    assert lengths(data, size=3, at_most=3) == [3]
    (tmp_path / "2.npz").unlink()  # what is not needed is not read
    assert lengths(data, size=4, at_most=6) == [4, 2]


def test_rows_of_other_shapes_are_never_in_one_batch(tmp_path: Path) -> None:
    interface = face(spec("ids", DType.INT64, "batch", "length"))
    for number, length in enumerate((5, 5, 7, 5)):
        npz(tmp_path, f"{number}.npz", ids=np.full((3, length), number))
    data = gather(tmp_path, [f"{number}.npz" for number in range(4)])

    assert [batch["ids"].shape for batch in batches(interface, data, size=4)] == [(4, 5), (2, 5), (3, 7), (3, 5)]


def test_a_fixed_batch_is_given_whole_and_evaluation_fills_the_last(tmp_path: Path) -> None:
    interface = face(spec("x", DType.FLOAT32, 4, 2))
    data = npz(tmp_path, x=ROWS, labels=np.arange(10))

    assert [len(batch["x"]) for batch in batches(interface, data, size=32)] == [4, 4]
    labelled = list(labelled_batches(interface, data, labels="labels", size=32))
    assert [batch.rows for batch in labelled] == [4, 4, 2]
    assert labelled[-1].inputs["x"].tolist() == ROWS[[8, 9, 9, 9]].tolist()
    assert labelled[-1].labels is not None
    assert labelled[-1].labels.tolist() == [8, 9]


def test_labels_go_with_their_rows(tmp_path: Path) -> None:
    data = npz(tmp_path, x=ROWS, classes=np.arange(10))

    for batch in labelled_batches(IMAGES, data, labels="classes", size=3):
        assert batch.labels is not None
        assert (batch.inputs["x"][:, 0] == 2 * batch.labels).all()
    assert all(batch.labels is None for batch in labelled_batches(IMAGES, data, labels=None, size=3))


def test_random_rows_are_the_same_whatever_the_batch() -> None:
    one, four = (
        np.concatenate([batch["x"] for batch in batches(IMAGES, None, size=size, at_most=6)]) for size in (1, 4)
    )

    assert one.shape == (6, 2)
    assert (one == four).all()


def test_every_type_comes_back_as_it_was(tmp_path: Path) -> None:
    interface = face(
        spec("b", DType.BFLOAT16, "batch"), spec("s", DType.STRING, "batch"), spec("f", DType.FLOAT64, "batch", 3)
    )
    bfloats, matrix = np.array([1.5, -2], ml_dtypes.bfloat16), np.asfortranarray(np.arange(6.0).reshape(2, 3))
    assert matrix.flags.f_contiguous
    first, second = batches(interface, npz(tmp_path, b=bfloats, s=np.array(["a", "ö"]), f=matrix), size=1)

    assert (first["b"].dtype, first["b"].tolist()) == (bfloats.dtype, [1.5])
    assert second["s"].tolist() == ["ö"]
    assert [*first["f"].tolist(), *second["f"].tolist()] == matrix.tolist()


@pytest.mark.parametrize(
    ("dims", "rows"),
    [(("batch", 2), 32), ((4, 2), 4), (("batch", 3, 1024, 1024), 5), (("batch", 1 << 30), 1)],
)
def test_a_batch_is_as_large_as_its_bytes_allow(dims: tuple[int | str, ...], rows: int) -> None:
    assert batch_rows(face(spec("x", DType.FLOAT32, *dims))) == rows


def refusal(interface: Interface, data: Artifact, *, labels: str | None = None) -> InputError:
    with pytest.raises(InputError) as refused:
        list(labelled_batches(interface, data, labels=labels, size=4))
    assert refused.value.hint
    return refused.value


BAD = ROWS.copy()
BAD[7, 1] = np.nan


@pytest.mark.parametrize(
    ("arrays", "code", "message"),
    [
        ({"other": ROWS}, "data.missing-tensor", "data.npz has no array called 'x' or 'image'"),
        ({"x": ROWS.astype("f8")}, "data.type", "data.npz: 'x' is float64, the model takes float32"),
        ({"x": ROWS.astype(">f4")}, "data.type", "data.npz: 'x' is >f4, the model takes float32"),
        ({"x": ROWS[:, :1]}, "data.shape", "data.npz: 'x' has the shape [10, 1], the model takes x float32[batch, 2]"),
        ({"x": np.float32(1)}, "data.shape", "data.npz: 'x' has the shape []"),
        ({"x": BAD, "labels": np.arange(10)}, "data.not-finite", "data.npz: 'x' holds NaN or infinity, first in row 7"),
        ({"x": ROWS}, "data.no-labels", "data.npz has no labels: no array is called 'labels'"),
        ({"x": ROWS, "labels": np.arange(9)}, "data.labels", "data.npz: 'labels' has 9 rows, the inputs have 10"),
        ({"x": ROWS, "labels": np.array(9)}, "data.labels", "data.npz: 'labels' has no rows, the inputs have 10"),
        ({"x": ROWS[:0], "labels": np.arange(0)}, "data.too-few", "data.npz: 0 samples, at least 1 are needed"),
        ({"x": np.array([[{}, 1]])}, "data.unreadable", "data.npz cannot be read as a .npz file: it holds pickled"),
    ],
)
def test_a_mistake_is_told_with_file_tensor_and_row(
    arrays: dict[str, Any], code: str, message: str, tmp_path: Path
) -> None:
    error = refusal(IMAGES, npz(tmp_path, **arrays), labels="labels")

    assert error.code == code
    assert message in error.message


def test_inputs_that_contradict_each_other_are_told(tmp_path: Path) -> None:
    two = face(spec("ids", DType.INT64, "batch", "length"), spec("mask", DType.INT64, "batch", "length"))
    ids = np.zeros((3, 5), np.int64)

    assert "its inputs have [2, 3] rows" in refusal(two, npz(tmp_path, ids=ids, mask=ids[:2])).message
    other = refusal(two, npz(tmp_path, ids=ids, mask=ids[:, :4]))
    assert "'mask' has 4 and 'ids' has 5 along their dimension 'length'" in other.message


def test_inputs_without_common_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the inputs have other first dimensions"):
        fixed_rows(face(spec("a", DType.FLOAT32, 2, 2), spec("b", DType.FLOAT32, 3, 2)))
    with pytest.raises(InputError, match="the input 'scale' is a scalar"):
        fixed_rows(face(spec("a", DType.FLOAT32, 2, 2), spec("scale", DType.FLOAT32)))


def test_fewer_rows_than_a_fixed_batch_are_too_few(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.npz: 10 samples, at least 16 are needed"):
        list(batches(face(spec("x", DType.FLOAT32, 16, 2)), npz(tmp_path, x=ROWS), size=1))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("damage", ["cut", "flipped", "header", "longer"])
def test_a_damaged_file_is_refused_wherever_the_damage_lies(damage: str, packed: bool, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((2000, 2), np.float32)
    data = npz(tmp_path, packed=packed, x=rows)
    content = bytearray((tmp_path / "data.npz").read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    else:
        header = b"\x93NUMPY\x09\x00" if damage == "header" else npy.magic(1, 0)
        with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive, archive.open("x.npy", "w") as member:
            member.write(header)
            if damage == "longer":
                npy.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 2)})
        content = bytearray((tmp_path / "data.npz").read_bytes())
    (tmp_path / "data.npz").write_bytes(content)

    assert refusal(IMAGES, data).code == "data.unreadable"


_STREAM = """
import re, sys
from pathlib import Path
from convkit.graph.feed import batches
from convkit.pipeline.artifact import Artifact
from convkit.spec.tensor import DType, Interface, TensorSpec

face = Interface(inputs=(TensorSpec(name="x", dtype=DType.FLOAT32, dims=("batch", 1000)),), outputs=())
path = Path(sys.argv[1])
data = Artifact(digest="", bytes=0, files=(path.name,), path=str(path.parent))
rows = sum(len(batch["x"]) for batch in batches(face, data, size=64))
print(rows, re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.parametrize("packed", [False, True])
def test_the_memory_does_not_grow_with_the_rows(packed: bool, tmp_path: Path) -> None:
    peaks = []
    for rows in (5_000, 50_000):  # 20 MB and 200 MB
        npz(tmp_path, packed=packed, x=np.zeros((rows, 1000), np.float32))
        ran = subprocess.run(
            [sys.executable, "-c", _STREAM, str(tmp_path / "data.npz")], capture_output=True, text=True, check=True
        )
        count, peak = map(int, ran.stdout.split())
        assert count == rows
        peaks.append(peak)

    assert peaks[1] - peaks[0] < 8 << 10  # KiB
