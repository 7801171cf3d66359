"""convkit's accuracy budget against NNCF's accuracy control, for quantize.py --budget.

Both get the same ONNX graph, calibration and held-out data, and may lose as much of top-1: `MAX_DROPS`. Counted are
evaluations by the metric on the whole held-out data, that of the FP32 model included.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from convert import ROOT, show

MODELS = {"digits_mobile": "logits", "python_lines": "kind"}
"""Sample models, and the output that is judged."""
MAX_DROPS = (0.01, 0.005, 0.002)
Found = dict[str, Any]


def with_convkit(model: str, target: str, graph: Path, max_drop: float) -> Found:
    """Search with convkit; leave the FP32 graph that it starts from in the file `graph`."""
    import convkit
    from convkit.errors import ConvkitError

    folder = ROOT / "sample_models" / model
    with tempfile.TemporaryDirectory(prefix="budget-") as scratch:

        def convert(**options: Any) -> convkit.Report:
            return convkit.convert(
                folder,
                to=target,
                output=Path(scratch, "models"),
                cache=Path(scratch, "cache"),
                trust=True,
                measure={"mode": "none"},
                **options,
            )

        if target == "onnxruntime":
            convert()
            shutil.copy(Path(scratch, "models", model, "1", "model.onnx"), graph)
        try:
            report = convert(
                quantize={"precision": "int8", "data": folder / "calibration.npz", "samples": 160},
                accuracy={"data": folder / "heldout.npz", "max_drop": max_drop},
            )
        except ConvkitError as error:
            report = error.document  # type: ignore[assignment]
        accuracy = report.accuracy
        assert accuracy is not None
        return {
            "source": accuracy.source,
            "final": accuracy.final,
            "evaluations": 1 + len(report.trials),
            "all_evaluations": 1 + len(report.trials),
            "how": report.trials[-1].what,
            "trials": [f"{trial.what}: {trial.value:.4f}" for trial in report.trials],
        }


class Judge:
    """NNCF's validation function: top-1, and how often it was asked, and on how many samples."""

    def __init__(self, output: str, runtime: str, samples: int) -> None:
        self.output, self.runtime, self.samples = output, runtime, samples
        self.calls = self.whole = 0

    def __call__(self, model: Any, rows: Iterable[Any]) -> tuple[float, list[float]]:
        """Return the accuracy on `rows`, and whether each was right."""
        run = self._runner(model)
        right = [float(np.argmax(run(inputs), axis=-1).ravel()[0] == label) for inputs, label in rows]
        self.calls += 1
        self.whole += len(right) == self.samples
        return float(np.mean(right)), right

    def _runner(self, model: Any) -> Any:
        if self.runtime == "openvino":
            request = model.create_infer_request() if hasattr(model, "create_infer_request") else model
            return lambda inputs: request.infer(inputs)[self.output]
        import onnxruntime

        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return lambda inputs: session.run([self.output], inputs)[0]


def with_nncf(model: str, runtime: str, graph: Path, max_drop: float) -> Found:
    """Search with NNCF: its defaults, on the ONNX graph or on OpenVINO's."""
    import nncf

    folder = ROOT / "sample_models" / model
    with np.load(folder / "calibration.npz") as calibration:
        names = calibration.files
        rows = [{name: calibration[name][i : i + 1] for name in names} for i in range(len(calibration[names[0]]))]
    with np.load(folder / "heldout.npz") as held:
        judged = [({name: held[name][i : i + 1] for name in names}, label) for i, label in enumerate(held["labels"])]
    judge = Judge(MODELS[model], runtime, len(judged))
    made = nncf.quantize_with_accuracy_control(
        _network(runtime, graph),
        nncf.Dataset(rows),
        nncf.Dataset(judged, lambda row: row),
        judge,
        max_drop=max_drop,
        model_type=nncf.ModelType.TRANSFORMER if model == "python_lines" else None,
    )
    counted = {"evaluations": judge.whole, "all_evaluations": judge.calls}
    source, final = (judge(_compiled(runtime, each), judged)[0] for each in (_network(runtime, graph), made))
    return {"source": source, "final": final, **counted, "how": ""}


def _network(runtime: str, graph: Path) -> Any:
    if runtime == "openvino":
        import openvino

        return openvino.Core().read_model(str(graph))
    import onnx

    return onnx.load(graph)


def _compiled(runtime: str, network: Any) -> Any:
    if runtime == "openvino":
        import openvino

        return openvino.Core().compile_model(network, "CPU")
    return network


def compare() -> Found:
    """Run every search once, and print the table."""
    found: Found = {}
    with tempfile.TemporaryDirectory(prefix="graphs-") as folder:
        for model in MODELS:
            graph = Path(folder, f"{model}.onnx")
            for max_drop in MAX_DROPS:
                found[f"{model}, {100 * max_drop:g} %"] = {
                    "convkit, ONNX Runtime": with_convkit(model, "onnxruntime", graph, max_drop),
                    "convkit, OpenVINO": with_convkit(model, "openvino", graph, max_drop),
                    "NNCF, ONNX": with_nncf(model, "onnx", graph, max_drop),
                    "NNCF, OpenVINO": with_nncf(model, "openvino", graph, max_drop),
                }
    rows = [["model, may lose", "", "top-1 before", "after", "lost, %", "evaluations", "calls of the metric", "how"]]
    for asked, sides in found.items():
        for side, each in sides.items():
            after, lost = "–", "–"
            if each["final"] is not None:
                after, lost = f"{each['final']:.4f}", f"{100 * (each['source'] - each['final']):.2f}"
            counts = [str(each["evaluations"]), str(each["all_evaluations"])]
            rows.append([asked, side, f"{each['source']:.4f}", after, lost, *counts, each["how"]])
    show(rows)
    return found
