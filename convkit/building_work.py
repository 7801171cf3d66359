"""What `convkit build` has to do: engines still pending, and those that do not match this GPU or this TensorRT."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from convkit.errors import InputError, MissingError, UsageError
from convkit.pipeline.artifact import digest_file, read_record
from convkit.serving.engine_files import file_for
from convkit.serving.holding import told
from convkit.serving.layout import is_model, numbered
from convkit.serving.manifest import results
from convkit.serving.publish import CONFIG, MANIFEST, PENDING, RECORDS
from convkit.serving.records import SUMS, read_sums
from convkit.spec.options import Precision
from convkit.spec.paths import is_plain
from convkit.targets.build_plan import FILE_NAME, BuildPlan, read_build_plan, verify_files
from convkit.targets.engine_records import BuiltEngine, find_standing, read_engines
from convkit.targets.here import Here
from convkit.targets.trt_api import Flavour
from convkit.targets.trt_options import FP8_SINCE, has_fp8


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One version of one model whose engine is to stand."""

    source: Path
    """The model's folder that it is read from."""
    target: Path
    """The repository that it is published in: the source's, unless a repository is made elsewhere."""
    number: int
    inputs: Path
    """The folder with build.json and what it names: ``pending/<version>``, or the records of a live version."""
    pending: bool
    plan: BuildPlan
    digest: str
    """build.json's."""

    @property
    def model(self) -> Path:
        """Return the model's folder where it is published."""
        return self.target / self.source.name

    @property
    def place(self) -> Path:
        """Return the version's directory where it is published."""
        return self.model / str(self.number)

    @property
    def elsewhere(self) -> bool:
        """Tell whether it is published into another repository than it was read from."""
        return self.model != self.source

    @property
    def pending_here(self) -> bool:
        """Tell whether its pending folder goes away with its publication."""
        return self.pending and not self.elsewhere

    def base(self) -> tuple[Path | None, tuple[BuiltEngine, ...]]:
        """Return the version's directory in which engines of this very build.json stand already, and these engines."""
        for folder in (self.place, self.source / str(self.number)):
            try:
                found = digest_file(folder / RECORDS / FILE_NAME)
            except OSError:
                continue
            if found == self.digest:
                return folder, read_engines(folder / RECORDS).of(self.digest)
        return None, ()

    def standing(self, here: Here) -> BuiltEngine | None:
        """Return the engine that runs here, if it is published, whole, and the one that a server here loads."""
        folder, engines = self.base()
        if folder != self.place:
            return None
        engine = find_standing(folder, engines, self.plan, here)
        served = file_for(self.model, here.gpu.compute_capability)
        return engine if engine is not None and served == engine.file else None


def find_models(path: Path) -> tuple[Path, list[Path]]:
    """Return the repository, and the models in it that are to be looked at.

    Raises:
        InputError: there is no such folder, or it cannot be read.
        MissingError: its disk fails.
    """
    whole = path.absolute()
    with told(whole):
        if not whole.is_dir():
            raise InputError(
                f"{path} is no folder", hint="name a model repository, or one model in it", code="repository.missing"
            )
        if is_model(whole):
            return whole.parent, [whole]
        return whole, sorted(child for child in whole.iterdir() if child.is_dir() and is_model(child))


def find_tasks(models: Iterable[Path], target: Path, *, everything: bool) -> list[Task]:
    """Return the engines to see to, of each model the oldest version first.

    Args:
        models: the models' folders.
        target: the repository that they are published in.
        everything: live versions too, besides those that are pending.

    Raises:
        InputError: a build.json is damaged, or a model's folder cannot be read.
        MissingError: its disk fails.
    """
    found: list[Task] = []
    for model in models:
        with told(model.parent):
            found += _tasks_of(model, target, everything=everything)
    return found


def find_again(task: Task) -> Task | None:
    """Look again, after another builder has been at work; None: a pending version is gone, and another stands there."""
    found = find_tasks([task.source], task.target, everything=True)
    return next((each for each in found if (each.number, each.digest) == (task.number, task.digest)), None)


def _tasks_of(model: Path, target: Path, *, everything: bool) -> Iterator[Task]:
    inputs = {int(folder.name): folder for folder in numbered(model / PENDING)}
    pending = set(inputs)
    if everything:
        live = {int(folder.name): folder / RECORDS for folder in numbered(model)}
        inputs = {**{n: records for n, records in live.items() if (records / FILE_NAME).is_file()}, **inputs}
    for number, folder in sorted(inputs.items()):
        plan = read_build_plan(folder / FILE_NAME)
        if plan.target is Flavour.TENSORRT:
            yield Task(
                source=model,
                target=target,
                number=number,
                inputs=folder,
                pending=number in pending,
                plan=plan,
                digest=digest_file(folder / FILE_NAME),
            )
        elif number in pending:
            raise InputError(
                f"build.json asks for the target {plan.target.value}, whose engines are built when they are converted",
                hint="run 'convkit convert' again",
                code="build.plan",
            )


def require_buildable(task: Task, here: Here) -> None:
    """Make sure that a build can begin: every file is the one that was checked, and this machine suits it.

    Raises:
        InputError: a file is missing or damaged.
        MissingError: this TensorRT or this GPU does not suit the build.
    """
    verify_files(task.plan, task.inputs)
    _verify_records(task)
    what = f"{task.source.name} version {task.number}"
    wanted = task.plan.versions
    if not wanted.suits(here.tensorrt):
        upto = f" and before {wanted.below}" if wanted.below else ""
        raise MissingError(
            f"{what} was prepared for TensorRT from {wanted.at_least}{upto}, and this is {here.tensorrt}",
            hint="build it in a container with such a version, or run 'convkit convert' again",
            code="build.tensorrt-version",
        )
    if task.plan.precision is Precision.FP8 and not has_fp8(here.gpu.compute_capability):
        raise MissingError(
            f"{what} is in FP8, and {here.gpu.name} is of compute capability {here.gpu.compute_capability}",
            hint=f"build it on a GPU of {FP8_SINCE} or later, or convert with --quantize int8",
            code="tensorrt.no-fp8",
        )


def _verify_records(task: Task) -> None:
    """Hold what is published along with an engine against its digests: the configuration, warm-up data, the report.

    Raises:
        InputError: a file is missing or has another content.
    """
    if not task.pending:
        if not (task.source / CONFIG).is_file():
            raise _missing(task.source / CONFIG)
        return
    try:
        digests = read_sums(read_record(task.inputs / SUMS))
        digests |= results(read_record(task.inputs / MANIFEST))
    except FileNotFoundError as error:
        raise _missing(Path(error.filename)) from error
    except (OSError, ValueError) as error:
        raise _damaged(task.inputs / SUMS) from error
    for name, digest in digests.items():
        path = task.inputs / name
        if not is_plain(name) or not path.is_file():
            raise _missing(path)
        if digest_file(path) != digest:
            raise _damaged(path)


def _missing(path: Path) -> InputError:
    return InputError(f"{path} is missing", hint="copy the whole folder", code="build.missing-file")


def _damaged(path: Path) -> InputError:
    return InputError(
        f"{path} is not the file that was prepared",
        hint="copy the folder again, or run 'convkit convert' again",
        code="build.digest",
    )


def require_place(source: Path, into: Path | None) -> None:
    """Make sure, before anything is built, that it can be published.

    Raises:
        InputError: the repository cannot be written.
        UsageError: the other repository lies inside the first, or the first inside it.
    """
    place, first = (into or source).resolve(), source.resolve()
    if into is not None and (place == first or place in first.parents or first in place.parents):
        raise UsageError(
            f"--into {into}: it is {source}, or one lies in the other",
            hint="name another folder; leave --into out to build where the engines are pending",
            code="build.into",
        )
    there = next(path for path in (place, *place.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise InputError(
            f"{place} cannot be written, and engines are to be published there",
            hint="name a folder that can be written with --into DIR: a ready repository is made there",
            code="build.read-only",
        )
