"""The sample models, each in every precision to every target; each converted once in a session."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from e2e.command import Command, Outcome
from e2e.digits import CNN, DOCS, KERAS, LINES, MOBILE, NAMES, Digits

PRECISIONS = {
    "onnxruntime": ("fp32", "dynamic", "int8"),
    "tensorrt": ("fp32", "fp16", "int8"),
    "tensorrt-rtx": ("fp32", "fp16", "int8"),
}
ENGINES = {"onnxruntime": "none", "tensorrt": "deferred", "tensorrt-rtx": "built"}
QUANTIZE = {"fp32": "none"}


class Case(NamedTuple):
    """One model to one target in one precision."""

    digits: Digits
    target: str
    precision: str

    @property
    def name(self) -> str:
        """What the model is called in the repository."""
        return f"{self.digits.name}_{self.precision}"

    @property
    def arguments(self) -> tuple[str, ...]:
        calibration = ("--calibration-data", str(self.digits.calibration)) if self.precision == "int8" else ()
        quantize = QUANTIZE.get(self.precision, self.precision)
        return (*self.digits.arguments, "--to", self.target, "--quantize", quantize, *calibration)

    def __str__(self) -> str:
        return f"{self.digits.name}-{self.precision}-{self.target}"


CASES = [
    Case(digits, target, precision)
    for digits in (CNN, KERAS)
    for target, precisions in PRECISIONS.items()
    for precision in precisions
] + [Case(digits, "onnxruntime", "fp32") for digits in (MOBILE, LINES, NAMES, DOCS)]


class Conversion(NamedTuple):
    """A case that has been converted, and where everything of it must be."""

    case: Case
    repository: Path
    outcome: Outcome

    @property
    def result(self) -> dict[str, Any]:
        return self.outcome.result

    @property
    def model(self) -> Path:
        """REPOSITORY/NAME."""
        return self.repository / self.case.name

    @property
    def version(self) -> Path:
        """The folder that was published."""
        return self.model / ("pending/1" if self.case.target == "tensorrt" else "1")

    @property
    def records(self) -> Path:
        return self.version if self.case.target == "tensorrt" else self.version / "convkit"

    @property
    def onnx(self) -> Path:
        """The final ONNX model, wherever the target keeps it."""
        return (self.records if self.case.target == "tensorrt-rtx" else self.version) / "model.onnx"


class Matrix:
    """Converts each case when it is first asked for."""

    def __init__(self, command: Command, folder: Path) -> None:
        self._command = command
        self._folder = folder
        self._done: dict[str, Conversion] = {}

    def __getitem__(self, case: Case) -> Conversion:
        if str(case) not in self._done:
            repository = self.repository(case.target)
            outcome = self._command.convert(case.digits.folder, *case.arguments, "--name", case.name, "-o", repository)
            self._done[str(case)] = Conversion(case, repository, outcome)
        return self._done[str(case)]

    def repository(self, target: str) -> Path:
        """The repository that every case of a target goes into."""
        return self._folder / target
