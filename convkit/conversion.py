"""From a trained model to a published version: the pipeline, to be read from top to bottom."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from convkit import __version__
from convkit.beginning import Beginning
from convkit.budget import within_budget
from convkit.choosing import choose
from convkit.custom_ops import published_libraries, warn_of_place
from convkit.errors import ConvkitError
from convkit.evaluation import Evaluation, begin_evaluation
from convkit.fetching import fetched
from convkit.graph.census import Census, census_of
from convkit.graph.model import Model, Tensors
from convkit.graph.simplify import simplify
from convkit.graph.work import declared_work
from convkit.measure.compare import Verification, compare_outputs, hold_against, refuse_difference
from convkit.narrowing import narrow
from convkit.order import Order, prepare
from convkit.pipeline.artifact import use_index
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import Observer, Warned, nobody
from convkit.pipeline.identity import library_versions
from convkit.pipeline.runner import Runner
from convkit.pipeline.shared import open_cache
from convkit.pipeline.stat_index import StatIndex
from convkit.pipeline.step import step
from convkit.pipeline.watch import Limits, limits_from
from convkit.profiling import profile_models
from convkit.quantize.result import Narrowed
from convkit.refitting import while_converting
from convkit.report.assemble import Dossier, write_reports
from convkit.report.document import Client, Report, Status
from convkit.report.files import report_files
from convkit.report.gates import missed, refuse_missed, timed
from convkit.request import Request, target_options
from convkit.serving.client import SCRIPT, client_files, write_client
from convkit.serving.engine_files import fit_in
from convkit.serving.holding import locked
from convkit.serving.layout import STRANGER, STRANGER_HINT, strangers
from convkit.serving.manifest import Lock, write_manifest
from convkit.serving.publish import MODEL_FOLDER, PENDING, Publication, find_unchanged, next_version, publish
from convkit.serving.records import expected_files
from convkit.serving.signature import SIGNATURE, Signer
from convkit.serving.triton_model import same_interface, triton_files, write_warmup
from convkit.sources.exported import Exported
from convkit.sources.places import naming_places
from convkit.spec.options import CheckOptions, Precision
from convkit.targets.target import Compiled, Job, fitted
from convkit.timing import time_models


def convert(
    request: Request,
    *,
    observer: Observer = nobody,
    cache: Cache | None = None,
    command: tuple[str, ...] = (),
    dry: bool = False,
    limits: Limits | None = None,
) -> Report:
    """Convert a model, check it, measure it, and publish it into a model repository.

    Args:
        request: what is asked for; `make_request` makes one from a recipe, the environment and arguments.
        observer: is told what happens.
        cache: where results are remembered; by default this user's.
        command: the command line that asked for it, for the report.
        dry: run nothing, and raise `DryRunEnded` at the first step that would run.
        limits: what the workers may take; by default what the request says.

    Raises:
        ConvkitError: nothing was published; its `report` is the path of the failed run's report.
    """
    cache = cache or open_cache(observer)
    use_index(StatIndex(cache.root / "digests.sqlite"))
    options = request.quantize
    dossier = Dossier(target=request.to, precision=options.precision, measure=request.measure.mode, command=command)
    dossier.repository = request.output
    dossier.gate_options, dossier.check_options = request.gates, request.check
    dossier.max_drop = request.accuracy.max_drop_points
    with Runner(cache, observer, dry=dry, limits=limits or limits_from(request.limits)) as run:
        try:
            order = prepare(fetched(request, cache, run.observe))
            return _convert(order, run, dossier)
        except ConvkitError as error:
            _report_failure(error, run, dossier, request, cache)
            raise


def _report_failure(error: ConvkitError, run: Runner, dossier: Dossier, request: Request, cache: Cache) -> None:
    """Write the failed run's report where the user asked for it, else into the cache.

    A request that was refused before anything ran leaves none, unless a place was named for it.
    """
    if dossier.name is None and request.report_dir is None:
        return
    folder = Path(request.report_dir or cache.root / "reports" / f"{dossier.name}-{dossier.source_digest[7:19]}")
    report = dossier.report(run, status=Status.FAILED, report_path=str(folder / "report.json"), error=error)
    try:
        write_reports(folder, report_files(report))
    except OSError:  # the disk may be what has failed: the error itself must be heard
        report = msgspec.structs.replace(report, report=None)
    error.report = report.report
    error.document = report


def _convert(order: Order, run: Runner, dossier: Dossier) -> Report:
    _note_order(dossier, order)
    signer = Signer(Path(order.request.sign)) if order.request.sign else None
    lock = Lock(Path(order.request.locked)) if order.request.locked else None
    if lock is not None:
        lock.hold_inputs(options=order.declared(), sources=order.sources())
    run.extend(order.extensions)
    run.expect(order.source.environment, "onnx", *getattr(order.target, "environments", ()))
    request, target = order.request, order.target
    precision = order.precision

    caution = getattr(target, "cautions", {}).get(precision)
    if caution is not None:
        run.observe(Warned(code="quantize.rarely-pays", message=f"--quantize {precision.value}: {caution}"))
    order.prepare_data(run)
    beginning = Beginning(order, run)
    beginning.with_graph()
    exported = order.source.export(run, samples=order.samples, max_opset=order.release.opset)
    dossier.exported = exported
    beginning.after_export(exported)
    _require_equal(run, dossier, "as exported", exported.model, Precision.NONE, CheckOptions())

    simplified = fitted(target, run, run(simplify, exported.model, chain=request.simplify.chain))
    dossier.simplified = simplified
    evaluation = begin_evaluation(order, run, exported)
    if evaluation is not None:
        dossier.metric, dossier.accuracy = evaluation.metric, (evaluation.source, None)
        dossier.tasks = evaluation.tasks()
    narrowed = _narrowed(order, run, simplified.model, exported, evaluation, dossier)
    precision = dossier.precision = order.precision
    final, dossier.quantized = narrowed.model, narrowed.quantized
    _require_equal(run, dossier, dossier.final_label, narrowed.judged, precision, _final_check(request, precision))

    check = _final_check(request, precision)

    def held(answers: Tensors) -> Verification:
        return hold_against(list(exported.references), list(answers), precision, check)

    job = Job(
        precision=precision,
        engine=request.engine,
        options=target_options(request, target.name),
        check=request.check,
        gates=request.gates,
        samples=exported.samples,
        references=exported.references,
        recorded=exported.samples if order.samples is not None else None,
        runnable=narrowed.judged,
        refitting=while_converting(run, Path(request.output, order.found.name).absolute(), lambda a: held(a).passed),
    )
    if target.emulated and evaluation is not None and (most := request.accuracy.max_drop_points) is not None:
        gate, files = evaluation.gate(most)
        job = msgspec.structs.replace(job, accuracy=gate, evaluation=files)
    with naming_places(exported.places):
        compiled = target.compile(run, final, job)
    dossier.compiled = compiled
    if compiled.answers is not None:
        built = held(compiled.answers)
        dossier.checks.append((f"{dossier.final_label}, built", built))
        refuse_difference(built, "the built engine", exported.framework, hint=_check_hint(precision, check))
    if evaluation is not None:
        dossier.accuracy = (evaluation.source, evaluation.final(narrowed.judged, compiled))
        dossier.tasks = evaluation.tasks(narrowed.judged, compiled)
        _warn_of_data_left(run, job, compiled)
    dossier.final = (final, run(take_final_census, final) if final != simplified.model else simplified.after)
    dossier.work = compiled.work
    if compiled.work is None and precision is not Precision.NONE:
        dossier.work = run(declared_work, final, samples=exported.samples, runnable=narrowed.judged)
    dossier.emulated = target.emulated and compiled.answers is None
    dossier.speeds = time_models(order, run, dossier, simplified.model, final)
    dossier.complete = True
    if run.stages[-1].cached and timed(missed(dossier.gates())):  # a moment's noise must not be remembered for ever
        dossier.speeds = time_models(order, run, dossier, simplified.model, final, fresh=True)
    dossier.profiles = profile_models(order, run, dossier, simplified.model, final)
    _require_gates(dossier, final, compiled)
    return _publish(order, run, dossier, final, compiled, lock, signer)


def _narrowed(
    order: Order, run: Runner, model: Model, exported: Exported, evaluation: Evaluation | None, dossier: Dossier
) -> Narrowed:
    """Write the graph in the precision asked for; where its accuracy has a budget, search for a way to keep it."""
    if order.precision is Precision.AUTO:
        choice = choose(order, run, model, exported, evaluation)
        dossier.choice, dossier.trials = choice.why, choice.trials
        return choice.narrowed
    if evaluation is None or order.request.accuracy.max_drop is None or not order.precision.is_calibrated:
        return narrow(order, run, model, exported)
    narrowed, dossier.trials = within_budget(order, run, model, exported, evaluation)
    return narrowed


@step(version=1, stage="check", title="Count operators", needs="onnx")
def take_final_census(model: Model) -> Census:
    """Count the final graph's operators and weights."""
    return census_of(model)


def _require_equal(
    run: Runner, dossier: Dossier, subject: str, model: Model, precision: Precision, options: CheckOptions
) -> None:
    """Hold a model's outputs against the source framework's.

    Raises:
        CheckError: they differ beyond the tolerance.
    """
    exported = dossier.exported
    assert exported is not None
    verification = run(
        compare_outputs,
        model,
        samples=exported.samples,
        references=exported.references,
        precision=precision,
        options=options,
    )
    dossier.checks.append((subject, verification))
    if not verification.passed:
        dossier.candidate = str(model.path)
    refuse_difference(verification, subject, exported.framework, hint=_check_hint(precision, options))


def _require_gates(dossier: Dossier, final: Model, compiled: Compiled) -> None:
    """Hold the result against its gates, before anything is published.

    Raises:
        CheckError: a gate was missed, or could not be judged for sure.
    """
    gates = dossier.gates()
    if missed(gates):
        served = next(iter(compiled.files.values())) if compiled.engine == "built" else final.path
        dossier.candidate = str(served)
        refuse_missed(gates, dossier.found())


def _final_check(request: Request, precision: Precision) -> CheckOptions:
    """Return how far the final model may be off: where its accuracy is judged, no further than half noise."""
    return request.check if request.accuracy.max_drop is None else request.check.where_judged(precision)


def _warn_of_data_left(run: Runner, job: Job, compiled: Compiled) -> None:
    if compiled.engine == "deferred" and job.accuracy is not None and not job.accuracy.carried:
        rows = [job.evaluation[name] for name in job.accuracy.data]
        message = (
            "the evaluation data are too large to lie beside the engine: take "
            f"{rows[0] if len(rows) == 1 else rows[0].parent} along, and name it to convkit build with --eval-data"
        )
        run.observe(Warned(code="accuracy.data-left", message=message))


def _check_hint(precision: Precision, options: CheckOptions) -> str:
    if precision is Precision.NONE and options == CheckOptions():
        return "the export itself is wrong: report it, or try another --opset"
    allow = "allow more with --max-error or --min-sqnr"
    if precision.is_calibrated:
        return f"give more or better calibration data, another --calibration-method, a higher precision, or {allow}"
    return allow if precision is Precision.NONE else f"choose a higher precision, or {allow}"


def _publish(
    order: Order,
    run: Runner,
    dossier: Dossier,
    final: Model,
    compiled: Compiled,
    lock: Lock | None,
    signer: Signer | None,
) -> Report:
    """Put the version into the repository, with its records; nothing where the result is what stands there.

    A version that stands there without the signature asked for is put there again with it.
    """
    request = order.request
    repository = Path(request.output)
    name = order.found.name
    assert dossier.exported is not None
    wants_warmup = request.triton.warmup and order.target.backend is not None
    warmup = run(write_warmup, final.interface, samples=dossier.exported.samples) if wants_warmup else None
    samples = dossier.exported.samples
    client = run(write_client, name, final.interface, samples=samples) if order.target.backend is not None else None
    dossier.client = Client(script=SCRIPT, curl=client.curl) if client is not None else None
    libraries = published_libraries(order.extensions)
    warn_of_place(run, libraries, request.triton.repository)
    triton = triton_files(
        name,
        final.interface,
        order.target,
        request.triton,
        warmup,
        precision=order.precision,
        parameters=compiled.parameters,
        accelerator=compiled.accelerator,
        profiles=compiled.profiles,
        libraries=libraries,
        repository=repository,
    )
    pending = compiled.engine == "deferred"
    files, joins = dict(compiled.files), None
    if triton.config is not None and not pending:
        files, config, joins = fit_in(repository / name, files, triton.config, version=request.version)
        triton = msgspec.structs.replace(triton, config=config)
    if pending:  # what `convkit build` publishes with the engine: a live model's configuration is not touched now
        files.update({f"{MODEL_FOLDER}/{file}": data for file, data in triton.all().items()})
    publication = Publication(
        name=name,
        files=files,
        manifest=write_manifest(
            files=files,
            beside={} if pending else triton.all(),
            options=order.declared(),
            sources=order.sources(),
            versions={"convkit": __version__, **library_versions(tuple(run.libraries))},
        ),
        config=triton.config,
        beside=triton.beside,
        pending=pending,
    )
    if lock is not None:
        lock.hold_results(publication.manifest)
    signature = {SIGNATURE: signer.sign(publication.manifest)} if signer is not None else {}
    run.act()
    with run.account("publish", "Publish"), locked(repository):
        _warn_of_strangers(run, repository)
        unchanged = find_unchanged(repository, publication, request.version)
        is_built = unchanged is not None and pending and unchanged.folder.parent.name != PENDING
        if unchanged is not None and (is_built or _has(unchanged.records, signature)):
            path = str(unchanged.records / "report.json")
            report = dossier.report(run, status=Status.UNCHANGED, version=unchanged.version, report_path=path)
            _write_where_asked(report, request)
            return report
        number = unchanged.version if unchanged else joins or request.version or next_version(repository, name)
        records = "" if pending else "convkit/"
        place = repository / name / ("pending" if pending else "") / str(number) / records
        report = dossier.report(run, status=Status.OK, version=number, report_path=str(place / "report.json"))
        rendered = report_files(report)
        kept = {} if compiled.engine != "none" else _expected(dossier.exported, order.precision, request)
        asking = client_files(Path(client.files.path)) if client is not None else {}
        records_of: dict[str, Path | bytes] = {**rendered, **kept, **asking, **signature}
        publish(
            repository,
            msgspec.structs.replace(
                publication,
                files={**publication.files, **{records + file: data for file, data in records_of.items()}},
            ),
            version=number,
            replace=request.replace or unchanged is not None or joins is not None,
            same_interface=same_interface(repository / name, triton.config),
        )
    _write_where_asked(report, request)
    return report


def _has(folder: Path, signature: Mapping[str, bytes]) -> bool:
    """Tell whether the signature asked for is there already."""
    return all((folder / name).is_file() and (folder / name).read_bytes() == data for name, data in signature.items())


def _write_where_asked(report: Report, request: Request) -> None:
    """Write the report besides the repository, where a place was named for it."""
    if request.report_dir:
        write_reports(Path(request.report_dir), report_files(report))


def _warn_of_strangers(run: Runner, repository: Path) -> None:
    for folder in strangers(repository):
        message = f"{STRANGER.format(name=folder.name)}; {STRANGER_HINT}"
        run.observe(Warned(code="repository.not-a-model", message=message))


def _expected(exported: Exported, precision: Precision, request: Request) -> dict[str, Path | bytes]:
    """Return the records by which `convkit check --serve` judges a server's answers; an engine has them already."""
    samples, references = (
        {name: tensors.files.file(name) for name in tensors.files.files}
        for tensors in (exported.samples, exported.references)
    )
    return expected_files(samples, references, precision, _final_check(request, precision))


def _note_order(dossier: Dossier, order: Order) -> None:
    dossier.name = order.found.name
    dossier.source_name = order.found.file
    dossier.source_kind = order.source.kind
    dossier.source_digest = order.source.files.digest
    dossier.source_bytes = order.source.files.bytes
    if order.request.quantize.data is not None:
        dossier.calibration_source = Path(order.request.quantize.data).name
