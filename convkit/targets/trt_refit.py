"""Other weights for an engine that stands: a model that was trained again, with the same structure.

Unmeasured: needs a GPU, since an engine is loaded for it. The flow is tested against a stand-in for the module.
"""

from __future__ import annotations

import msgspec

from convkit.errors import StepError
from convkit.graph.engine_layers import EngineLayers
from convkit.graph.model import Model
from convkit.pipeline.artifact import Artifact, gather, new_folder
from convkit.pipeline.step import step
from convkit.targets.cuda_driver import Gpu
from convkit.targets.trt_api import Api, Flavour, open_api
from convkit.targets.trt_build import ENGINE_FILES
from convkit.targets.trt_findings import tidy
from convkit.targets.trt_inspect import layers_of


class Refitted(msgspec.Struct, frozen=True, kw_only=True):
    """A plan with other weights."""

    files: Artifact
    """One file, ``model.plan``."""
    inspected: EngineLayers | None = None
    """Its layers; None where the plan was built to tell nothing."""


@step(version=2, stage="compile", title="Refit the TensorRT engine", needs="tensorrt")
def refit_tensorrt(engine: Artifact, model: Model, *, on: Gpu) -> Refitted:
    """Return a plan with a model's weights in place of its own; what it computes with them is for the caller to check.

    Args:
        engine: one plan, built with the flag REFIT from a graph of the same structure.
        model: the ONNX model with the new weights.
        on: this machine's GPU, so that no plan of another one is taken for its own.

    Raises:
        MissingError: TensorRT is not installed, or there is no GPU here.
        StepError: the plan cannot be loaded here, or does not take the weights (code ``tensorrt.refit``).
    """
    del on
    api = open_api(Flavour.TENSORRT)
    runtime = api.runtime()  # outlives the engine
    loaded = runtime.deserialize_cuda_engine(engine.file().read_bytes())
    if loaded is None:
        raise _failure(api, "cannot load the plan that is to be refitted")
    refitter, parser = api.refitter(loaded)
    if not parser.refit_from_file(str(model.path)):
        raise _failure(api, "finds no place in the plan for these weights")
    missing = refitter.get_missing_weights()
    if missing:
        raise _failure(api, f"wants further weights: {', '.join(missing[:3])}")
    if not refitter.refit_cuda_engine():
        raise _failure(api, "could not refit the plan")
    folder = new_folder("engine")
    (folder / ENGINE_FILES[Flavour.TENSORRT]).write_bytes(loaded.serialize())
    return Refitted(files=gather(folder), inspected=layers_of(api, loaded))


def _failure(api: Api, what: str) -> StepError:
    said = " ".join(tidy(text) for text in api.messages_of("ERROR", "INTERNAL_ERROR"))
    return StepError(
        f"{api.flavour.product} {api.version} {what}" + (f": {said}" if said else ""),
        hint="leave refit out of the recipe: the engine is then built",
        code="tensorrt.refit",
    )
