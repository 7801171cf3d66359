"""config.txt: what the user says about a model's inputs and outputs.

The keys are dl_inference's: `batch_size`, and `input` and `output`, lists of tensors with `name`, `data_type`, `dims`
(the whole shape, batch first) and `node_name`; and, all optional, `range`, `min_dims`, `opt_dims` and `max_dims`.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Mapping
from itertools import pairwise
from math import prod
from pathlib import Path
from types import MappingProxyType

import msgspec

from convkit.errors import MetadataError
from convkit.spec.json_syntax import MAX_BYTES, decode_json, decode_text
from convkit.spec.place import Place
from convkit.spec.tensor import DType
from convkit.spec.wording import did_you_mean, shown

DATA_TYPES: Mapping[str, DType] = MappingProxyType(
    {
        "bool": DType.BOOL,
        "byte": DType.UINT8,
        "uint8": DType.UINT8,
        "char": DType.INT8,
        "shrot": DType.INT16,  # dl_inference's own misspelling
        "short": DType.INT16,
        "int": DType.INT32,
        "long": DType.INT64,
        "half": DType.FLOAT16,
        "float": DType.FLOAT32,
        "double": DType.FLOAT64,
        "string": DType.STRING,
        **{dtype.value: dtype for dtype in DType},
        **{dtype.triton: dtype for dtype in DType},
    }
)
"""Every accepted spelling of `data_type`: dl_inference's, numpy's and Triton's."""

LARGEST_DIM = 2**31 - 1
MOST_DIMS = 32  # what every numpy holds
MOST_ELEMENTS = 2**40
LONGEST_NAME = 512

_PROFILE_KEYS = ("min_dims", "opt_dims", "max_dims")
_TENSOR_KEYS = ("name", "data_type", "dims", "node_name", "range", *_PROFILE_KEYS)
_TOP_KEYS = {
    "batch_size": '"batch_size": 0, with which dims are taken as they are',
    "input": '"input": [{"name": "image", "data_type": "float", "dims": [-1, 224, 224, 3], "node_name": "input_1:0"}]',
    "output": '"output": [{"name": "probs", "data_type": "float", "dims": [-1, 19], "node_name": "dense_1/Softmax:0"}]',
}
_REQUIRED = {
    "data_type": '"data_type": "float"',
    "dims": '"dims": [-1, 224, 224, 3], the whole shape with the batch first',
}
_ALIASES = {
    "inputs": "input",
    "outputs": "output",
    "max_batch_size": "batch_size",
    "shape": "dims",
    "dtype": "data_type",
    "type": "data_type",
}
_DIMS_HINT = "dims are the whole shape with the batch first, in whole numbers, -1 for a dynamic one: [-1, 224, 224, 3]"
_RANGE_HINT = 'write the lowest and the highest value, such as "range": [0, 1]'
_LARGEST_FLOAT = {
    DType.FLOAT16: 65504.0,
    DType.BFLOAT16: (2 - 2**-7) * 2.0**127,
    DType.FLOAT32: (2 - 2**-23) * 2.0**127,
    DType.FLOAT64: sys.float_info.max / 2,  # so that the width of a range is finite too
}


class TensorMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """One input or output as config.txt describes it.

    `name` is the user's word for it, `node_name` the model's. `dims` is the whole shape, batch first, -1 where dynamic.
    """

    name: str
    node_name: str
    dtype: DType
    dims: tuple[int, ...]
    range: tuple[float, float] | None = None
    """Inclusive bounds of the values that random samples take."""
    min_dims: tuple[int, ...] | None = None
    opt_dims: tuple[int, ...] | None = None
    max_dims: tuple[int, ...] | None = None
    """The smallest, usual and largest shape to prepare for, batch included."""


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """What a config.txt says.

    `batch_size` 0: dims are sent as they are. N > 0: the first dim of every tensor is a batch of 1 to N.
    """

    batch_size: int
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


def read_metadata(path: Path) -> Metadata:
    """Read a config.txt.

    Raises:
        MetadataError: there is no such file, it cannot be read, or it says something that convkit cannot take.
    """
    try:
        if not path.is_file():
            problem = "is a folder" if path.is_dir() else "is not a file" if path.exists() else "does not exist"
            raise MetadataError(f"{path} {problem}", hint="name a model's config.txt", code="metadata.file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror}"
        raise MetadataError(problem, hint="check the path and its permissions", code="metadata.file") from error
    return parse_metadata(content, where=str(path))


def parse_metadata(text: str | bytes, *, where: str = "config.txt") -> Metadata:
    """Read the content of a config.txt.

    Args:
        text: the content; bytes are UTF-8.
        where: what errors call the file.

    Raises:
        MetadataError: names the line and the key, and says what would be right.
    """
    text = decode_text(text, where=where)
    root = Place(text=text, where=where, value=decode_json(text, where=where))
    root.check_keys(_TOP_KEYS, required=_TOP_KEYS, aliases=_ALIASES)
    batch_size = _batch_size(root.at("batch_size"))
    inputs, outputs = (_tensors(root.at(key), batch_size, _TOP_KEYS[key]) for key in ("input", "output"))
    _refuse_duplicates(root, inputs, outputs)
    return Metadata(batch_size=batch_size, inputs=inputs, outputs=outputs)


def render_metadata(metadata: Metadata) -> str:
    """Return the text of the config.txt that says this: `parse_metadata` reads the same metadata back."""
    tensors = {"input": metadata.inputs, "output": metadata.outputs}
    lists = (f'    "{key}": [\n' + ",\n".join(map(_rendered, tensors[key])) + "\n    ]" for key in tensors)
    return "{\n" + ",\n".join([f'    "batch_size": {metadata.batch_size}', *lists]) + "\n}\n"


def _rendered(tensor: TensorMetadata) -> str:
    bound = float if tensor.dtype.is_float else int
    values: dict[str, object] = {
        "name": tensor.name,
        "data_type": tensor.dtype.value,
        "dims": tensor.dims,
        "node_name": tensor.node_name,
        "range": tensor.range and tuple(map(bound, tensor.range)),
        **{key: getattr(tensor, key) for key in _PROFILE_KEYS},
    }
    members = (f'            "{key}": {_json(value)}' for key, value in values.items() if value is not None)
    return "        {\n" + ",\n".join(members) + "\n        }"


def _json(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_json, value)) + "]"
    return msgspec.json.encode(value).decode()


def _batch_size(place: Place) -> int:
    batch_size = place.integer(hint="write 0 (dims are taken as they are) or the largest batch to serve")
    if not 0 <= batch_size <= LARGEST_DIM:
        place.fail(
            f"{shown(batch_size)} is not a batch size",
            hint="write 0 (dims are taken as they are) or the largest batch to serve",
            code="metadata.batch",
        )
    return batch_size


def _tensors(place: Place, batch_size: int, example: str) -> tuple[TensorMetadata, ...]:
    items = place.items(wanted="a list of tensors", hint=f"write {example}")
    if not items:
        place.fail(
            "the list is empty, and a model has at least one", hint=f"write {example}", code="metadata.missing-key"
        )
    return tuple(_tensor(item, batch_size) for item in items)


def _tensor(place: Place, batch_size: int) -> TensorMetadata:
    place.check_keys(_TENSOR_KEYS, required=_REQUIRED, aliases=_ALIASES)
    names = {key: _name(place.at(key)) for key in ("name", "node_name") if place.has(key)}
    if not names:
        place.fail(
            "neither 'name' nor 'node_name' is given",
            hint='add "node_name", the tensor\'s name in the model, such as "input_1:0"',
            code="metadata.missing-key",
        )
    dtype = _data_type(place.at("data_type"))
    dims = _dims(place.at("dims"))
    if batch_size > 0:
        _check_batch(place.at("dims"), dims, batch_size)
    return TensorMetadata(
        name=names.get("name") or names["node_name"],
        node_name=names.get("node_name") or names["name"],
        dtype=dtype,
        dims=dims,
        range=_range(place.at("range"), dtype) if place.has("range") else None,
        **_profile(place, dims, batch_size),
    )


def _name(place: Place) -> str:
    """Return a name that is safe on the wire, in a file's name and in a log."""
    name = place.string(hint='write the tensor\'s name, such as "input_1:0"')
    parts = name.split("/")
    problem = ""
    if not name or name != name.strip():
        problem = "is empty" if not name.strip() else "begins or ends with white space"
    elif len(name) > LONGEST_NAME:
        problem = f"is longer than {LONGEST_NAME} characters"
    elif any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name):
        problem = "holds a control character"
    elif name.startswith("/") or re.match(r"[A-Za-z]:[/\\]", name) or "\\" in name or {".", ".."} & set(parts):
        problem = "is a path"
    if problem:
        hint = "write the tensor's name in the model, such as input_1:0 or dense_1/Softmax:0"
        place.fail(f"the name {shown(name)} {problem}", hint=hint, code="metadata.name")
    return name


def _data_type(place: Place) -> DType:
    known = ", ".join(name for name in DATA_TYPES if not name.startswith("TYPE_")) + ", and Triton's TYPE_FP32, …"
    word = place.string(hint=f"convkit knows: {known}")
    if word not in DATA_TYPES:
        hint = did_you_mean(word, DATA_TYPES) + f"convkit knows: {known}"
        place.fail(f"unknown data_type {shown(word)}", hint=hint, code="metadata.unknown-type")
    return DATA_TYPES[word]


def _dims(place: Place, *, dynamic: bool = True) -> tuple[int, ...]:
    """Return a shape; -1 stands for a dynamic dim where such are allowed."""
    items = place.items(wanted="a list of numbers", hint=_DIMS_HINT)
    if len(items) > MOST_DIMS:
        place.fail(f"{len(items)} dims are more than {MOST_DIMS}", hint=_DIMS_HINT, code="metadata.dims")
    dims = tuple(item.integer(hint=_DIMS_HINT) for item in items)
    for item, dim in zip(items, dims, strict=True):
        if dim == -1 and not dynamic:
            item.fail("-1 has no place here", hint="write the size itself, 1 or more", code="metadata.dims")
        if dim < 1 and dim != -1:
            item.fail(f"{shown(dim)} is not a dimension", hint=_DIMS_HINT, code="metadata.dims")
        if dim > LARGEST_DIM:
            item.fail(f"{shown(dim)} is more than 2**31 - 1", hint="write the real size", code="metadata.dims")
    if prod(abs(dim) for dim in dims) > MOST_ELEMENTS:
        place.fail("the tensor would hold more than 2**40 elements", hint="write the real size", code="metadata.dims")
    return dims


def _check_batch(place: Place, dims: tuple[int, ...], batch_size: int) -> None:
    hint = f"with batch_size {batch_size} the first dim is the batch: write -1 or {batch_size}, or set batch_size to 0"
    if not dims:
        place.fail("a scalar has no batch", hint=hint, code="metadata.batch")
    if dims[0] not in (-1, batch_size):
        problem = f"the batch is {dims[0]}, neither -1 nor the batch_size {batch_size}"
        place.at(0).fail(problem, hint=hint, code="metadata.batch")


def _profile(place: Place, dims: tuple[int, ...], batch_size: int) -> dict[str, tuple[int, ...]]:
    """Return those of min_dims, opt_dims and max_dims that are given; each fits `dims`, and none exceeds the next."""
    profile = {key: _dims(place.at(key), dynamic=False) for key in _PROFILE_KEYS if place.has(key)}
    for key, shape in profile.items():
        if len(shape) != len(dims):
            problem = f"{len(shape)} dims, where 'dims' has {len(dims)}"
            place.at(key).fail(problem, hint="write one number for each of dims", code="metadata.dims")
        for index, (size, dim) in enumerate(zip(shape, dims, strict=True)):
            is_batch = index == 0 and batch_size > 0
            if not is_batch and dim not in (-1, size):
                problem = f"{size}, where 'dims' has the fixed {dim}"
                place.at(key).at(index).fail(problem, hint=f"write {dim}, or make it -1 in dims", code="metadata.dims")
    if batch_size > 0:
        _check_profile_batch(place, profile, batch_size)
    for (smaller, low), (larger, high) in pairwise(profile.items()):
        for index, (small, large) in enumerate(zip(low, high, strict=True)):
            if small > large:
                problem = f"{small} is more than {large}, its counterpart in {larger}"
                hint = "write min_dims <= opt_dims <= max_dims, dim for dim"
                place.at(smaller).at(index).fail(problem, hint=hint, code="metadata.dims")
    return profile


def _check_profile_batch(place: Place, profile: Mapping[str, tuple[int, ...]], batch_size: int) -> None:
    """Refuse a profile that leaves out a batch which the server, told `batch_size`, may send."""
    for key, wanted in (("min_dims", 1), ("max_dims", batch_size)):
        if key in profile and profile[key][0] != wanted:
            problem = f"the batch is {profile[key][0]}, where batch_size {batch_size} promises every batch up to it"
            place.at(key).at(0).fail(problem, hint=f"write {wanted}", code="metadata.batch")
    if "opt_dims" in profile and profile["opt_dims"][0] > batch_size:
        problem = f"the batch is {profile['opt_dims'][0]}, more than the batch_size {batch_size}"
        place.at("opt_dims").at(0).fail(problem, hint=f"write 1 to {batch_size}", code="metadata.batch")


def _range(place: Place, dtype: DType) -> tuple[float, float]:
    """Return the bounds, which every array of this type can hold and a float holds exactly."""
    if dtype is DType.STRING:
        place.fail("strings have no range", hint="remove it; strings come from --samples", code="metadata.range")
    items = place.items(wanted="a list of two numbers", hint=_RANGE_HINT)
    if len(items) != 2:
        place.fail(f"{len(items)} items, not two", hint=_RANGE_HINT, code="metadata.range")
    lowest, highest = _limits(dtype)
    for item in items:
        bound = item.number(hint=_RANGE_HINT)
        if not lowest <= bound <= highest:
            hint = f"{dtype.value} holds {lowest} to {highest}"
            item.fail(f"{shown(bound)} is not a value of {dtype.value}", hint=hint, code="metadata.range")
        if not dtype.is_float and (bound != int(bound) or bound != float(bound)):
            hint = "write a whole number, beyond 2**53 one that a double holds exactly"
            item.fail(f"{shown(bound)} is not a value of {dtype.value}", hint=hint, code="metadata.range")
    low, high = (float(item.number(hint=_RANGE_HINT)) for item in items)
    if low > high:
        place.fail("the first bound is above the second", hint=_RANGE_HINT, code="metadata.range")
    return low, high


def _limits(dtype: DType) -> tuple[float, float]:
    """Return the least and greatest value of a type that is no string."""
    if dtype is DType.BOOL:
        return 0, 1
    if dtype.is_float:
        return -_LARGEST_FLOAT[dtype], _LARGEST_FLOAT[dtype]
    if dtype.value.startswith("u"):
        return 0, 2**dtype.bits - 1
    return -(2 ** (dtype.bits - 1)), 2 ** (dtype.bits - 1) - 1


def _refuse_duplicates(root: Place, inputs: tuple[TensorMetadata, ...], outputs: tuple[TensorMetadata, ...]) -> None:
    """Refuse a name twice among the inputs or among the outputs, and a node_name twice anywhere."""
    listed = [("input", index, tensor) for index, tensor in enumerate(inputs)]
    listed += [("output", index, tensor) for index, tensor in enumerate(outputs)]
    seen: dict[tuple[str, str], str] = {}
    for side, index, tensor in listed:
        place = root.at(side).at(index)
        for key, scope, name in (("name", side, tensor.name), ("node_name", "", tensor.node_name)):
            first = seen.setdefault((f"{key} {scope}", name), str(place))
            if first != str(place):
                problem = f"{shown(name)} is already the {key} of {first}"
                (place.at(key) if place.has(key) else place).fail(
                    problem, hint="give each tensor a name of its own", code="metadata.duplicate"
                )
