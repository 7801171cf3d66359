"""What scripts call: the commands as functions, their options as keyword arguments."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from convkit import building, conversion
from convkit.api_arguments import Options as Options
from convkit.api_arguments import StrPath, opened
from convkit.api_arguments import arguments_of as arguments_of
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import Observer, nobody
from convkit.report.document import Report
from convkit.request import make_request
from convkit.spec.options import CheckOptions, LimitOptions, MeasureMode

if TYPE_CHECKING:
    from convkit.checking import CheckReport
    from convkit.comparing import Comparison
    from convkit.comparing_models import ModelComparison
    from convkit.fleet import Fleet, FleetObserver
    from convkit.hosting import Serving
    from convkit.preflighting import Preflight
    from convkit.remeasuring import Remeasured
    from convkit.report.checkup import Checkup
    from convkit.report.inspection import Inspection


def convert(
    model: StrPath | None = None,
    *,
    recipe: StrPath | None = None,
    observer: Observer | None = None,
    cache: Cache | StrPath | None = None,
    **options: Unpack[Options],
) -> Report:
    """Convert a model, check it, measure it, and publish it into a model repository.

    Args:
        model: a ``.pth``, a SavedModel's folder, an ``.onnx`` file, or a folder with one; None: the recipe names it.
        recipe: a TOML file; what is given here wins over it, as does the environment (CONVKIT_TARGET, CONVKIT_TRUST).
        observer: is called with each event, in this thread.
        cache: where results are remembered, or the folder of that; by default this user's (CONVKIT_CACHE_DIR).
        options: see `Options`.

    Returns:
        The report. Its `status` is ``Status.UNCHANGED`` where the result is what was published before.

    Raises:
        UsageError: an option is unknown or malformed, or does not go with another.
        InputError: the model, its config.txt, the recipe or the data are refused; a TrustError where code beside the
            model would run.
        StepError: a step failed.
        CheckError: the result differs too much, or missed a gate.
        MissingError: something is missing on this machine.
        Each carries `message`, `hint` and `code`, and `exit_status`, that of the command; nothing was published.
    """
    given = arguments_of({"model": model, **options})
    request = make_request(given, recipe=Path(recipe) if recipe is not None else None)
    return conversion.convert(request, observer=observer or nobody, cache=opened(cache))


def build(
    repository: StrPath,
    *,
    everything: bool = False,
    into: StrPath | None = None,
    observer: Observer | None = None,
    cache: Cache | StrPath | None = None,
    sign: StrPath | None = None,
    memory_limit: str | int | None = None,
    time_limit: str | float | None = None,
    eval_data: StrPath | None = None,
    metric: str | None = None,
    measure: str | MeasureMode = MeasureMode.NONE,
) -> tuple[Report, ...]:
    """Build the engines that a conversion without a GPU has left pending; see `convkit.building.build`.

    Args:
        repository: a model repository, or one model in it: REPOSITORY/NAME.
        everything: see to live versions too: their engines for this GPU and this TensorRT (`--all`).
        into: make a ready repository here, and leave the first as it is.
        observer: is called with each event.
        cache: where results are remembered, or the folder of that.
        sign: a private key (PEM, Ed25519) with which the manifests are signed.
        memory_limit: the most memory of the workers, as ``8GB``; by default what there is.
        time_limit: the longest time of one step, as ``30m``; by default any, and 10 minutes for one run of a model.
        eval_data: evaluation data that were too large to lie beside a pending engine.
        metric: ``FILE.py:function`` or ``module:function``, the metric of your own that a pending engine is judged by.
        measure: ``none``, ``quick`` or ``full``: how long each engine is timed; ``none``: only where a gate asks.

    Returns:
        The report of each engine, `unchanged` where it stood already; nothing where nothing was pending.

    Raises:
        ConvkitError: as `convert` does; engines that were published before it stay published.
    """
    limits = LimitOptions(memory=memory_limit, time=time_limit)
    return building.build(
        Path(repository),
        everything=everything,
        into=Path(into) if into is not None else None,
        observer=observer or nobody,
        cache=opened(cache),
        sign=Path(sign) if sign is not None else None,
        limits=limits,
        eval_data=Path(eval_data) if eval_data is not None else None,
        metric=metric,
        measure=MeasureMode(measure),
    )


def convert_fleet(
    recipe: StrPath,
    *,
    jobs: int | None = None,
    observer: FleetObserver | None = None,
    cache: Cache | StrPath | None = None,
    **options: Unpack[Options],
) -> Fleet:
    """Convert every model of a recipe with ``[[model]]`` tables side by side; see docs/fleet.md.

    Args:
        recipe: the TOML file.
        jobs: how many at a time; by default half the cores, and no more than have 4 GiB of memory each.
        observer: is called with a model's name and each event; never by two threads at once.
        cache: where results are remembered, or the folder of that.
        options: see `Options`; they win over every model's own.

    Returns:
        What became of each; a model that failed raises nothing here.

    Raises:
        UsageError: an option is malformed, or cannot be meant for several models.
        InputError: the recipe is refused.
    """
    from convkit import fleet

    requests = fleet.read_fleet(Path(recipe), arguments_of(options))
    return fleet.convert_fleet(requests, jobs=jobs, observer=observer or fleet.nobody, cache=opened(cache))


def check(
    repository: StrPath,
    *,
    triton: str | None = None,
    tensorrt: str | None = None,
    serve: bool = False,
    key: StrPath | None = None,
) -> CheckReport:
    """Check a model repository, or one model in it; see `convkit.checking.check`."""
    from convkit import checking

    verifying = Path(key) if key is not None else None
    return checking.check(Path(repository), triton=triton, tensorrt=tensorrt, serve=serve, key=verifying)


def preflight(
    model: StrPath,
    *,
    fix: bool = False,
    write: StrPath | None = None,
    recipe: StrPath | None = None,
    observer: Observer | None = None,
    cache: Cache | StrPath | None = None,
    **options: Unpack[Options],
) -> Preflight:
    """Tell whether a target takes a model, without building anything; see docs/preflight.md.

    Args:
        model: what `convert` takes. An ONNX file is judged as it is, any other source is exported first.
        fix: mend what can be, into another file.
        write: where to; by default ``NAME.mended.onnx`` in the working directory.
        recipe: a TOML file, as for `convert`.
        observer: is called with each event.
        cache: where exports are remembered, or the folder of that.
        options: see `Options`; `to`, `config`, `trust`, `export` and the target's table are looked at.

    Returns:
        What was found, node by node; `exit_code` is 5 where the target does not take the model.

    Raises:
        ConvkitError: the model is refused, its export fails, or the file to be written exists.
    """
    from convkit import preflighting

    request = make_request(
        arguments_of({"model": model, **options}), recipe=Path(recipe) if recipe is not None else None
    )
    return preflighting.check_model(
        request,
        fix=fix,
        output=Path(write) if write is not None else None,
        observer=observer or nobody,
        cache=opened(cache),
    )


def inspect(
    model: StrPath,
    *,
    quick: bool = False,
    roofline: bool = True,
    write: bool | StrPath = False,
    observer: Observer | None = None,
    cache: Cache | StrPath | None = None,
    **options: Unpack[Options],
) -> Inspection:
    """Tell what a model takes, gives, costs and would run; nothing untrusted runs. See docs/inspect.md.

    Args:
        model: what `convert` takes, a published version, model, or repository with one model, or a TensorRT engine.
        quick: export nothing: what the files themselves tell.
        roofline: measure what this machine's CPU reaches, shortly, once, and tell what bounds a call on it.
        write: draft a config.txt beside the model, or at this path.
        observer: is called with each event.
        cache: where exports and the measurement are remembered, or the folder of that.
        options: see `Options`; `config`, `trust` and `export` are looked at.

    Returns:
        What could be told; its `left_out` says what could not, and why: for want of trust, for one.

    Raises:
        ConvkitError: there is no model, nothing can be told of it, or the draft's file exists.
    """
    from convkit import inspecting

    return inspecting.inspect_model(
        make_request(arguments_of({"model": model, **options})),
        quick=quick,
        roofline=roofline,
        write=write is not False,
        output=None if isinstance(write, bool) else Path(write),
        observer=observer or nobody,
        cache=opened(cache),
    )


def doctor() -> Checkup:
    """Tell what this machine can do, what to install for the rest, and what is known to go wrong here.

    Returns:
        What was found; `exit_code` is 6 where nothing can be converted.
    """
    from convkit import doctoring

    return doctoring.examine()


@contextlib.contextmanager
def serve(
    repository: StrPath,
    *,
    host: str = "127.0.0.1",
    http_port: int = 0,
    grpc_port: int = 0,
    metrics_port: int | None = None,
) -> Iterator[Serving]:
    """Serve a repository, or one model in it, on a Triton server of this machine for as long as the context lasts.

    Args:
        repository: REPOSITORY or REPOSITORY/NAME.
        host: the address to listen on.
        http_port, grpc_port: 0: any that is free.
        metrics_port: None: there are no metrics.

    Yields:
        Where the server listens, and how each model is asked. The server ends with the context, and with the thread
        that has entered it.

    Raises:
        InputError: there is no repository, or nothing in it that can be served yet.
        MissingError: there is no server on this machine; the hint has the line that starts a container.
        StepError: the server did not start.
    """
    from convkit import hosting
    from convkit.serving.server import Listen

    with hosting.host(Path(repository), Listen(host, http_port, grpc_port, metrics_port)) as (_, serving):
        yield serving


def compare(before: StrPath, after: StrPath, *, fail_on_regression: bool = False) -> Comparison:
    """Compare two releases by their reports; see `convkit.comparing.compare`."""
    from convkit import comparing

    return comparing.compare(Path(before), Path(after), fail_on_regression=fail_on_regression)


def compare_models(
    before: StrPath,
    after: StrPath,
    *,
    samples: StrPath | None = None,
    max_error: float | None = None,
    min_sqnr: float | None = None,
    bisect: bool = False,
    write: StrPath | None = None,
    trust: bool | str | Sequence[str] | None = None,
    custom_ops: Sequence[StrPath] = (),
    time_limit: str | float | None = None,
    observer: Observer | None = None,
    cache: Cache | StrPath | None = None,
) -> ModelComparison:
    """Run two models on the same inputs and compare them tensor by tensor; see docs/compare.md.

    Args:
        before, after: a model of any source, or a published version, model, or repository with one model.
        samples: a ``.npz`` file of inputs; by default those recorded with a version, else random ones.
        max_error: largest absolute difference of any element; with `min_sqnr` it replaces the default tolerance.
        min_sqnr: least signal-to-noise ratio of any tensor, in dB.
        bisect: find the first node whose output differs though its inputs agree, and write it as a model of its own.
        write: where `bisect` writes to; by default ``NODE.onnx`` in the working directory, and ``NODE.npz``.
        trust: as in `Options`, for both models.
        custom_ops: files that bring operators of your own, for both models; see docs/custom_ops.md.
        time_limit: the longest time of one step, as ``30m``; by default any, and 10 minutes for one run of a model.
        observer: is called with each event.
        cache: where exports are remembered, or the folder of that.

    Returns:
        The comparison; its `error` is set, and its `exit_code` 5, where an output differs.

    Raises:
        ConvkitError: a model or the data are refused, an export fails, or the file to be written exists.
    """
    from convkit import comparing_models

    return comparing_models.compare_models(
        Path(before),
        Path(after),
        samples=Path(samples) if samples is not None else None,
        trust=arguments_of({"trust": trust}).get("trust", ()),
        custom_ops=tuple(os.fspath(file) for file in custom_ops),
        check=CheckOptions(max_error=max_error, min_sqnr=min_sqnr),
        bisecting=bisect,
        write=Path(write) if write is not None else None,
        limits=LimitOptions(time=time_limit),
        observer=observer or nobody,
        cache=opened(cache),
    )


def remeasure(
    path: StrPath,
    *,
    measure: MeasureMode | str = MeasureMode.QUICK,
    custom_ops: Sequence[StrPath] = (),
    limits: LimitOptions | None = None,
    observer: Observer = nobody,
    cache: Cache | None = None,
) -> Remeasured:
    """Measure again what reports say, on what was published; see `convkit.remeasuring.remeasure`.

    Args:
        path: a report.json, a version's folder, a model (its latest version), or a repository (of each model).
        measure: ``none``, ``quick`` or ``full``: how long to measure latency.
        custom_ops: libraries of operators of your own, which ONNX Runtime loads; see docs/custom_ops.md.
        limits: what the workers may take.
        observer: is told what happens.
        cache: where steps are remembered. Measurements are made anew.

    Returns:
        Every figure, then and now; exit status 5 where one got worse, or cannot be told.

    Raises:
        InputError: there is no report, or what it describes is not there.
    """
    from convkit import remeasuring

    return remeasuring.remeasure(
        Path(path),
        mode=MeasureMode(measure),
        custom_ops=tuple(os.fspath(file) for file in custom_ops),
        limits=limits,
        observer=observer,
        cache=cache,
    )


def read_reports(path: StrPath) -> dict[str, Report]:
    """Read reports that were written before, by the models' names; see `convkit.reporting.read_reports`.

    Args:
        path: a report.json, a version's folder, a model (its latest version), or a repository (of each model).

    Raises:
        InputError: there is none, or one that cannot be read.
    """
    from convkit import reporting

    return reporting.read_reports(Path(path))
