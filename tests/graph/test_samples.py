"""The inputs on which models are judged: two sizes of what is free, random or from the user's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convkit.errors import InputError
from convkit.graph import samples
from convkit.graph.model import read_npz, save_tensors
from convkit.graph.samples import case_sizes, make_cases, random_case, read_rows
from convkit.pipeline.artifact import Artifact, gather
from convkit.spec.tensor import DType, Interface, TensorSpec


def spec(name: str, dtype: DType, *dims: int | str, **more: Any) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, dims=dims, **more)


def face(*inputs: TensorSpec, max_batch_size: int = 0) -> Interface:
    return Interface(inputs=inputs, outputs=(), max_batch_size=max_batch_size)


def shapes(interface: Interface, data: Artifact | None = None) -> list[dict[str, tuple[int, ...]]]:
    return [{name: array.shape for name, array in case.items()} for case in make_cases(interface, data)]


def npz(folder: Path, name: str = "data.npz", **arrays: Any) -> Artifact:
    np.savez(folder / name, **arrays)
    return gather(folder, [name])


def test_what_is_fixed_is_tried_at_its_one_size() -> None:
    assert shapes(face(spec("x", DType.FLOAT32, 2, 3))) == [{"x": (2, 3)}]


def test_what_is_free_is_tried_at_two_sizes_and_shared_names_stay_equal() -> None:
    interface = face(spec("ids", DType.INT64, "batch", "length"), spec("mask", DType.FLOAT32, "batch", "length"))

    assert shapes(interface) == [{"ids": (1, 64), "mask": (1, 64)}, {"ids": (3, 96), "mask": (3, 96)}]


@pytest.mark.parametrize(("largest", "second"), [(1, 1), (2, 2), (3, 3), (8, 3)])
def test_the_batch_stays_within_the_servers(largest: int, second: int) -> None:
    interface = face(spec("x", DType.FLOAT32, "batch", 4), max_batch_size=largest)

    assert [case["x"][0] for case in shapes(interface)] == [1, second]


@pytest.mark.parametrize(
    ("bounds", "sizes"),
    [
        ({"min_dims": (1, 8), "opt_dims": (1, 20), "max_dims": (4, 40)}, (20, 40)),
        ({"min_dims": (1, 8), "opt_dims": (1, 40), "max_dims": (4, 40)}, (40, 8)),
        ({"min_dims": (1, 20), "opt_dims": (1, 20), "max_dims": (4, 20)}, (20, 20)),
        ({"min_dims": (1, 100), "max_dims": (4, 200)}, (100, 101)),
        ({"max_dims": (4, 50)}, (50, 49)),
    ],
)
def test_bounds_are_kept(bounds: dict[str, tuple[int, int]], sizes: tuple[int, int]) -> None:
    first, second = case_sizes(face(spec("x", DType.FLOAT32, "batch", "length", **bounds)))

    assert (first["length"], second["length"]) == sizes


def test_every_type_is_drawn_in_a_range_that_makes_sense_for_it() -> None:
    types = [dtype for dtype in DType if dtype is not DType.STRING]
    case = random_case(face(*(spec(dtype.value, dtype, 1000) for dtype in types)), {}, seed=0)

    for dtype in types:
        array = case[dtype.value]
        assert array.dtype.name == dtype.value
        if dtype is DType.UINT8:
            assert (array.min(), array.max()) == (0, 255)
        elif dtype.is_float:
            assert np.isfinite(array.astype(np.float32)).all()
            assert abs(float(array.astype(np.float32).mean())) < 0.2
        else:
            assert set(array.tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("dtype", "bounds"),
    [
        (DType.FLOAT32, (-2.0, 5.0)),
        (DType.INT64, (0, 9)),
        (DType.INT8, (-128, 127)),
        (DType.UINT64, (2**63, 2**63 + 3)),
        (DType.UINT8, (7, 7)),
    ],
)
def test_a_range_is_inclusive_and_kept(dtype: DType, bounds: tuple[float, float]) -> None:
    values = random_case(face(spec("x", dtype, 2000, range=bounds)), {}, seed=0)["x"]

    assert bounds[0] <= values.min()
    assert values.max() <= bounds[1]
    if not dtype.is_float:
        assert {int(values.min()), int(values.max())} == set(map(int, bounds))


def test_the_same_seed_draws_the_same_and_another_draws_others() -> None:
    interface = face(spec("x", DType.FLOAT32, 4))
    one, again, other = (random_case(interface, {}, seed=seed)["x"] for seed in (1, 1, 2))

    assert (one == again).all()
    assert (one != other).any()


@pytest.mark.parametrize("bounds", [None, (-1.0, 3.0)])
@pytest.mark.parametrize("dtype", [DType.FLOAT16, DType.FLOAT32, DType.FLOAT64])
def test_large_inputs_are_drawn_piece_by_piece_and_are_those_drawn_at_once(
    dtype: DType, bounds: tuple[float, float] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    interface = face(spec("x", dtype, 3, 5, 7, range=bounds))

    at_once = random_case(interface, {}, seed=3)["x"]
    monkeypatch.setattr(samples, "_PIECE", 10)
    in_pieces = random_case(interface, {}, seed=3)["x"]

    assert np.array_equal(at_once, in_pieces)
    assert len(np.unique(at_once)) > at_once.size * 0.9


def test_strings_are_never_drawn() -> None:
    with pytest.raises(InputError, match="input 'x' holds strings"):
        random_case(face(spec("x", DType.STRING, 4)), {}, seed=0)


# From the user's file

BATCHED = face(spec("x", DType.FLOAT32, "batch", 2, alias="image"), max_batch_size=8)


@pytest.mark.parametrize("name", ["x", "image"])
def test_rows_are_found_under_either_name(name: str, tmp_path: Path) -> None:
    rows = np.arange(8, dtype=np.float32).reshape(4, 2)
    one, three = make_cases(BATCHED, npz(tmp_path, **{name: rows}))

    assert one["x"].tolist() == rows[:1].tolist()
    assert three["x"].tolist() == rows[:3].tolist()


def test_too_few_rows_for_the_second_size_are_used_again(tmp_path: Path) -> None:
    rows = np.array([[1, 2], [3, 4]], np.float32)

    assert make_cases(BATCHED, npz(tmp_path, x=rows))[1]["x"].tolist() == [[1, 2], [3, 4], [1, 2]]


def test_inputs_with_a_first_dimension_of_their_own_get_so_many_rows(tmp_path: Path) -> None:
    interface = face(spec("x", DType.FLOAT32, 1, 2), spec("table", DType.FLOAT32, 5, 2), spec("t", DType.INT64, "time"))
    data = npz(tmp_path, x=np.zeros((7, 2), np.float32), table=np.ones((7, 2), np.float32), t=np.arange(7))

    assert shapes(interface, data)[0] == {"x": (1, 2), "table": (5, 2), "t": (7,)}


def test_rows_of_several_files_are_put_together_in_the_order_of_their_names(tmp_path: Path) -> None:
    for number in (2, 1, 3):
        npz(tmp_path, f"{number}.npz", x=np.full((2, 2), number, np.float32))
    data = gather(tmp_path, ["1.npz", "2.npz", "3.npz"])

    assert read_rows(BATCHED, data, at_most=5)["x"][:, 0].tolist() == [1, 1, 2, 2, 3]


ROWS = np.zeros((3, 2), np.float32)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"other": ROWS}, "has no array called 'x' or 'image'"),
        ({"x": ROWS.astype(np.float64)}, "'x' is float64, the model takes float32"),
        ({"x": ROWS.astype(np.int64)}, "'x' is int64, the model takes float32"),
        ({"x": ROWS[:, :1]}, r"'x' has the shape \[3, 1\], the model takes x float32\[batch, 2\]"),
        ({"x": ROWS[0]}, r"'x' has the shape \[2\]"),
        ({"x": np.float32(1)}, r"'x' has the shape \[\]"),
        ({"x": np.array([[0, 0], [0, 0], [0, np.nan]], np.float32)}, "'x' holds NaN or infinity, first in row 2"),
        ({"x": ROWS - np.float32(np.inf)}, "'x' holds NaN or infinity, first in row 0"),
        ({"x": ROWS[:0]}, "0 samples, at least 1 are needed"),
        ({"x": np.array([{"a": 1}], object)}, r"cannot be read as a \.npz file"),
    ],
)
def test_data_that_do_not_fit_the_model_are_told_with_both_sides(
    arrays: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as refused:
        make_cases(BATCHED, npz(tmp_path, **arrays))

    assert refused.value.hint


def test_inputs_with_other_numbers_of_rows_are_told(tmp_path: Path) -> None:
    interface = face(spec("a", DType.FLOAT32, "batch", 2), spec("b", DType.FLOAT32, "batch", 2))

    with pytest.raises(InputError, match=r"its inputs have \[2, 3\] rows"):
        make_cases(interface, npz(tmp_path, a=ROWS, b=ROWS[:2]))


def test_a_scalar_input_has_no_rows(tmp_path: Path) -> None:
    interface = face(spec("x", DType.FLOAT32, "batch", 2), spec("scale", DType.FLOAT32), max_batch_size=8)

    with pytest.raises(InputError, match="the input 'scale' is a scalar"):
        make_cases(interface, npz(tmp_path, x=ROWS, scale=np.float32(1)))


def test_arrays_that_cannot_be_rows_are_one_case_where_each_has_its_inputs_shape(tmp_path: Path) -> None:
    scaled = face(spec("x", DType.FLOAT32, 3, 2), spec("scale", DType.FLOAT32))
    table = face(spec("ids", DType.INT64, 4), spec("table", DType.FLOAT32, "n", 2), spec("same", DType.FLOAT32, "n"))
    arrays = {"ids": np.arange(4), "table": ROWS, "same": ROWS[:, 0]}

    assert shapes(scaled, npz(tmp_path, x=ROWS, scale=np.float32(1))) == [{"x": (3, 2), "scale": ()}]
    assert shapes(table, npz(tmp_path, **arrays)) == [{"ids": (4,), "table": (3, 2), "same": (3,)}]
    nothing = {"table": ROWS[:0], "same": ROWS[:0, 0]}
    for wrong in ({**arrays, "same": ROWS[:2, 0]}, {**arrays, "ids": np.arange(5)}, {**arrays, **nothing}):
        with pytest.raises(InputError, match="rows: they must have the same number"):
            make_cases(table, npz(tmp_path, **wrong))
    with pytest.raises(InputError, match=r"'scale' holds NaN or infinity$"):
        make_cases(scaled, npz(tmp_path, x=ROWS, scale=np.float32(np.nan)))


def test_strings_come_from_bytes_and_from_text(tmp_path: Path) -> None:
    interface = face(spec("s", DType.STRING, "batch"))
    for array in (np.array(["a", "ö"]), np.array([b"a", b"o"])):
        assert make_cases(interface, npz(tmp_path, s=array))[0]["s"].tolist() == ["a"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"text", None])
def test_a_file_that_is_no_npz_is_refused(content: bytes | None, tmp_path: Path) -> None:
    if content is None:
        np.save(tmp_path / "data.npy", ROWS)
        (tmp_path / "data.npy").rename(tmp_path / "data.npz")
    else:
        (tmp_path / "data.npz").write_bytes(content)

    with pytest.raises(InputError, match=r"data\.npz cannot be read as a \.npz file"):
        read_npz(tmp_path / "data.npz")


def test_a_pickle_in_an_npz_is_never_run(tmp_path: Path) -> None:
    from sources.hostile import MakesFolder

    array = np.array([MakesFolder(tmp_path / "canary")], dtype=object)
    np.savez(tmp_path / "data.npz", x=array)
    np.load(tmp_path / "data.npz", allow_pickle=True)["x"]
    (tmp_path / "canary").rmdir()  # it fires, where it may

    with pytest.raises(InputError, match=r"cannot be read as a \.npz file"):
        read_npz(tmp_path / "data.npz")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", ["file", "allow_pickle", "dense_1/Softmax:0", "arr_0", "x.npy", "größe ä"])
def test_tensors_of_any_name_come_back_as_they_were(name: str) -> None:
    import ml_dtypes

    arrays = [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.array(5),
        np.array([1.5, -2], ml_dtypes.bfloat16),
        np.array(["a", "größe"], dtype=object),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
    ]
    saved = save_tensors([{name: array} for array in arrays])

    for case, array in zip(saved, arrays, strict=True):
        assert list(case) == [name]
        assert case[name].tolist() == array.tolist()
        assert case[name].dtype == array.dtype or array.dtype == object


def test_the_same_tensors_give_the_same_bytes() -> None:
    one, two = (save_tensors([{"x": np.arange(3), "y": np.ones(2)}]) for _ in range(2))

    assert one.files.digest == two.files.digest
