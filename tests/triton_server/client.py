"""The official client, over both protocols, in one call."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from triton_server.server import TritonServer

Protocol = Literal["http", "grpc"]
PROTOCOLS: tuple[Protocol, ...] = ("http", "grpc")


def infer(
    server: TritonServer,
    protocol: Protocol,
    model: str,
    feeds: Mapping[str, np.ndarray[Any, Any]],
    *,
    version: int | None = None,
) -> dict[str, np.ndarray[Any, Any]]:
    """Send one request and return every output by its name; strings come back as `bytes` objects."""
    from tritonclient.utils import np_to_triton_dtype

    module = importlib.import_module(f"tritonclient.{protocol}")
    inputs = []
    for name, value in feeds.items():
        tensor = module.InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype))
        tensor.set_data_from_numpy(value)
        inputs.append(tensor)
    with module.InferenceServerClient(server.http_url if protocol == "http" else server.grpc_url) as client:
        result = client.infer(model, inputs, model_version=str(version or ""))
        answer = result.get_response()
        outputs = answer["outputs"] if protocol == "http" else answer.outputs
        names = [output["name"] if protocol == "http" else output.name for output in outputs]
        return {name: result.as_numpy(name) for name in names}
