"""Write accuracy.md: what every precision, calibration method and target does to the sample models, on held-out labels.

    python docs/make_accuracy.py [MODEL ...]    # of those alone, the others' figures as they stand on the page

Every figure comes from `convkit.convert` with `--eval-data`, or, for the one way of quantizing that convkit does not
offer, from the steps behind it. Results are remembered in .cache/accuracy; the first run takes minutes.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

import convkit
from convkit.errors import ConvkitError, UsageError
from convkit.evaluation import begin_evaluation
from convkit.graph.simplify import simplify
from convkit.graph.work import LOW, executed_work
from convkit.order import prepare
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import nobody
from convkit.pipeline.identity import library_versions
from convkit.pipeline.runner import Runner
from convkit.quantize.calibrate import collect_ranges
from convkit.quantize.static import quantize_static
from convkit.report.document import Report, Role
from convkit.request import make_request
from convkit.sources.trust import TRUST_ALL
from convkit.spec.options import CalibrationMethod, Precision
from convkit.targets.onnxruntime_profile import PROFILE

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "accuracy.md"
CACHE = ROOT / ".cache" / "accuracy"

MODELS = {
    "digits_cnn": "PyTorch, residual network, digits of 8x8 pixels",
    "digits_keras": "TensorFlow, convolutional network, digits of 8x8 pixels",
    "digits_mobile": "PyTorch, depthwise convolutions, digits of 32x32 pixels; the one that INT8 hurts",
    "python_lines": "PyTorch, transformer, lines of Python",
    "python_names": "PyTorch, mixture of experts with two tasks, embeddings; of `uses`, the first of its outputs",
    "python_docs": "TensorFlow, two texts through one encoder, embeddings",
}
TARGETS = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "tensorrt": "TensorRT, emulated"}
MAX_DROP = "1%"
DEPTHWISE = "digits_mobile"
DEPTHWISE_TITLE = "The depthwise network"
BUDGET_TITLE = "Within the budget"
REFUSED_TITLE = "Refused"
TOOLS = ("onnxruntime", "openvino")

HEAD = """\
# Accuracy of the sample models

Top-1 on `heldout.npz` of each folder in `sample_models`, labels the training never saw. Written by `make docs-accuracy`
from what convkit reports: {made}.

- **top-1** is that of the published model, run on its target; TensorRT's is run as an ONNX graph in ONNX Runtime: same
  scales, same Q/DQ pairs, an engine may round differently. A sample more or less is {sample}.
- **low-precision work** is the share of multiply-accumulates in less than FP32: counted in the graph that ONNX Runtime
  or OpenVINO compiled, for TensorRT in the graph that it is given.
- `int8` is calibrated on `calibration.npz` with each of the methods, channels equalized or activations smoothed where
  that leaves less noise; **without repair** is `--set quantize.repair=false`; **within {drop}** is `--max-drop {drop}`.
- _refused_: why is said at the end of the page.
"""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a model in one precision on one target."""

    refused: str = ""
    source: float = 0.0
    final: float | None = None
    macs: Mapping[str, int] = {}
    convolutions: tuple[int, int] | None = None
    """How many are in INT8, of how many, where the graph is at hand."""
    judged: int = 0
    """Models that the search for one within the budget judged."""
    found: str = ""
    """How the one that was found is quantized."""


def ways() -> Iterator[tuple[str, dict[str, Any]]]:
    """Go through the precisions by name, with their options."""
    for precision in Precision:
        if precision is Precision.INT8:
            for method in CalibrationMethod:
                yield f"int8, {method.value}", {"precision": "int8", "method": method.value}
            for method in CalibrationMethod:
                options = {"precision": "int8", "method": method.value, "repair": False}
                yield f"int8, {method.value}, without repair", options
            yield f"int8, within {MAX_DROP}", {"precision": "int8", "max_drop": MAX_DROP}
        elif precision is not Precision.AUTO:
            yield precision.value, {"precision": precision.value}


def judge(model: str, target: str, asked: Mapping[str, Any]) -> Outcome:
    """Convert a sample model and return what its report says; a model that is no good is no error here."""
    options = dict(asked)
    folder = ROOT / "sample_models" / model
    accuracy = {"data": folder / "heldout.npz", "max_drop": options.pop("max_drop", None)}
    if Precision(options["precision"]).is_calibrated:
        options["data"] = folder / "calibration.npz"
    with tempfile.TemporaryDirectory(prefix="accuracy-") as repository:
        try:
            report = convkit.convert(
                folder,
                to=target,
                output=repository,
                trust=True,
                quantize=options,
                accuracy=accuracy,
                check={"min_sqnr": -100.0},
                measure={"mode": "none"},
                cache=CACHE,
            )
        except UsageError as error:
            return Outcome(refused=error.message)
        except ConvkitError as error:
            if not isinstance(error.document, Report) or error.document.accuracy is None:
                raise
            report = error.document
        return outcome_of(report, next(Path(repository).rglob("model.onnx"), None))


def outcome_of(report: Report, graph: Path | None) -> Outcome:
    """Read a report, and where there is one the graph that was published."""
    accuracy, final = report.accuracy, report.subject(Role.FINAL)
    assert accuracy is not None
    best = min(report.trials, key=lambda each: (not each.passed, each.kept, -each.value), default=None)
    return Outcome(
        source=accuracy.source,
        final=accuracy.final,
        macs=(final.macs if final is not None else None) or {},
        convolutions=convolutions_in(graph) if graph is not None else None,
        judged=len(report.trials),
        found=best.what if best is not None else "",
    )


def convolutions_in(path: Path) -> tuple[int, int]:
    """Return how many of a graph's convolutions have data and weights from INT8, and how many there are."""
    import onnx

    nodes = onnx.load(path, load_external_data=False).graph.node
    dequantized = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    found = [dequantized.issuperset(node.input[:2]) for node in nodes if node.op_type == "Conv"]
    return sum(found), len(found)


def plain(model: str) -> Outcome:
    """Quantize for ONNX Runtime with min-max and one scale for each weight tensor, which convkit itself does not do."""
    folder = ROOT / "sample_models" / model
    request = make_request(
        {
            "model": str(folder),
            "trust": [TRUST_ALL],
            "quantize": {"precision": "int8", "data": str(folder / "calibration.npz")},
            "accuracy": {"data": str(folder / "heldout.npz")},
        }
    )
    with Runner(Cache(CACHE), nobody) as run:
        order = prepare(request)
        order.prepare_data(run)
        exported = order.source.export(run, samples=order.samples, max_opset=order.release.opset)
        simplified = run(simplify, exported.model, chain=request.simplify.chain).model
        evaluation = begin_evaluation(order, run, exported)
        assert evaluation is not None
        ranges = run(collect_ranges, simplified, data=order.calibration, samples=request.quantize.samples)
        profile = msgspec.structs.replace(PROFILE, per_channel=False)
        quantized = run(
            quantize_static, simplified, ranges=ranges, profile=profile, method=CalibrationMethod.MINMAX
        ).model
        return Outcome(
            source=evaluation.source.value,
            final=evaluation.of(quantized).value,
            macs=run(executed_work, quantized, samples=exported.samples).macs,
            convolutions=convolutions_in(quantized.path),
        )


Found = Mapping[str, Mapping[str, Mapping[str, Outcome]]]
"""What was found, by model, way and target."""


def page(models: list[str]) -> str:
    """Convert these models, and return the text of accuracy.md; of the others it says what it said."""
    made = ", ".join(f"{name} {version}" for name, version in sorted(library_versions(TOOLS).items()))
    old = sections(PAGE.read_text(encoding="utf-8")) if len(models) < len(MODELS) else {}
    if old and made not in old[""]:
        raise SystemExit(f"accuracy.md was written with other versions than {made}: make docs-accuracy does all models")
    found: dict[str, dict[str, dict[str, Outcome]]] = {}
    for model in models:
        for way, options in ways():
            for target in TARGETS:
                sys.stderr.write(f"{model}, {way}, {target}\n")
                found.setdefault(model, {}).setdefault(way, {})[target] = judge(model, target, options)
    samples = [held_out_samples(model) for model in MODELS]
    head = HEAD.format(made=made, sample=f"{1 / max(samples):.4f} to {1 / min(samples):.4f}", drop=MAX_DROP)
    parts = [section(model, found[model]) if model in found else old[model] for model in MODELS]
    repaired = depthwise(found[DEPTHWISE]) if DEPTHWISE in found else old[DEPTHWISE_TITLE]
    return "\n".join([head, *parts, repaired, budgets(found, old), refusals(found, old)])


def sections(text: str) -> dict[str, str]:
    """Cut a page into its sections, each with its heading, by title; what stands above them has none."""
    head, *rest = re.split(r"\n(?=## )", text)
    return {"": head, **{part.partition("\n")[0].removeprefix("## "): part for part in rest}}


def held_out_samples(model: str) -> int:
    """Return how many labels there are."""
    import numpy as np

    with np.load(ROOT / "sample_models" / model / "heldout.npz") as data:
        return len(data["labels"])


def section(model: str, outcomes: Mapping[str, Mapping[str, Outcome]]) -> str:
    """Return the table of one model."""
    source = outcomes["none"]["onnxruntime"].source
    heading = ["", *(part for title in TARGETS.values() for part in (title, "low-precision work"))]
    rows = [
        [way, *(cell for target in TARGETS for cell in (top1(by[target]), work(by[target])))]
        for way, by in outcomes.items()
    ]
    return f"## {model}\n\n{MODELS[model]}. Before: top-1 {source:.4f}.\n\n{table(heading, rows)}"


def depthwise(outcomes: Mapping[str, Mapping[str, Outcome]]) -> str:
    """Return what granularity and the budget do to the network with depthwise convolutions."""
    rows = [
        ("FP32", outcomes["none"]["onnxruntime"]),
        ("min-max, one scale for each tensor", plain(DEPTHWISE)),
        ("min-max, a scale for each output channel", outcomes["int8, minmax, without repair"]["onnxruntime"]),
        ("min-max, a scale for each output channel, repaired", outcomes["int8, minmax"]["onnxruntime"]),
        (f"within {MAX_DROP}", outcomes[f"int8, within {MAX_DROP}"]["onnxruntime"]),
    ]
    cells = [[name, top1(each), lost(each), work(each), counted(each)] for name, each in rows]
    heading = ["INT8 for ONNX Runtime", "top-1", "lost", "low-precision work", "convolutions in INT8"]
    return f"## {DEPTHWISE_TITLE}\n\n{DEPTHWISE}.\n\n{table(heading, cells)}"


def budgets(found: Found, old: Mapping[str, str]) -> str:
    """Return how each model was brought within the budget."""
    said = [line[2:-2].split(" | ") for line in old.get(BUDGET_TITLE, "").splitlines() if line.startswith("| ")]
    rows = []
    for model in MODELS:
        if model not in found:
            rows += [row for row in said if row[0] == model]
            continue
        for target, each in found[model][f"int8, within {MAX_DROP}"].items():
            if not each.refused:
                rows.append([model, TARGETS[target], top1(each), lost(each), str(each.judged), each.found])
    heading = ["model", "target", "top-1", "lost", "models judged", "how"]
    return f"## {BUDGET_TITLE}\n\n`--quantize int8 --max-drop {MAX_DROP}`.\n\n{table(heading, rows)}"


def refusals(found: Found, old: Mapping[str, str]) -> str:
    """Return the reasons, each once."""
    said = [line.removeprefix("- ") for line in old.get(REFUSED_TITLE, "").splitlines() if line.startswith("- ")]
    outcomes = (outcome for ways in found.values() for targets in ways.values() for outcome in targets.values())
    reasons = dict.fromkeys([*said, *(outcome.refused for outcome in outcomes if outcome.refused)])
    return f"## {REFUSED_TITLE}\n\n" + "".join(f"- {reason}\n" for reason in reasons)


def top1(outcome: Outcome) -> str:
    """Return the accuracy as text."""
    return "_refused_" if outcome.refused else "–" if outcome.final is None else f"{outcome.final:.4f}"


def lost(outcome: Outcome) -> str:
    """Return the loss in points of a hundred."""
    return "–" if outcome.final is None else f"{100 * (outcome.source - outcome.final):.2f} %"


def work(outcome: Outcome) -> str:
    """Return the share of work in low precision, with its types."""
    total = sum(outcome.macs.values())
    parts = [f"{100 * count / total:.0f} % {name}" for name, count in outcome.macs.items() if name in LOW]
    return ", ".join(parts) if parts else "" if outcome.refused or outcome.final is None else "0 %"


def counted(outcome: Outcome) -> str:
    """Return how many convolutions are in INT8."""
    return "–" if outcome.convolutions is None else f"{outcome.convolutions[0]} of {outcome.convolutions[1]}"


def table(heading: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


if __name__ == "__main__":
    chosen = sys.argv[1:] or list(MODELS)
    if unknown := set(chosen) - set(MODELS):
        raise SystemExit(f"no such model: {', '.join(sorted(unknown))}; there are: {', '.join(MODELS)}")
    text = page(chosen)
    PAGE.write_text(text, encoding="utf-8")
    sys.stderr.write(f"{PAGE.relative_to(ROOT)}: {text.count(chr(10))} lines\n")
