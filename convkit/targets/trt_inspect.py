"""The layers of a built engine, as TensorRT tells them: in the inspector's JSON, or in the build's log.

The inspector wants a GPU, since an engine has to be loaded for it. The log does not: TensorRT-RTX writes the same
layers into it where it builds on a CPU. What a layer is called and which keys it has depends on the release and on
the profiling verbosity, so everything but the name may be missing.

EngineInspector, LayerInformationFormat: TensorRT's Python API reference. `trtexec --exportLayerInfo` writes that JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from convkit.graph.engine_layers import EngineLayer, EngineLayers
from convkit.targets.trt_api import Api
from convkit.targets.trt_types import ICudaEngine

INSPECTOR, LOG = "the engine inspector", "the build's log"

_TENSORS = r"\[((?: ?\{[^}]*\},?)*)\]"
_LINE = re.compile(
    rf"^Name: (.*?), LayerType: ([^,]*), Inputs: {_TENSORS}(?:, Constants: {_TENSORS})?, Outputs: {_TENSORS}, (.*)$"
)
_TENSOR_TYPE = re.compile(r"Datatype: (\w+)|Format/Datatype: ([^,}]*)")
_NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=\[ONNX|\x1e|$|[,}\s])")
_MEMORY = {
    "weights": re.compile(r"Total Weights Memory: (\d+) bytes"),
    "activations": re.compile(r"Total Activation Memory: (\d+) bytes"),
    "scratch": re.compile(r"Max Scratch Memory: (\d+) bytes"),
}
_TYPES = {
    "float": "fp32",
    "fp32": "fp32",
    "tf32": "fp32",
    "half": "fp16",
    "fp16": "fp16",
    "bfloat16": "bf16",
    "bf16": "bf16",
    "fp8": "fp8",
    "int8": "int8",
    "int4": "int4",
    "fp4": "fp4",
    "int32": "int32",
    "int64": "int64",
    "uint8": "uint8",
    "bool": "bool",
}
_WORD = re.compile(r"[a-z]+\d*", re.IGNORECASE)


def layers_in_log(api: Api) -> EngineLayers | None:
    """Return the layers that the last build's log lists; None where it lists none."""
    lines = [line for text in api.listings for line in text.splitlines()]
    layers = tuple(_of_lines(lines))
    return _found(api, layers, LOG) if layers else None


def layers_of(api: Api, engine: ICudaEngine) -> EngineLayers | None:
    """Ask the inspector of a loaded engine; None where the engine was built to tell nothing. Needs a GPU."""
    text = engine.create_engine_inspector().get_engine_information(api.module.LayerInformationFormat.JSON)
    layers = tuple(parse_json(text))
    return _found(api, layers, INSPECTOR) if layers else None


def _found(api: Api, layers: tuple[EngineLayer, ...], told_by: str) -> EngineLayers:
    seen_by = f"{api.flavour.product} {api.version}"
    return EngineLayers(layers=layers, seen_by=seen_by, told_by=told_by, memory=memory_in(api.remarks))


def memory_in(remarks: Iterable[str]) -> dict[str, int]:
    """Return what the builder says of the engine's memory, in bytes; the last word counts."""
    found: dict[str, int] = {}
    for remark in remarks:
        for name, pattern in _MEMORY.items():
            if match := pattern.search(remark):
                found[name] = int(match[1])
    return found


def _of_lines(lines: Sequence[str]) -> Iterator[EngineLayer]:
    for line in lines:
        match = _LINE.match(line)
        if match:
            yield EngineLayer(
                name=match[1],
                kind=match[2],
                nodes=_nodes(match[6].rpartition("Metadata: ")[2], match[1]),
                inputs=_types(match[3]),
                weights=_types(match[4] or ""),
                outputs=_types(match[5]),
            )


def parse_json(text: str) -> Iterator[EngineLayer]:
    """Yield the layers in the inspector's JSON: tables where the verbosity is DETAILED, else names; nothing of NONE."""
    try:
        document = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return
    layers = document.get("Layers") if isinstance(document, dict) else None
    for layer in layers if isinstance(layers, list) else ():
        if isinstance(layer, str):
            yield EngineLayer(name=layer, kind="", nodes=_nodes("", layer))
        elif isinstance(layer, dict):
            name = str(layer.get("Name", ""))
            yield EngineLayer(
                name=name,
                kind=str(layer.get("ParameterType") or layer.get("LayerType", "")),
                nodes=_nodes(str(layer.get("Metadata") or ""), name),
                inputs=tuple(_type_of(tensor) for tensor in _tables(layer.get("Inputs"))),
                weights=tuple(_type_of(tensor) for tensor in _weights(layer)),
                outputs=tuple(_type_of(tensor) for tensor in _tables(layer.get("Outputs"))),
            )


def _weights(layer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from _tables(layer.get("Constants"))
    weights = layer.get("Weights")
    if isinstance(weights, dict) and weights.get("Count", 1):
        yield weights


def _tables(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _type_of(tensor: dict[str, Any]) -> str:
    said = tensor.get("Datatype") or tensor.get("Type") or tensor.get("Format/Datatype") or ""
    return _type(str(said))


def _type(said: str) -> str:
    """Return the type that a text names, such as ``Half`` or ``Channel major FP16 format where channel % 8 == 0``."""
    return next((_TYPES[word.lower()] for word in _WORD.findall(said) if word.lower() in _TYPES), "")


def _types(listing: str) -> tuple[str, ...]:
    return tuple(_type(plain or mixed) for plain, mixed in _TENSOR_TYPE.findall(listing))


def _nodes(metadata: str, name: str) -> tuple[str, ...]:
    """Return the ONNX nodes in a layer: from its metadata, else from its name, which joins theirs by ``+``."""
    told = _NODE.findall(metadata)
    if not told:
        told = [part.strip() for part in name.split(" + ") if part.strip() and not part.startswith(("__", "{"))]
    return tuple(dict.fromkeys(told))
