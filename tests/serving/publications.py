"""Publications of tiny real models, and what makes a repository whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import helper
from triton_server.models import graph, interface, tensor

from convkit.pipeline.artifact import digest_file
from convkit.serving.holding import locked
from convkit.serving.manifest import write_manifest
from convkit.serving.publish import Publication, Published, publish
from convkit.serving.triton import Warmup, WarmupInput, model_config, parse, render
from convkit.serving.triton_model import same_interface
from convkit.spec.tensor import DType


def scaled(factor: float, *, width: int = 3) -> onnx.ModelProto:
    """y = factor * x, on rows of `width` numbers."""
    scale = helper.make_tensor("scale", onnx.TensorProto.FLOAT, [1], [factor])
    model = graph([helper.make_node("Mul", ["x", "scale"], ["y"])], face(width))
    model.graph.initializer.append(scale)
    return model


def face(width: int) -> object:
    row = ("batch", width)
    return interface([tensor("x", DType.FLOAT32, *row)], [tensor("y", DType.FLOAT32, *row)], max_batch_size=8)


def publication(
    factor: float, *, width: int = 3, name: str = "scaled", instances: int = 1, pending: bool = False
) -> Publication:
    """A version of a model with a warm-up request, as the pipeline makes it."""
    from convkit.serving.triton import ServingOptions

    row = WarmupInput(dtype=DType.FLOAT32, dims=(width,), file="0-x")
    config = render(
        model_config(
            name=name,
            interface=face(width),
            backend="onnxruntime",
            filename="model.onnx",
            gpu=False,
            options=ServingOptions(instances=instances),
            warmups=[Warmup(name="sample", inputs={"x": row})],
        )
    ).encode()
    files: dict[str, Path | bytes] = {"model.onnx": scaled(factor, width=width).SerializeToString()}
    beside = {"warmup/0-x": bytes(4 * width)}
    manifest = write_manifest(
        files=files, beside={**beside, "config.pbtxt": config}, options={}, sources={}, versions={}
    )
    return Publication(name=name, files=files, manifest=manifest, config=config, beside=beside, pending=pending)


def published(repository: Path, what: Publication, *, version: int | None = None, replace: bool = False) -> Published:
    """Publish as the pipeline does."""
    with locked(repository):
        same = same_interface(repository / what.name, what.config)
        return publish(repository, what, version=version, replace=replace, same_interface=same)


def faults(repository: Path, *, config_of: Sequence[str] = ("scaled",)) -> list[str]:
    """Everything that is not whole in a repository; what Triton would stumble over."""
    found = []
    for path in repository.iterdir() if repository.exists() else ():
        if path.is_dir() and path.name not in config_of:
            found.append(f"a stray directory {path.name}")
    for model in (repository / name for name in config_of):
        if model.exists():
            found += _faults_of(model)
    return found


def _faults_of(model: Path) -> list[str]:
    found = []
    versions = [path for path in model.iterdir() if path.name.isdigit()]
    if not versions and not (model / "pending").exists():
        found.append(f"{model.name} has no version")
    if not (model / "config.pbtxt").is_file():
        return [*found, f"{model.name} has no config.pbtxt"]
    config = parse((model / "config.pbtxt").read_text(encoding="utf-8"))
    for warmup in config.model_warmup:
        for entry in warmup.inputs.values():
            data = (model / "warmup" / entry.input_data_file).read_bytes()
            if len(data) != 4 * entry.dims[0]:
                found.append("the warm-up data are not what config.pbtxt says")
    for version in versions:
        served = version / config.default_model_filename
        if not served.is_file():
            found.append(f"version {version.name} has no model file")
            continue
        width = onnx.load(served).graph.input[0].type.tensor_type.shape.dim[1].dim_value
        if max(versions, key=lambda path: int(path.name)) == version and [width] != list(config.input[0].dims):
            found.append(f"version {version.name} takes {width} numbers, config.pbtxt says {config.input[0].dims}")
        statement = json.loads((version / "convkit" / "manifest.json").read_bytes())
        for subject in statement["subject"]:
            if digest_file(version / subject["name"]) != "sha256:" + subject["digest"]["sha256"]:
                found.append(f"version {version.name}: {subject['name']} is not what its manifest says")
    return found


def left_over(repository: Path) -> list[Path]:
    """Staging folders in and around a repository."""
    return [path for path in repository.parent.rglob("*") if path.name.startswith(".convkit-staging")]
