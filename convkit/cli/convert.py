"""`convkit convert`."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convkit.cli.shared_options import CustomOps
from convkit.cli.watch import watcher
from convkit.errors import TrustError, UsageError
from convkit.request import OPTIONS, make_request
from convkit.sources.trust import TRUST_ALL
from convkit.spec.options import CalibrationMethod, EngineMode, MeasureMode, Precision, TensorLayout, TensorNames
from convkit.spec.recipe import Table, merge, parse_setting
from convkit.targets.onnxruntime_options import AcceleratorName

if TYPE_CHECKING:
    from convkit.report.document import Report

_Text = Annotated[str | None, typer.Option]


def command(
    model: Annotated[
        str | None, typer.Argument(help="A .pth, a SavedModel's folder, an .onnx, or a folder with one.")
    ] = None,
    to: Annotated[str | None, typer.Option(help="onnxruntime (default), openvino, tensorrt or tensorrt-rtx.")] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="Model repository. [./models]")] = None,
    config: Annotated[str | None, typer.Option(help="config.txt; by default beside or inside MODEL.")] = None,
    name: Annotated[str | None, typer.Option(help="The model's name in the repository.")] = None,
    version: Annotated[
        str | None, typer.Option(help="A number, or auto: the next one where the result changed.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace what stands there with other content.")] = False,
    recipe: Annotated[Path | None, typer.Option(help="TOML file with any of these; the command line wins.")] = None,
    model_def: Annotated[str | None, typer.Option(help="FILE.py:factory or module:factory, for a state dict.")] = None,
    state_key: Annotated[str | None, typer.Option(metavar="KEY", help="Where a checkpoint keeps the weights.")] = None,
    signature: Annotated[str | None, typer.Option(help="The SavedModel's signature.")] = None,
    opset: Annotated[int | None, typer.Option(help="ONNX opset to write.")] = None,
    max_batch_size: Annotated[int | None, typer.Option(help="Triton's max_batch_size.")] = None,
    samples: Annotated[
        str | None, typer.Option(metavar="DATA", help="Inputs for checks and warm-up; data as for calibration.")
    ] = None,
    custom_ops: CustomOps = None,
    layout: Annotated[TensorLayout | None, typer.Option(help="TensorFlow's images: as they are, or turned.")] = None,
    tensor_names: Annotated[TensorNames | None, typer.Option(help="Which of config.txt's names clients use.")] = None,
    quantize: Annotated[Precision | None, typer.Option(help="Precision to write.")] = None,
    calibration_data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help=".npz, a folder of .npz, .npy or images, or FILE.py:function."),
    ] = None,
    calibration_method: Annotated[CalibrationMethod | None, typer.Option(help="How ranges are chosen.")] = None,
    calibration_samples: Annotated[int | None, typer.Option(help="Use at most so many. [128]")] = None,
    allow_random_calibration: Annotated[
        bool, typer.Option("--allow-random-calibration", help="Calibrate on random inputs.")
    ] = False,
    eval_data: Annotated[
        str | None, typer.Option(metavar="DATA", help="Data on which the accuracy is measured, before and after.")
    ] = None,
    labels_key: Annotated[str | None, typer.Option(help="What the labels are called in them. [labels]")] = None,
    metric: Annotated[
        str | None, typer.Option(help="top1, agreement or FILE.py:function. [top1 where there are labels]")
    ] = None,
    max_drop: Annotated[
        str | None, typer.Option(metavar="POINTS", help="Gate: most accuracy to lose, such as 1% or 0.01.")
    ] = None,
    budget_evals: Annotated[
        int | None, typer.Option(help="Evaluate at most so many models in search of one within --max-drop.")
    ] = None,
    max_error: Annotated[float | None, typer.Option(help="Largest absolute difference allowed.")] = None,
    min_sqnr: Annotated[float | None, typer.Option(help="Least signal-to-noise ratio allowed, dB.")] = None,
    max_latency: Annotated[float | None, typer.Option(metavar="MS", help="Gate: longest median latency.")] = None,
    min_speedup: Annotated[
        float | None, typer.Option(metavar="X", help="Gate: times as fast as the source framework.")
    ] = None,
    max_size: Annotated[
        str | None, typer.Option(metavar="BYTES", help="Gate: largest size; 10MB and 10MiB are understood.")
    ] = None,
    min_low_precision: Annotated[
        str | None, typer.Option(metavar="SHARE", help="Gate: least share of the work in the precision asked for.")
    ] = None,
    engine: Annotated[
        EngineMode | None, typer.Option(help="Build the engine now, or leave it to convkit build.")
    ] = None,
    accelerator: Annotated[
        AcceleratorName | None, typer.Option(help="With --to onnxruntime: what it hands the graph to in Triton.")
    ] = None,
    triton: Annotated[str | None, typer.Option(help="Triton release that will serve it, such as 24.10.")] = None,
    measure: Annotated[MeasureMode | None, typer.Option(help="How long to measure latency.")] = None,
    memory_limit: Annotated[
        str | None, typer.Option(metavar="BYTES", help="Most memory of the workers, such as 8GB. [what there is]")
    ] = None,
    time_limit: Annotated[
        str | None, typer.Option(metavar="TIME", help="Longest time of one step. [any; one run of the model: 10m]")
    ] = None,
    trust: Annotated[
        list[str] | None,
        typer.Option(metavar="[=sha256:DIGEST]", help="Run the code beside the model; with a digest, that file alone."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="TABLE.KEY=VALUE", help="Any other key of a recipe.")
    ] = None,
    report_dir: Annotated[str | None, typer.Option(help="Write the report here too, also a failed run's.")] = None,
    sign: Annotated[
        str | None, typer.Option(metavar="KEY.pem", help="Sign the manifest with this private key.")
    ] = None,
    locked: Annotated[str | None, typer.Option(help="A manifest.json: give that very result, or refuse.")] = None,
    jobs: Annotated[int | None, typer.Option(help="MODEL.toml with [[model]]s: convert so many at a time.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Run nothing; say what would run.")] = False,
    write_recipe: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="Write what is asked for here, as a recipe.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Warnings and errors only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="The whole report at the end.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> int | None:
    """Convert a model, check it, measure it, and publish it for a server."""
    del debug  # read by the application, before anything else
    given: dict[str, Any] = {
        "model": model,
        "to": to,
        "output": output,
        "config": config,
        "name": name,
        "version": _version(version),
        "replace": replace or None,
        "trust": trust,
        "engine": engine and engine.value,
        "onnxruntime.accelerator": accelerator and accelerator.value,
        "report_dir": report_dir,
        "locked": locked,
        "sign": sign,
        "export.model_def": model_def,
        "export.state_key": state_key,
        "export.signature": signature,
        "export.opset": opset,
        "export.layout": layout and layout.value,
        "export.tensor_names": tensor_names and tensor_names.value,
        "export.max_batch_size": max_batch_size,
        "export.samples": samples,
        "export.custom_ops": custom_ops or None,
        "quantize.precision": quantize and quantize.value,
        "quantize.data": calibration_data,
        "quantize.method": calibration_method and calibration_method.value,
        "quantize.samples": calibration_samples,
        "quantize.allow_random": allow_random_calibration or None,
        "accuracy.data": eval_data,
        "accuracy.labels": labels_key,
        "accuracy.metric": metric,
        "accuracy.max_drop": max_drop,
        "accuracy.budget_evals": budget_evals,
        "check.max_error": max_error,
        "check.min_sqnr": min_sqnr,
        "measure.mode": measure and measure.value,
        "gates.max_latency": max_latency,
        "gates.min_speedup": min_speedup,
        "gates.max_size": max_size,
        "gates.min_low_precision": min_low_precision,
        "triton.release": triton,
        "limits.memory": memory_limit,
        "limits.time": time_limit,
    }
    assert given.keys() == OPTIONS.keys()
    arguments = merge(
        *(_nested(key, value) for key, value in given.items() if value is not None),
        *(parse_setting(setting) for setting in settings or ()),
    )
    if model is not None and model.endswith(".toml"):
        from convkit.cli.fleet import convert_models

        others: dict[str, object] = {"--recipe": recipe, "--dry-run": dry_run, "--write-recipe": write_recipe}
        refuse_together(others, f"{model}, which holds several models")
        del arguments["model"]
        return convert_models(Path(model), arguments, jobs=jobs, as_json=as_json, quiet=quiet)
    refuse_together({"--jobs": jobs}, "one model; it is for a recipe with [[model]] tables")
    if write_recipe is not None:
        from convkit import written

        request = make_request(arguments, recipe=recipe)
        written.write_recipe(request, write_recipe, command=shlex.join(["convkit", *sys.argv[1:]]))
    report = _converted(arguments, recipe, quiet=quiet or as_json, dry=dry_run, may_ask=not (quiet or as_json))
    if as_json:
        from convkit.report.document import Result, Status, to_json

        planned = Result(status=Status.OK, exit_code=0)
        sys.stdout.write(to_json(report.head() if report is not None else planned))
    elif report is not None and not quiet:
        _show(report, details=verbose)
    return None


def refuse_together(options: dict[str, object], what: str) -> None:
    """Refuse those of the options that are given.

    Raises:
        UsageError: one is.
    """
    for option, value in options.items():
        if value not in (None, False):
            raise UsageError(f"{option} does not go with {what}", hint="leave it out", code="usage.together")


def _converted(arguments: Table, recipe: Path | None, *, quiet: bool, dry: bool, may_ask: bool) -> Report | None:
    """Convert; on a terminal, ask once whether code beside the model may run."""
    from convkit.conversion import convert
    from convkit.pipeline.runner import DryRunEnded

    request = make_request(arguments, recipe=recipe)
    line = ("convkit", *sys.argv[1:])
    with watcher(quiet=quiet) as observer:
        try:
            return convert(request, observer=observer, command=line, dry=dry)
        except DryRunEnded as ended:
            _show_plan(ended)
            return None
        except TrustError as error:
            if not (may_ask and sys.stdin.isatty() and sys.stderr.isatty()):
                raise
            refused = error
    typer.echo(f"{refused.message}\n  {refused.hint}", err=True)
    if not typer.confirm("Run it?", default=False, err=True):
        raise refused
    return _converted(merge(arguments, {"trust": [TRUST_ALL]}), recipe, quiet=quiet, dry=dry, may_ask=False)


def _show(report: Report, *, details: bool) -> None:
    from convkit.report.terminal import to_terminal

    width = shutil.get_terminal_size((100, 24)).columns
    sys.stdout.write(to_terminal(report, width=width, color=sys.stdout.isatty(), details=details))


def _show_plan(ended: Any) -> None:
    step = ended.step
    left = (
        f"The first step that would run: {step.title} ({step.stage}, in a {step.needs} worker)."
        if step is not None
        else "Every step is remembered; the result would be published, or found to stand there."
    )
    sys.stderr.write(f"dry run: every option holds. {left} Nothing was run or written.\n")


def _version(text: str | None) -> int | None:
    if text in (None, "auto"):
        return None
    if not str(text).isdigit():
        raise UsageError(
            f"--version {text}: it is no number", hint="give a number from 1 on, or auto", code="usage.version"
        )
    return int(str(text))


def _nested(dotted: str, value: Any) -> Table:
    for part in reversed(dotted.split(".")):
        value = {part: value}
    return dict(value)
