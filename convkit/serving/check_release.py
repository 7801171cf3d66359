"""Which versions a Triton release, or a TensorRT, cannot read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from convkit.errors import ConvkitError, UsageError
from convkit.graph.header import read_header
from convkit.graph.wire import WireError
from convkit.serving.check_config import model_files
from convkit.serving.check_files import Version
from convkit.serving.releases import TritonRelease
from convkit.serving.remark import Remark, Severity, place_in
from convkit.serving.statement import Statement
from convkit.serving.triton_text import ModelConfig
from convkit.targets.build_plan import FILE_NAME, read_build_plan
from convkit.targets.engine_records import read_engines

_PLAN = ".plan"


def check_release(
    repository: Path, version: Version, config: ModelConfig | None, release: TritonRelease
) -> Iterator[Remark]:
    """Hold a version's ONNX files against what the ONNX Runtime of a release reads."""
    for file in _files(version, config, ".onnx"):
        where = place_in(repository, file)
        try:
            header = read_header(file)
        except (WireError, OSError):
            continue  # said where the configuration is held against it
        too_new = []
        if header.ir_version > release.ir_version:
            too_new.append(f"IR version {header.ir_version} (it reads {release.ir_version} at most)")
        if header.opset > release.opset:
            too_new.append(f"opset {header.opset} (it reads {release.opset} at most)")
        if too_new:
            yield Remark(
                code="check.release-onnx",
                message=f"{where} cannot be read by Triton {release.name}, whose ONNX Runtime is "
                f"{release.onnxruntime}: it has {' and '.join(too_new)}",
                hint=f"convert it again with --triton {release.name}",
                path=where,
            )


def check_tensorrt(
    repository: Path,
    version: Version,
    config: ModelConfig | None,
    statement: Statement | None,
    *,
    tensorrt: str | None,
    server: str,
) -> Iterator[Remark]:
    """Hold a version's engine against the TensorRT that is to load it.

    Args:
        repository: the model repository.
        version: a version of a model in it.
        config: the model's configuration.
        statement: the version's manifest, which names the TensorRT that built it.
        tensorrt: the version that will load it; None where that is not known.
        server: what carries it, in words.
    """
    recorded = {engine.file: engine.tensorrt for engine in read_engines(version.records).engines}
    for file in _files(version, config, _PLAN):
        where = place_in(repository, file)
        built = recorded.get(file.name) or (statement.version_of("tensorrt") if statement else None)
        if built is None or tensorrt is None:
            unknown = "which TensorRT built it" if built is None else f"which TensorRT is in {server}"
            yield Remark(
                code="check.tensorrt-unknown",
                severity=Severity.WARNING,
                message=f"{where}: convkit does not know {unknown}, and an engine runs on that very version alone",
                hint="name the version that will load it with --tensorrt"
                if built is not None
                else "build it again where it is to run, with convkit build, so that it is recorded",
                path=where,
            )
        elif not _loads(built, tensorrt, compatible=_is_compatible(version)):
            yield Remark(
                code="check.release-tensorrt",
                message=f"{where} was built by TensorRT {built} and cannot be loaded by {server}, whose TensorRT is "
                f"{tensorrt}",
                hint="build it again there: convkit build --all in that container; or set [tensorrt] "
                "version_compatible for engines that later releases load too",
                path=where,
            )


def check_tensorrt_name(version: str) -> str:
    """Return a TensorRT version that a user has named.

    Raises:
        UsageError: it is none.
    """
    if not re.fullmatch(r"\d+\.\d+(\.\d+){0,2}", version):
        raise UsageError(
            f"--tensorrt {version}: it is no version", hint="such as 10.16 or 10.16.1.11", code="usage.tensorrt-version"
        )
    return version


def _files(version: Version, config: ModelConfig | None, ending: str) -> list[Path]:
    """Return the files of a version that a server loads, with that ending; where nothing says which, all of them."""
    names = model_files(config) if config is not None else []
    if version.pending:
        return []
    found = [version.folder / name for name in names] if names else sorted(version.folder.glob(f"*{ending}"))
    return [file for file in found if file.name.endswith(ending) and file.is_file()]


def _is_compatible(version: Version) -> bool:
    try:
        return read_build_plan(version.records / FILE_NAME).options.version_compatible
    except ConvkitError:
        return False


def _loads(built: str, runs: str, *, compatible: bool) -> bool:
    """Tell whether an engine of one TensorRT runs on another; of a version given in part, by what is given."""
    was, now = _numbers(built), _numbers(runs)
    shared = min(len(was), len(now))
    return was[:shared] == now[:shared] or (compatible and was[:shared] < now[:shared])


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
