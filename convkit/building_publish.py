"""Publishing an engine with what it was built from, beside the engines of other GPUs."""

from __future__ import annotations

from pathlib import Path

import msgspec

from convkit import __version__
from convkit.building_engine import Finished, report_of
from convkit.building_work import Task
from convkit.pipeline.artifact import digest_file, read_record
from convkit.pipeline.identity import library_versions
from convkit.pipeline.runner import Runner
from convkit.pipeline.step import ENVIRONMENTS
from convkit.report.document import Report
from convkit.report.files import report_files
from convkit.serving.client import client_files
from convkit.serving.engine_files import DEFAULT, Plans, lay_side_by_side, standing_beside
from convkit.serving.engine_names import with_names
from convkit.serving.holding import locked
from convkit.serving.manifest import results, write_manifest
from convkit.serving.publish import (
    CONFIG,
    MANIFEST,
    MODEL_FOLDER,
    RECORDS,
    Publication,
    discard_pending,
    publish,
)
from convkit.serving.signature import SIGNATURE, Signer
from convkit.serving.statement import read_statement
from convkit.serving.surroundings import surroundings
from convkit.targets.build_plan import FILE_NAME
from convkit.targets.engine_records import ENGINES, BuiltEngine, encode_engines, is_whole
from convkit.targets.here import Here


def publish_engine(run: Runner, task: Task, here: Here, made: Finished | None, signer: Signer | None) -> Report:
    """Publish an engine under its version; what was pending goes away with that.

    Args:
        run: keeps account.
        task: the version.
        here: this machine.
        made: the engine; None: those that stand are taken over into another repository as they are.
        signer: signs the manifest.

    Raises:
        InputError: the repository cannot be written.
        MissingError: its disk is full, or fails.
    """
    with run.account("publish", "Publish"), locked(task.target):
        publication = _publication(task, _plans(task, here, made))
        report = msgspec.structs.replace(
            made.report if made is not None else _standing_report(task),
            repository=str(task.target),
            model=str(task.model),
            version=task.number,
            report=str(task.place / RECORDS / "report.json"),
            candidate=None,
            error=None,
        )
        signature = {SIGNATURE: signer.sign(publication.manifest)} if signer else {}
        records = {**report_files(report), **client_files(task.inputs), **signature}
        rendered = {f"{RECORDS}/{name}": data for name, data in records.items()}
        publish(
            task.target,
            msgspec.structs.replace(publication, files={**publication.files, **rendered}),
            version=task.number,
            replace=True,  # the number was given when it was prepared
            same_interface=True,
        )
        if task.pending and not task.elsewhere:
            discard_pending(task.inputs)
    return report


def _standing_report(task: Task) -> Report:
    folder, _ = task.base()
    return report_of(task if folder is None else msgspec.structs.replace(task, inputs=folder / RECORDS))


def _plans(task: Task, here: Here, made: Finished | None) -> Plans:
    """Put the new engine beside those of other kinds of GPU, each under its name."""
    folder, standing = task.base()
    if made is None:
        found = [(each, folder / each.file) for each in standing if folder is not None and is_whole(folder, each)]
        return lay_side_by_side(task.model, found, task.plan.options)
    others = (
        standing_beside(folder, standing, here.gpu.compute_capability, task.plan.options) if folder is not None else []
    )
    new = (_engine_of(task, here, made), made.engine.files.file())
    return lay_side_by_side(task.model, [*others, new], task.plan.options)


def _engine_of(task: Task, here: Here, made: Finished) -> BuiltEngine:
    return BuiltEngine(
        file=DEFAULT,
        digest=digest_file(made.engine.files.file()),
        gpu=here.gpu,
        tensorrt=here.tensorrt,
        built_from=task.digest,
        refitted=made.refitted,
    )


def _publication(task: Task, plans: Plans) -> Publication:
    """Make a version of its engines and of what they were built from."""
    manifest = read_record(task.inputs / MANIFEST)
    around = _around(task)
    config = with_names(around.pop(CONFIG), plans.names)
    named = [*task.plan.files, FILE_NAME]
    files: dict[str, Path | bytes] = {
        **plans.files,
        **{f"{RECORDS}/{name}": task.inputs / name for name in named},
        f"{RECORDS}/{ENGINES}": encode_engines(plans.records),
    }
    told = _told_of(task, manifest)
    return Publication(
        name=task.source.name,
        files=files,
        manifest=write_manifest(
            files=files,
            beside={**{name: data for name, data in around.items() if name in told}, CONFIG: config},
            options={
                "engine": msgspec.to_builtins(task.plan.options),
                "gpus": {each.file: msgspec.to_builtins(each.gpu) for each in plans.records},
            },
            sources=results(manifest) if task.pending else read_statement(manifest).sources,
            versions={"convkit": __version__, **library_versions(ENVIRONMENTS["tensorrt"])},
        ),
        config=config,
        beside=around,
    )


def _around(task: Task) -> dict[str, bytes]:
    """Return the files of the model's own folder: those that wait with a pending version, else those that stand."""
    if not task.pending:
        standing = surroundings(task.source)
        return {**standing, **({CONFIG: config} if (config := surroundings(task.model).get(CONFIG)) else {})}
    folder = task.inputs / MODEL_FOLDER
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _told_of(task: Task, manifest: bytes) -> set[str]:
    """Return the names of those of them that the manifest tells of."""
    if task.pending:
        return {name.removeprefix(f"{MODEL_FOLDER}/") for name in results(manifest)}
    return set(read_statement(manifest).byproducts)
