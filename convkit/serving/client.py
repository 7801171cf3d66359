"""A client for each model: a short Python program and a curl line that send a recorded sample to a Triton server.

The protocol is KServe's v2 (https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol); what
JSON cannot carry, or should not, goes by Triton's binary extension.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from convkit.graph.model import Tensors
from convkit.pipeline.artifact import Artifact, gather, new_folder
from convkit.pipeline.step import step
from convkit.serving.client_text import CLIENT, STRINGS
from convkit.serving.records import SAMPLES
from convkit.serving.triton import wire_bytes
from convkit.spec.tensor import DType, Interface, TensorSpec

if TYPE_CHECKING:
    import numpy as np

SCRIPT, REQUEST = "client.py", "request.bin"
URL = "http://localhost:8000"
"""Where a Triton server listens unless it is told otherwise."""
ANSWER = "answer.bin"
"""Where curl leaves an answer that is not text."""
LARGEST_LINE = 1000
"""Characters of JSON that a curl line holds; a longer request lies in a file."""
_NOT_IN_JSON = (DType.FLOAT16, DType.BFLOAT16)


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """What asks a model, with the first recorded sample."""

    files: Artifact
    """client.py; request.bin where the curl line sends that. Both belong beside the folder of the samples."""
    curl: str
    """A line for a shell, to be run where these files lie."""


@step(version=1, stage="publish", title="Write the client", needs="onnx")
def write_client(name: str, interface: Interface, *, samples: Tensors) -> Client:
    """Write the client of a model that Triton serves under `name`, for the first of its samples."""
    folder = new_folder("client")
    case = next(iter(samples))
    (folder / SCRIPT).write_text(client_text(name, interface, sample=f"{SAMPLES}/{samples.files.files[0]}"))
    body = _as_json(interface, case)
    asked: Mapping[str, Any] = {"outputs": _outputs(interface)} if _outputs(interface) else {}
    line = json.dumps({"inputs": body, **asked}) if body is not None else ""
    if body is None or len(line) > LARGEST_LINE:
        head, data = _as_bytes(interface, case, asked)
        (folder / REQUEST).write_bytes(head + data)
        curl = [*_curl(name), "-H", "Content-Type: application/octet-stream"]
        curl += ["-H", f"Inference-Header-Content-Length: {len(head)}", "--data-binary", f"@{REQUEST}"]
    else:
        curl = [*_curl(name), "-H", "Content-Type: application/json", "-d", line]
    return Client(files=gather(folder), curl=shlex.join([*curl, *(["-o", ANSWER] if asked else [])]))


def client_text(name: str, interface: Interface, *, sample: str) -> str:
    """Return the text of client.py.

    Args:
        name: the model's.
        interface: its inputs and outputs.
        sample: a ``.npz`` file with the inputs, relative to client.py.
    """
    dtypes = {spec.dtype for spec in (*interface.inputs, *interface.outputs)}
    strings, bfloat16 = DType.STRING in dtypes, DType.BFLOAT16 in dtypes
    scalars = [spec.name for spec in interface.inputs if len(_wire_dims(interface, spec)) > len(spec.dims)]
    encode = "np.asarray(arrays[name], dtype).tobytes()"
    decode = 'np.frombuffer(data, OUTPUTS[output["name"]][1])'
    load = "dict(archive)"
    if strings:
        encode, decode = "encode(arrays[name], dtype)", 'decode(data, OUTPUTS[output["name"]][1])'
    if bfloat16:  # numpy's files know it as two bytes of nothing in particular
        load = '{k: v.view(bfloat16) if v.dtype.kind == "V" else v for k, v in archive.items()}'
    shape = "arrays[name].shape"
    if scalars:  # for which Triton has no word but [1]
        shape = f"[*arrays[name].shape, *([1] if name in {scalars!r} else [])]"
    return CLIENT.substitute(
        title=name,
        imports="import numpy as np" + ("\nfrom ml_dtypes import bfloat16" if bfloat16 else ""),
        url=json.dumps(URL),
        path=json.dumps(f"/v2/models/{quote(name)}/infer"),
        sample=json.dumps(sample),
        inputs=_table(interface.inputs),
        outputs=_table(interface.outputs),
        encode=encode,
        decode=decode,
        shape=shape,
        load=load,
        strings=STRINGS if strings else "",
    )


def _table(specs: tuple[TensorSpec, ...]) -> str:
    """Return the lines of a Python dictionary: by name, Triton's type and numpy's; the shape as a remark."""
    return "\n".join(
        f"    {json.dumps(spec.name)}: ({json.dumps(_datatype(spec))}, {_numpy(spec.dtype)}),  # {list(spec.dims)}"
        for spec in specs
    )


def _numpy(dtype: DType) -> str:
    names = {DType.STRING: "object", DType.BFLOAT16: "bfloat16", DType.BOOL: "np.bool_"}
    return names.get(dtype, f"np.{dtype.numpy}")


def _datatype(spec: TensorSpec) -> str:
    return "BYTES" if spec.dtype is DType.STRING else spec.dtype.triton.removeprefix("TYPE_")


def _wire_dims(interface: Interface, spec: TensorSpec) -> tuple[int | str, ...]:
    """Return the dims that a server sees: those of a single number are [1]."""
    batch = 1 if interface.max_batch_size > 0 else 0
    return (*spec.dims, 1) if len(spec.dims) == batch else spec.dims


def _outputs(interface: Interface) -> list[dict[str, Any]]:
    """Return what to say of the outputs: nothing where all of them can be told in JSON."""
    if not any(spec.dtype in _NOT_IN_JSON for spec in interface.outputs):
        return []
    return [
        {"name": spec.name, **({"parameters": {"binary_data": True}} if spec.dtype in _NOT_IN_JSON else {})}
        for spec in interface.outputs
    ]


def _described(interface: Interface, spec: TensorSpec, array: np.ndarray) -> dict[str, Any]:
    single = len(_wire_dims(interface, spec)) > len(spec.dims)
    return {"name": spec.name, "datatype": _datatype(spec), "shape": [*array.shape, *([1] if single else [])]}


def _as_json(interface: Interface, case: Mapping[str, np.ndarray]) -> list[dict[str, Any]] | None:
    """Return the inputs as JSON has them; None where it has no words for them, or they are all too many."""
    import numpy as np

    arrays = [case[spec.name] for spec in interface.inputs]
    finite = all(np.isfinite(array).all() for array in arrays if array.dtype.kind == "f")
    few = sum(array.size for array in arrays) <= LARGEST_LINE // 2
    if any(spec.dtype in _NOT_IN_JSON for spec in interface.inputs) or not finite or not few:
        return None
    return [
        {**_described(interface, spec, array), "data": _values(array)}
        for spec, array in zip(interface.inputs, arrays, strict=True)
    ]


def _values(array: np.ndarray) -> list[Any]:
    """Return the elements in C order; 32 bits with no more digits than they need."""
    flat = array.reshape(-1)
    return [float(str(value)) for value in flat] if array.dtype.kind == "f" else list(flat.tolist())


def _as_bytes(interface: Interface, case: Mapping[str, np.ndarray], asked: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Return the request's JSON, and the inputs' bytes that follow it."""
    bodies = [wire_bytes(case[spec.name]) for spec in interface.inputs]
    inputs = [
        {**_described(interface, spec, case[spec.name]), "parameters": {"binary_data_size": len(body)}}
        for spec, body in zip(interface.inputs, bodies, strict=True)
    ]
    return json.dumps({"inputs": inputs, **asked}).encode(), b"".join(bodies)


def _curl(name: str) -> list[str]:
    return ["curl", "-sS", f"{URL}/v2/models/{quote(name)}/infer"]


def client_files(folder: Path) -> dict[str, Path | bytes]:
    """Return the files of a client that lies in a folder of records, by name; nothing where there is none."""
    return {name: folder / name for name in (SCRIPT, REQUEST) if (folder / name).is_file()}
