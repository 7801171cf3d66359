"""One inference request over HTTP, with nothing but the standard library and numpy.

The protocol is KServe's v2 (https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol) with
Triton's binary extension: JSON first, then the tensors' bytes, and a header that says how long the JSON is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from convkit.errors import CheckError
from convkit.graph.model import numpy_dtype
from convkit.serving.server import Server
from convkit.serving.triton import wire_bytes
from convkit.serving.triton_text import ModelConfig, type_name
from convkit.spec.tensor import DType

if TYPE_CHECKING:
    import numpy as np

_LENGTH = "Inference-Header-Content-Length"


def infer(
    server: Server,
    config: ModelConfig,
    version: int,
    inputs: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Send one case, and return the outputs that are expected, in the expected shapes where those differ by ones.

    Args:
        server: where the model is loaded.
        config: the model's configuration.
        version: which version is to answer.
        inputs: by wire name, the batch in front.
        expected: the outputs wanted, by wire name.

    Raises:
        CheckError: the samples are not for this configuration, the server refuses them, or its answer is unreadable.
    """
    described, bodies = [], []
    for tensor in config.input:
        if tensor.name not in inputs:
            raise CheckError(
                f"the recorded samples have no '{tensor.name}', which the configuration asks for",
                hint="publish the version again, so that both are of one model",
                code="check.no-sample",
            )
        array = inputs[tensor.name]
        body = wire_bytes(array)
        bodies.append(body)
        described.append(
            {
                "name": tensor.name,
                "datatype": _datatype(tensor),
                "shape": _wire_shape(config, tensor, array),
                "parameters": {"binary_data_size": len(body)},
            }
        )
    wanted = [{"name": name, "parameters": {"binary_data": True}} for name in expected]
    head = json.dumps({"inputs": described, "outputs": wanted}).encode()
    path = f"/v2/models/{config.name}/versions/{version}/infer"
    answer = server.post(path, head + b"".join(bodies), {_LENGTH: str(len(head))})
    if answer.status != 200 or answer.json_bytes is None:
        raise _unusable(f"HTTP {answer.status}: {answer.data[:300].decode(errors='replace')}")
    found = _read(answer.json_bytes, answer.data)
    missing = [name for name in expected if name not in found]
    if missing:
        raise _unusable(f"the output '{missing[0]}' is not in it")
    return {name: _like(found[name], reference) for name, reference in expected.items()}


def _wire_shape(config: ModelConfig, tensor: Any, array: np.ndarray) -> list[int]:
    """Return the shape to send: a sample that is a single number goes as [1], for which Triton has no other word."""
    batch = 1 if config.max_batch_size > 0 else 0
    shape = list(array.shape)
    return [*shape, 1] if len(shape) == batch and list(tensor.dims) == [1] else shape


def _datatype(tensor: Any) -> str:
    name: str = type_name(tensor.data_type).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name


def _read(length: int, data: bytes) -> dict[str, np.ndarray]:
    try:
        described = json.loads(data[:length])["outputs"]
        at, found = length, {}
        for output in described:
            size = int(output["parameters"]["binary_data_size"])
            shape = [int(dim) for dim in output["shape"]]
            found[str(output["name"])] = _array(str(output["datatype"]), shape, data[at : at + size])
            at += size
    except (ValueError, KeyError, TypeError) as error:
        raise _unusable(f"{type(error).__name__}: {error}") from error
    return found


def _array(datatype: str, shape: list[int], data: bytes) -> np.ndarray:
    import numpy as np

    if datatype == "BYTES":
        items, at = [], 0
        for _ in range(math.prod(shape)):
            size = int.from_bytes(data[at : at + 4], "little")
            items.append(data[at + 4 : at + 4 + size].decode(errors="replace"))
            at += 4 + size
        return np.array(items, dtype="U").reshape(shape)
    dtype = {d.triton: d for d in DType}[f"TYPE_{datatype}"]
    return np.frombuffer(data, dtype=numpy_dtype(dtype)).reshape(shape)


def _like(found: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Take away the dimension of one that stands for a scalar."""
    if [*reference.shape, 1] == list(found.shape):
        return found.reshape(reference.shape)
    return found


def _unusable(why: str) -> CheckError:
    return CheckError(
        f"the server's answer cannot be used: {why}",
        hint="look at the server's log, and at the model's configuration",
        code="check.no-answer",
    )
