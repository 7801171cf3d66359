"""ResNet50, MobileNetV2 and encoders as the benchmarks define them: as published, and narrow ones of their form."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from convkit.graph.model import Model, save_model
from convkit.graph.present import present, wanted_interface
from convkit.graph.simplify import simplify
from convkit.spec.metadata import read_metadata
from convkit.spec.options import Simplifier, TensorNames

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SIDE, LENGTH = 224, 128


def definitions() -> dict[str, Any]:
    return runpy.run_path(str(BENCHMARKS / "networks.py"))


def narrow_resnet(defined: dict[str, Any]) -> Any:
    """Two bottlenecks of each kind, a quarter of the width."""
    from torch import nn

    network = defined["ResNet50"]()
    make, block = defined["ConvNorm"], defined["Bottleneck"]
    network.stem[0] = make(3, 16, 7, stride=2, activation=nn.ReLU)
    network.blocks = nn.Sequential(block(16, 16, 1), block(64, 16, 1), block(64, 32, 2), block(128, 32, 1))
    network.classifier = nn.Linear(128, 1000)
    return network


def short_mobilenet(defined: dict[str, Any]) -> Any:
    """One or two blocks of each of the first four stages."""
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 1, 2), (6, 64, 2, 2))
    return type("Short", (defined["MobileNetV2"],), {"STAGES": stages})()


def narrow_encoder(defined: dict[str, Any]) -> Any:
    return defined["Encoder"](layers=2, hidden=128, heads=4)


def bert(defined: dict[str, Any]) -> Any:
    """BERT-base: 12 layers, hidden size 768, 12 heads."""
    return defined["Encoder"](layers=12, hidden=768, heads=12)


NARROW: dict[str, Callable[[dict[str, Any]], Any]] = {
    "resnet50": narrow_resnet,
    "mobilenetv2": short_mobilenet,
    "encoder": narrow_encoder,
}
FULL: dict[str, Callable[[dict[str, Any]], Any]] = {
    "resnet50": lambda defined: defined["ResNet50"](),
    "mobilenetv2": lambda defined: defined["MobileNetV2"](),
    "encoder": lambda defined: defined["Encoder"](),
    "bert": bert,
}


def exported(name: str, folder: Path, networks: dict[str, Callable[[dict[str, Any]], Any]]) -> Model:
    """Make a network with random weights, export it from PyTorch with a dynamic batch, and simplify it."""
    import torch

    defined = definitions()
    network = networks[name](defined)
    defined["randomize"](network, 0)
    is_text = name in ("encoder", "bert")
    config = dict(defined["NETWORKS"]["encoder" if is_text else "mobilenetv2"].config)
    if is_text:
        hidden = network.pooler.out_features
        last, pooled = config["output"]
        config["output"] = [{**last, "dims": [-1, -1, hidden]}, {**pooled, "dims": [-1, hidden]}]
    (folder / "config.txt").write_text(json.dumps(config))
    wanted = wanted_interface(read_metadata(folder / "config.txt"), TensorNames.NODE_NAME, None)
    batch, length = torch.export.Dim("batch"), torch.export.Dim("sequence")
    ones = torch.ones(2, LENGTH, dtype=torch.int64)
    arguments = (ones, ones) if is_text else (torch.randn(2, 3, SIDE, SIDE),)
    shapes = ({0: batch, 1: length},) * 2 if is_text else ({0: batch},)
    program = torch.onnx.export(
        network.eval(),
        arguments,
        dynamo=True,
        opset_version=20,
        dynamic_shapes=shapes,
        external_data=False,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    ends = [[value.name for value in values] for values in (proto.graph.input, proto.graph.output)]
    proto, interface = present(proto, wanted, inputs=ends[0], outputs=ends[1])
    return simplify(save_model(proto, interface), chain=(Simplifier.ONNXSLIM,)).model
