"""TensorRT's own verdict on an ONNX model, with or without a GPU."""

from __future__ import annotations

import msgspec

from convkit.graph.model import Model
from convkit.pipeline import events
from convkit.pipeline.step import step
from convkit.targets.finding import Finding
from convkit.targets.trt_api import Api, Flavour, Network, open_api
from convkit.targets.trt_findings import findings_of, interface_findings


class Parsed(msgspec.Struct, frozen=True, kw_only=True):
    """What a parser of the family said of a model."""

    findings: tuple[Finding, ...]
    """Empty: it takes the model."""
    layers: int
    """Layers of the parsed network, before any fusion."""
    flavour: Flavour
    """Whose parser it was; TensorRT-RTX stands in for TensorRT where that one has no GPU to open its builder."""
    version: str

    @property
    def label(self) -> str:
        """Return who judged: ``TensorRT-RTX 1.7.1``."""
        return f"{self.flavour.product} {self.version}"

    def doubtful_for(self, target: Flavour) -> tuple[Finding, ...]:
        """Return the findings that may not hold for `target`: it may have a plugin that a stand-in lacks."""
        stood_in = self.flavour is not target
        return tuple(finding for finding in self.findings if stood_in and finding.wants_plugin)


@step(version=1, stage="check", title="Parse with TensorRT-RTX", needs="tensorrt-rtx")
def parse_rtx(model: Model) -> Parsed:
    """Parse a model with TensorRT-RTX, which needs no GPU. No engine is built.

    Raises:
        MissingError: TensorRT-RTX is not installed.
    """
    return _parse(model, Flavour.TENSORRT_RTX)


@step(version=1, stage="check", title="Parse with TensorRT", needs="tensorrt")
def parse_tensorrt(model: Model) -> Parsed:
    """Parse a model with TensorRT itself. No engine is built.

    Raises:
        MissingError: TensorRT is not installed, or there is no GPU here.
    """
    return _parse(model, Flavour.TENSORRT)


def _parse(model: Model, flavour: Flavour) -> Parsed:
    api = open_api(flavour)
    network = api.network()
    findings = parse_into(network, model)
    warn_of_log(api)
    return Parsed(findings=findings, layers=network.definition.num_layers, flavour=flavour, version=api.version)


def parse_into(network: Network, model: Model) -> tuple[Finding, ...]:
    """Parse a model, external data included, into an empty network, and return what stands against it."""
    parser = network.parser
    if parser.parse_from_file(str(model.path)):
        return tuple(interface_findings(network, model.interface))
    return findings_of(parser.get_error(index) for index in range(parser.num_errors))


def warn_of_log(api: Api) -> None:
    """Hand TensorRT's warnings to the user, each once; those about int64 bindings say nothing to act on."""
    for text in api.messages_of("WARNING"):
        if "Int64 binding" in text:
            continue
        events.warn("tensorrt.warning", f"{api.flavour.product}: {' '.join(text.split())}")
