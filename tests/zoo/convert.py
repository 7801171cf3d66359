"""One class of the zoo through convkit's steps: export, compare, simplify, compare, parse."""

from __future__ import annotations

import json
import pickle
import sys
import time
import traceback
from pathlib import Path

import msgspec

from convkit.errors import ConvkitError
from convkit.graph.model import Model
from convkit.sources.exported import Exported
from convkit.targets.finding import Finding, Weight
from zoo.classes import NotTinyError, Tensor, Tiny, make

LOADER = """
import torch
import transformers


def load_model():
    model = transformers.{name}(torch.load("config.bin"))
    model.load_state_dict(torch.load("model.pth"))
    return model
"""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a class."""

    name: str
    verdict: str
    """``converted``; ``refused``: an error of convkit's own; ``crashed``: any other; ``not tiny``: left out."""
    stage: str = ""
    message: str = ""
    road: str = ""
    parameters: int = 0
    cases: int = 0
    free: int = 0
    """Free dimensions of its inputs."""
    operators: int = 0
    drawn_again: bool = False
    """Its weights are not those that its class draws."""
    seconds: float = 0.0


def convert_class(name: str, folder: Path) -> Outcome:
    """Make a tiny network of a class, save it whole, and convert it. Nothing is raised."""
    begun = time.monotonic()
    try:
        tiny = make(name)
    except NotTinyError as error:
        return Outcome(name=name, verdict="not tiny", message=str(error)[:500])
    except Exception as error:  # noqa: BLE001 - a configuration class may want anything
        return Outcome(name=name, verdict="not tiny", message=f"{type(error).__name__}: {error}"[:500])
    try:
        write(tiny, folder)
    except Exception as error:  # noqa: BLE001 - what cannot be saved is no file that anyone has
        return Outcome(name=name, verdict="not tiny", message=f"it cannot be saved: {error}"[:500])
    done = convert_folder(name, folder)
    seconds = round(time.monotonic() - begun, 1)
    return msgspec.structs.replace(done, seconds=seconds, drawn_again=tiny.drawn_again)


def write(tiny: Tiny, folder: Path) -> None:
    """Write model.pth, a whole module or its state dict with a model.py, and its config.txt."""
    import torch

    def entries(tensors: list[Tensor]) -> list[dict[str, object]]:
        return [tensor.entry() for tensor in tensors]

    folder.mkdir(parents=True, exist_ok=True)
    try:
        torch.save(tiny.module, folder / "model.pth")
    except (AttributeError, pickle.PicklingError):  # hooks that no pickle takes: its weights then, and code beside them
        torch.save(tiny.module.state_dict(), folder / "model.pth")
        torch.save(tiny.module.config, folder / "config.bin")
        (folder / "model.py").write_text(LOADER.format(name=type(tiny.module).__name__), encoding="utf-8")
    config = {"batch_size": 8, "input": entries(tiny.inputs), "output": entries(tiny.outputs)}
    if any(tensor.dims[:1] != [-1] for tensor in tiny.outputs):
        config["batch_size"] = 0
    (folder / "config.txt").write_text(json.dumps(config), encoding="utf-8")


def convert_folder(name: str, folder: Path) -> Outcome:
    """Convert a whole module that lies in a folder, under trust."""
    from sources.torch_models import opened

    from convkit.graph.simplify import simplify
    from convkit.sources.places import naming_places
    from convkit.sources.torch import export_torch
    from convkit.sources.torch_module import forget
    from convkit.spec.options import ExportOptions, SimplifyOptions
    from convkit.targets.trt_api import Flavour
    from convkit.targets.trt_findings import refuse
    from convkit.targets.trt_rewrite import holds_some, rewrite

    stage, road = "open", ""
    try:
        source = opened(folder, trust=["yes"])
        stage = "export"
        made = export_torch(source.source, metadata=source.metadata, options=ExportOptions(), samples=None)
        road = made.exporter
        stage = "as exported"
        require_equal(made.model, made, stage)
        stage = "simplified"
        simple = simplify(made.model, chain=SimplifyOptions().chain)
        simple = rewrite(simple) if holds_some(simple.after) else simple
        require_equal(simple.model, made, stage)
        stage = "TensorRT-RTX"
        with naming_places(made.places):
            refuse(_findings(simple.model), Flavour.TENSORRT_RTX)
    except ConvkitError as error:
        return Outcome(name=name, verdict="refused", stage=stage, message=f"{error.message} [{error.code}]", road=road)
    except Exception:  # noqa: BLE001 - that there is none is what the zoo is to find out
        return Outcome(name=name, verdict="crashed", stage=stage, message=traceback.format_exc()[-1500:], road=road)
    finally:
        forget()
    return Outcome(
        name=name,
        verdict="converted",
        road=road,
        parameters=made.parameters,
        cases=len(made.samples),
        free=len(made.model.interface.dynamic_dims),
        operators=sum(simple.after.operators.values()),
    )


def _findings(model: Model) -> tuple[Finding, ...]:
    """Return what stands against a model, in convkit's words where the parser has refused it."""
    from convkit.targets.trt_api import Flavour
    from convkit.targets.trt_parse import parse_rtx
    from convkit.targets.trt_preflight import apply_rules, judged

    parsed = parse_rtx(model)
    found = judged(apply_rules(model, ()).findings, parsed, Flavour.TENSORRT_RTX) if parsed.findings else ()
    return tuple(finding for finding in found if finding.severity is Weight.ERROR)


def require_equal(model: Model, made: Exported, what: str) -> None:
    """Hold a graph's answers against PyTorch's.

    Raises:
        CheckError: they differ.
    """
    from convkit.measure.compare import compare_outputs, refuse_difference
    from convkit.spec.options import CheckOptions, Precision

    check = compare_outputs(
        model, samples=made.samples, references=made.references, precision=Precision.NONE, options=CheckOptions()
    )
    refuse_difference(check, what, made.framework, hint="")


def main() -> None:
    """Convert the classes whose names come on standard input, a line each; write an outcome for each on line."""
    import logging
    import shutil
    import warnings

    from convkit.pipeline.artifact import use_scratch

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    root = Path(sys.argv[1])
    for line in sys.stdin:
        folder = root / "one"
        use_scratch(root / "scratch")
        outcome = convert_class(line.strip(), folder)
        shutil.rmtree(root, ignore_errors=True)
        sys.stdout.write(f"OUTCOME {msgspec.json.encode(outcome).decode()}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
