"""A server's answers held against the recorded ones: the same samples, over HTTP, within the recorded tolerance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from convkit.errors import CheckError, ConvkitError, InputError
from convkit.graph.model import read_npz
from convkit.measure.compare import hold_against, refuse_difference
from convkit.serving.check_files import Version
from convkit.serving.infer import infer
from convkit.serving.publish import CONFIG, CONFIGS
from convkit.serving.records import EXPECTED, Expected
from convkit.serving.remark import Remark, Severity, place_in
from convkit.serving.server import Server
from convkit.serving.triton_text import ModelConfig, parse
from convkit.spec.damage import NOT_JSON
from convkit.spec.paths import is_plain
from convkit.targets.build_plan import FILE_NAME, read_build_plan
from convkit.targets.cuda_driver import driver_present

if TYPE_CHECKING:
    import numpy as np

EQUAL, DIFFERENT, FAILED, NOT_COMPARED = "equal", "different", "failed", "not compared"
_CPU = "cpu"


def open_server(repository: Path) -> Server:
    """Make a server for the repository, not yet started; without a GPU it prefers `configs/cpu.pbtxt`.

    Raises:
        MissingError: there is none on this machine.
    """
    return Server(repository, config_name=config_name())


def config_name() -> str | None:
    """Return the configuration that a server of this machine is to prefer: without a GPU `cpu`."""
    return None if driver_present() else _CPU


def check_served(
    repository: Path,
    model: Path,
    live: Sequence[Version],
    wanted: set[int],
    server: Server,
    remarks: list[Remark],
) -> dict[int, str]:
    """Load a model, send every recorded case to each version that is served, and compare.

    Args:
        repository: the model repository.
        model: the model's folder.
        live: its versions.
        wanted: those that the configuration's policy serves.
        server: started, with no model loaded.
        remarks: what is found is added to them.

    Returns, by version, what came of it.
    """
    if not live:
        return {}
    reason = server.load(model.name)
    if reason is not None:
        remarks.append(
            Remark(
                code="check.not-loaded",
                message=f"the server does not load {model.name}: {reason}",
                hint="mend what it says; the findings above may name it",
                path=model.name,
            )
        )
        return {version.number: FAILED if version.number in wanted else NOT_COMPARED for version in live}
    config = _configuration(model)
    return {
        version.number: _compare(repository, version, config, server, remarks)
        if version.number in wanted
        else NOT_COMPARED
        for version in live
    }


def _configuration(model: Path) -> ModelConfig:
    """Return the configuration that the server has taken."""
    cpu = model / CONFIGS / f"{_CPU}.pbtxt"
    path = cpu if not driver_present() and cpu.is_file() else model / CONFIG
    return parse(path.read_text(encoding="utf-8"), where=str(path))


def _compare(repository: Path, version: Version, config: ModelConfig, server: Server, remarks: list[Remark]) -> str:
    where = place_in(repository, version.folder)
    try:
        expected = read_expected(version)
    except InputError as error:
        remarks.append(Remark(code=error.code, message=error.message, hint=error.hint, path=where))
        return FAILED
    if expected is None:
        remarks.append(
            Remark(
                code="check.no-samples",
                severity=Severity.NOTE,
                message=f"{where} is served, and has no recorded samples to compare with",
                hint="publish it with convkit convert, which records them",
                path=where,
            )
        )
        return NOT_COMPARED
    try:
        _hold(version, expected, config, server)
    except ConvkitError as error:
        remarks.append(Remark(code=error.code, message=f"{where}: {error.message}", hint=error.hint, path=where))
        return DIFFERENT if error.code == "check.outputs-differ" else FAILED
    return EQUAL


def _hold(version: Version, expected: Expected, config: ModelConfig, server: Server) -> None:
    """Send the cases one after the other.

    Raises:
        CheckError: the server does not answer, or its answers are not those that were recorded.
        InputError: the records cannot be read.
    """
    if not server.is_ready(config.name, version.number):
        raise CheckError(
            "the server has loaded the model, and does not serve this version",
            hint="look at the version policy in config.pbtxt",
            code="check.not-served",
        )
    references: list[dict[str, np.ndarray]] = []
    answers: list[dict[str, np.ndarray]] = []
    for sample, reference in zip(expected.samples, expected.references, strict=True):
        references.append(read_npz(version.records / reference))
        answers.append(infer(server, config, version.number, read_npz(version.records / sample), references[-1]))
    refuse_difference(
        hold_against(references, answers, expected.precision, expected.check),
        "the server's answer",
        "the source framework",
        hint="the server's runtime computes otherwise: compare its version with the one that convkit checked with",
    )


def read_expected(version: Version) -> Expected | None:
    """Return what a version's records say of its answers: expected.json, or the build.json of an engine; else None.

    Raises:
        InputError: they cannot be read.
    """
    path = version.records / EXPECTED
    if path.is_file():
        return _decoded(path)
    if not (version.records / FILE_NAME).is_file():
        return None
    plan = read_build_plan(version.records / FILE_NAME)
    if not plan.samples:
        return None
    return Expected(
        precision=plan.precision, check=plan.tolerance, samples=tuple(plan.samples), references=tuple(plan.references)
    )


def _decoded(path: Path) -> Expected:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Expected)
        problem = "" if _is_paired(found) else "its samples and references are no pairs of files"
    except (OSError, *NOT_JSON) as error:
        problem = str(error)
    if problem:
        raise InputError(
            f"{path} cannot be read: {problem}", hint="publish the version again", code="check.expected-unreadable"
        )
    return found


def _is_paired(expected: Expected) -> bool:
    return (
        len(expected.samples) == len(expected.references)
        and all(map(is_plain, expected.samples))
        and all(map(is_plain, expected.references))
    )
