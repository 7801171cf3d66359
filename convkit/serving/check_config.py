"""A configuration held against the files that it is about: the ONNX model of each version, and the warm-up's data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from convkit.errors import InputError
from convkit.graph.header import Header, HeaderTensor, read_header
from convkit.graph.wire import WireError
from convkit.pipeline.artifact import read_record
from convkit.serving.check_files import Version
from convkit.serving.publish import CONFIG, CONFIGS, WARMUP
from convkit.serving.remark import Remark, Severity, place_in
from convkit.serving.triton_lint import lint
from convkit.serving.triton_text import ModelConfig, parse, type_name
from convkit.spec.paths import is_plain
from convkit.spec.tensor import DType

_DEFAULT_FILES = {
    "onnxruntime": "model.onnx",
    "onnxruntime_onnx": "model.onnx",
    "tensorrt": "model.plan",
    "tensorrt_plan": "model.plan",
    "openvino": "model.xml",
    "pytorch": "model.pt",
    "pytorch_libtorch": "model.pt",
    "python": "model.py",
}
"""What a backend (or the older `platform`) loads where the configuration names no file."""

_GUESSES = {"triton.no-input": Severity.WARNING, "triton.no-output": Severity.WARNING}
"""What a server completes by itself, in a configuration that convkit did not write."""


class ConfigCheck:
    """One configuration of a model: config.pbtxt, or one of `configs/`."""

    def __init__(self, repository: Path, path: Path, versions: Sequence[Version], *, ours: bool) -> None:
        self.repository, self.path, self.ours = repository, path, ours
        self.model = path.parent if path.name == CONFIG else path.parent.parent
        self.where = place_in(repository, path)
        self.live = [version for version in versions if not version.pending]
        self.config: ModelConfig | None = None

    def remarks(self) -> Iterator[Remark]:
        """Read, lint and hold against files; `config` is there afterwards where it could be read."""
        try:
            self.config = config = parse(read_record(self.path).decode(), where=self.where)
        except InputError as error:
            yield Remark(code=error.code, message=error.message, hint=error.hint, path=self.where)
            return
        except (OSError, UnicodeDecodeError) as error:
            yield self._remark(
                code="check.unreadable", message=f"cannot be read: {error}", hint="publish the model again"
            )
            return
        for finding in lint(config, folder=self.model.name):
            severity = Severity.ERROR if self.ours else _GUESSES.get(finding.code, Severity.ERROR)
            yield self._remark(code=finding.code, message=finding.message, hint=finding.hint, severity=severity)
        yield from self._warmups(config)
        yield from self._missing_versions(config)
        served = served_versions(config, self.live)
        for version in self.live:
            severity = Severity.ERROR if version.number in served else Severity.WARNING
            yield from self._version(config, version, severity)

    def _version(self, config: ModelConfig, version: Version, severity: Severity) -> Iterator[Remark]:
        files = model_files(config)
        missing = [name for name in files if not is_plain(name) or not (version.folder / name).exists()]
        where = place_in(self.repository, version.folder)
        if missing and (len(missing) == len(files) or not config.default_model_filename):
            yield Remark(
                code="repository.no-model-file",
                severity=severity,
                message=f"{where} has no {missing[0]}, which {self.where} says to load",
                hint="a server cannot load this version: publish it again, or remove the folder",
                path=where,
            )
        for name in files:
            file = version.folder / name
            if name.endswith(".onnx") and is_plain(name) and file.is_file():
                yield from self._onnx(config, file, severity)

    def _onnx(self, config: ModelConfig, file: Path, severity: Severity) -> Iterator[Remark]:
        where = place_in(self.repository, file)
        try:
            header = read_header(file)
        except (WireError, OSError) as error:
            yield Remark(
                code="check.no-onnx",
                severity=severity,
                message=f"{where} is no ONNX model: {error}",
                hint="publish the version again",
                path=where,
            )
            return
        for fault in (*_data_faults(file, header), *_tensor_faults(config, header)):
            message = f"{where}: {fault.message}"
            yield Remark(code=fault.code, severity=severity, message=message, hint=fault.hint, path=self.where)

    def _warmups(self, config: ModelConfig) -> Iterator[Remark]:
        for warmup in config.model_warmup:
            for name, tensor in sorted(warmup.inputs.items()):
                file = tensor.input_data_file
                if file:
                    yield from self._warmup_file(name, tensor, self.model / WARMUP / file)

    def _warmup_file(self, name: str, tensor: Any, path: Path) -> Iterator[Remark]:
        where = place_in(self.repository, path)
        if not is_plain(tensor.input_data_file) or not path.is_file():
            yield self._remark(
                code="check.warmup-file",
                message=f"the warm-up's data for '{name}' are to be in {where}, which is missing",
                hint="a server does not load the model: publish it again, or take the warm-up out",
            )
            return
        bits = next((d.bits for d in DType if d.triton == type_name(tensor.data_type)), 0)
        wanted = math.prod(tensor.dims) * bits // 8
        if bits and path.stat().st_size != wanted:
            yield self._remark(
                code="check.warmup-size",
                message=f"the warm-up's data for '{name}' in {where} are {path.stat().st_size} bytes, "
                f"and its dims take {wanted}",
                hint="a server does not load the model: publish it again, or take the warm-up out",
            )

    def _missing_versions(self, config: ModelConfig) -> Iterator[Remark]:
        have = {version.number for version in self.live}
        absent = [number for number in config.version_policy.specific.versions if number not in have]
        if absent:
            yield self._remark(
                code="check.version-policy",
                message=f"the version policy names {absent}, and there are {sorted(have)}",
                hint="publish those versions, or name others",
                severity=Severity.WARNING,
            )

    def _remark(self, *, code: str, message: str, hint: str, severity: Severity = Severity.ERROR) -> Remark:
        return Remark(code=code, severity=severity, message=f"{self.where}: {message}", hint=hint, path=self.where)


def configurations(model: Path) -> list[Path]:
    """Return a model's configurations: config.pbtxt first, then those of `configs/`."""
    main = model / CONFIG
    return [*([main] if main.is_file() else []), *sorted((model / CONFIGS).glob("*.pbtxt"))]


def model_files(config: ModelConfig) -> list[str]:
    """Return the files inside a version's directory that a server may load; nothing where that is not known."""
    default = config.default_model_filename or _DEFAULT_FILES.get(config.backend or config.platform)
    return list(dict.fromkeys([*([default] if default else []), *config.cc_model_filenames.values()]))


def served_versions(config: ModelConfig, live: Sequence[Version]) -> set[int]:
    """Return the versions that a server loads under the configuration's policy."""
    numbers = sorted(version.number for version in live)
    policy = config.version_policy
    if policy.HasField("all"):
        return set(numbers)
    if policy.HasField("specific"):
        return set(numbers) & set(policy.specific.versions)
    return set(numbers[-max(1, policy.latest.num_versions) :])


class Fault(NamedTuple):
    """What a configuration and an ONNX file do not agree on."""

    code: str
    message: str
    hint: str


def _data_faults(file: Path, header: Header) -> Iterator[Fault]:
    for name in header.data_files:
        if not is_plain(name):
            yield Fault(
                code="check.data-outside",
                message=f"its weights are to be in '{name}', outside of its folder",
                hint="do not load it: a runtime may read a file that is none of the model's",
            )
        elif not (file.parent / name).is_file():
            yield Fault(
                code="check.no-data",
                message=f"its weights are to be in {name}, which is missing",
                hint="copy that file beside it",
            )


def _tensor_faults(config: ModelConfig, header: Header) -> Iterator[Fault]:
    """Compare by the rules of Triton's ONNX Runtime backend."""
    for role, configured, actual in (("input", config.input, header.inputs), ("output", config.output, header.outputs)):
        by_name = {tensor.name: tensor for tensor in actual}
        for tensor in configured:
            if tensor.name not in by_name:
                yield Fault(
                    code="check.unknown-tensor",
                    message=f"the configuration's {role} '{tensor.name}' is not in the model, which has "
                    + ", ".join(f"'{name}'" for name in by_name),
                    hint="name the tensors as the model does, or publish the model that the configuration is for",
                )
            else:
                yield from _type_fault(tensor, by_name[tensor.name])
                yield from _dims_fault(config, tensor, by_name[tensor.name], exact=role == "output")
        if role == "input" and configured:
            named = {tensor.name for tensor in configured}
            for name in (name for name in by_name if name not in named):
                yield Fault(
                    code="check.missing-input",
                    message=f"its input '{name}' is not in the configuration",
                    hint="list every input of the model",
                )


def _type_fault(tensor: Any, actual: HeaderTensor) -> Iterator[Fault]:
    configured = type_name(tensor.data_type)
    dtype = DType.from_onnx(actual.elements)
    found = dtype.triton if dtype else f"of ONNX's type {actual.elements}, which Triton does not have"
    if configured != found:
        yield Fault(
            code="check.type",
            message=f"'{tensor.name}' is {configured} in the configuration, and {found} in the model",
            hint="say the model's own data_type",
        )


def _dims_fault(config: ModelConfig, tensor: Any, actual: HeaderTensor, *, exact: bool) -> Iterator[Fault]:
    if actual.dims is None:
        return
    found = list(actual.dims)
    batched = config.max_batch_size > 0
    dims = list(tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims)
    if batched and found[:1] != [-1]:
        yield Fault(
            code="check.batch",
            message=f"max_batch_size is {config.max_batch_size}, and '{tensor.name}' has the shape {found}: its first "
            "dimension is no dynamic batch",
            hint="set max_batch_size to 0 and give the whole shapes, or export the model with a dynamic batch",
        )
    elif not found and set(dims) == {1}:
        return
    elif not _shapes_agree([-1, *dims] if batched else dims, found, exact=exact):
        shape = f"{found[1:]} behind the batch" if batched else str(found)
        yield Fault(
            code="check.dims",
            message=f"'{tensor.name}' has the dims {dims} in the configuration, and the model {shape}",
            hint="give the model's own shape, -1 where it is dynamic",
        )


def _shapes_agree(configured: list[int], found: list[int], *, exact: bool) -> bool:
    pairs = zip(configured, found, strict=False)
    return len(configured) == len(found) and all(have == want or (have == -1 and not exact) for want, have in pairs)
