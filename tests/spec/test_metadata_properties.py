"""config.txt under fire: any content is either read or refused with a hint, and what is written is read back."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from convkit.errors import MetadataError
from convkit.spec.metadata import (
    DATA_TYPES,
    LARGEST_DIM,
    MOST_ELEMENTS,
    Metadata,
    TensorMetadata,
    parse_metadata,
    render_metadata,
)
from convkit.spec.tensor import DType

from .configs import CONFIG

quick = settings(deadline=None, max_examples=150)

KEYS = ("batch_size", "input", "output", "name", "data_type", "dims", "node_name", "range", "min_dims", "max_dims")

json_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 10)
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([*DATA_TYPES, *KEYS, "input_1:0", 10**300])
)
json_values = st.recursive(
    json_scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=12,
)


def read_or_refused(content: str | bytes) -> Metadata | None:
    """Return what was read, or None where it was refused as it should be; anything else fails the test."""
    try:
        metadata = parse_metadata(content)
    except MetadataError as caught:
        error = caught
    else:
        assert parse_metadata(render_metadata(metadata)) == metadata
        return metadata
    assert error.message.startswith("config.txt")
    assert error.message.isprintable()
    assert error.hint
    assert error.code.startswith("metadata.")
    return None


@quick
@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    read_or_refused(text)


@quick
@given(st.text(alphabet=st.characters(exclude_categories=())))
@example("\ud800")
def test_any_text_with_broken_surrogates_is_read_or_refused(text: str) -> None:
    read_or_refused(text)


@quick
@given(st.binary())
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    read_or_refused(content)


@quick
@given(st.lists(st.sampled_from(['"', "'", "\\", "\n", "//", "/*", "#", *"{}[]:,-019.e ", *KEYS, "NaN", "\ufeff"])))
def test_any_heap_of_json_pieces_is_read_or_refused(pieces: list[str]) -> None:
    read_or_refused("".join(pieces))


@quick
@given(json_values)
def test_any_json_is_read_or_refused(value: Any) -> None:
    read_or_refused(json.dumps(value))


@quick
@given(st.integers(0, len(CONFIG)), st.integers(0, 6), st.text(max_size=4) | st.sampled_from([*'{}[],:"', "//", "é"]))
def test_a_config_with_a_changed_spot_is_read_or_refused(start: int, length: int, inserted: str) -> None:
    read_or_refused(CONFIG[:start] + inserted + CONFIG[start + length :])


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return the path of every member and item."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(*path, key) for key, _ in members] + [
        deep for key, inner in members for deep in places(inner, (*path, key))
    ]


FULL_CONFIG = json.loads(CONFIG)
FULL_CONFIG["input"][0] |= {"range": [0, 1], "min_dims": [1, 28, 28, 1], "max_dims": [8, 28, 28, 1]}


@quick
@given(st.sampled_from(places(FULL_CONFIG)), json_values)
def test_a_config_with_a_changed_value_is_read_or_refused(path: tuple[str | int, ...], value: Any) -> None:
    config = json.loads(json.dumps(FULL_CONFIG))
    holder = config
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value

    read_or_refused(json.dumps(config, indent=1))


def test_the_config_whose_values_are_changed_is_a_good_one() -> None:
    assert read_or_refused(json.dumps(FULL_CONFIG)) is not None


names = st.from_regex(r"[a-zA-Zé图]\w[\w.:-]{0,8}(/[\w:.-]{0,3}[\w:-])?", fullmatch=True)


def bounds(dtype: DType) -> st.SearchStrategy[Any]:
    """Return numbers that this type holds and that a float holds exactly."""
    if dtype is DType.BOOL:
        return st.sampled_from([0.0, 1.0])
    if dtype.is_float:
        return st.floats(-65504, 65504)
    lowest, highest = (
        (0, 2**dtype.bits - 1) if dtype.value[0] == "u" else (-(2 ** (dtype.bits - 1)), 2**dtype.bits // 2 - 1)
    )
    return st.integers(max(lowest, -(2**53)), min(highest, 2**53)).map(float)


@st.composite
def tensors(draw: st.DrawFn, name: str, node_name: str, batch_size: int) -> TensorMetadata:
    dims = draw(st.lists(st.just(-1) | st.integers(1, 40), max_size=6 - bool(batch_size)))
    sizes = [[draw(st.integers(1, 40)) for _ in range(3)] if dim == -1 else [dim] * 3 for dim in dims]
    if batch_size:
        dims = [draw(st.sampled_from([-1, batch_size])), *dims]
        sizes = [[1, draw(st.integers(1, batch_size)), batch_size], *sizes]
    shapes = list(zip(*map(sorted, sizes), strict=True)) if dims else [(), (), ()]
    kept = [shape if draw(st.booleans()) else None for shape in shapes]
    dtype = draw(st.sampled_from(DType))
    has_range = dtype is not DType.STRING and draw(st.booleans())
    return TensorMetadata(
        name=name,
        node_name=node_name,
        dtype=dtype,
        dims=tuple(dims),
        range=tuple(sorted(draw(st.tuples(bounds(dtype), bounds(dtype))))) if has_range else None,
        min_dims=kept[0],
        opt_dims=kept[1],
        max_dims=kept[2],
    )


@st.composite
def metadata(draw: st.DrawFn) -> Metadata:
    batch_size = draw(st.sampled_from([0, 1, 8, 1000]))
    used = draw(st.lists(names, min_size=2, max_size=5, unique=True))
    drawn = tuple(draw(tensors(draw(names) + str(i), name, batch_size)) for i, name in enumerate(used))
    cut = draw(st.integers(1, len(drawn) - 1))
    return Metadata(batch_size=batch_size, inputs=drawn[:cut], outputs=drawn[cut:])


@quick
@given(metadata())
def test_what_is_written_is_read_back_the_same(written: Metadata) -> None:
    assert parse_metadata(render_metadata(written)) == written


@pytest.mark.parametrize("dims", [(LARGEST_DIM,), (2**20, 2**20), (-1, LARGEST_DIM, 512)])
def test_the_largest_dims_are_read_back(dims: tuple[int, ...]) -> None:
    tensor = TensorMetadata(name="i", node_name="i", dtype=DType.UINT8, dims=dims)
    output = TensorMetadata(name="o", node_name="o", dtype=DType.UINT8, dims=dims)
    written = Metadata(batch_size=0, inputs=(tensor,), outputs=(output,))

    assert MOST_ELEMENTS == 2**40
    assert parse_metadata(render_metadata(written)) == written


@quick
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_every_float32_can_be_a_bound(value: float) -> None:
    tensor = TensorMetadata(name="i", node_name="i", dtype=DType.FLOAT32, dims=(1,), range=(value, value))
    output = TensorMetadata(name="o", node_name="o", dtype=DType.FLOAT32, dims=(1,))
    read = parse_metadata(render_metadata(Metadata(batch_size=0, inputs=(tensor,), outputs=(output,)))).inputs[0].range

    assert read is not None
    assert [struct.pack("d", bound) for bound in read] == [struct.pack("d", value)] * 2
