"""Preflight: whether a runtime takes a model, in seconds, without building anything; and mending what can be mended."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from convkit.custom_ops import find_extensions, refuse_useless
from convkit.errors import ExitStatus, InputError, UsageError
from convkit.graph.mend import REPAIRS, Wanted, mend
from convkit.graph.model import DATA_FILE, Model
from convkit.graph.simplify import simplify
from convkit.mended import NumbersCheck, compare_mended, write_mended, write_profiles
from convkit.model_paths import environment_of, is_published
from convkit.pipeline.artifact import gather, use_index
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import Observer, nobody
from convkit.pipeline.runner import Runner
from convkit.pipeline.shared import open_cache
from convkit.preflight_warnings import ASSUMED, Telling
from convkit.request import Request, target_options
from convkit.sources.find import Framework, find_model
from convkit.sources.onnx import find_external_data
from convkit.sources.open import open_source
from convkit.sources.unchecked import take_unchecked
from convkit.spec.metadata import read_metadata
from convkit.targets.finding import Finding, Weight
from convkit.targets.judging import judge_onnxruntime, judge_openvino
from convkit.targets.target import fitted, open_target
from convkit.targets.trt_api import Flavour
from convkit.targets.trt_operators import operator_table
from convkit.targets.trt_options import TensorRTOptions
from convkit.targets.trt_preflight import ordered, preflight
from convkit.targets.trt_profiles import Profile
from convkit.targets.trt_together import choose_profiles

_ANY_OPSET = 26
_MOST_ROUNDS = 5
"""Rounds of mending: what one repair writes may ask for another."""


class Repaired(msgspec.Struct, frozen=True, kw_only=True):
    """A repair that was made."""

    mend: str
    what: str
    nodes: tuple[str, ...]


class Repairs(msgspec.Struct, frozen=True, kw_only=True):
    """What `--fix` has done."""

    path: str | None
    """The mended ONNX file; None where nothing was mended."""
    recipe: str | None
    """A recipe with the profiles that would be assumed, to be corrected and given to `convert`; None: nothing is."""
    made: tuple[Repaired, ...]
    left: tuple[Finding, ...]
    """What is still found in it."""
    numbers: NumbersCheck | None
    """The mended model's answers held against the first one's, in ONNX Runtime; None where nothing was mended."""


class Preflight(msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="convkit.preflight/1"):
    """What `convkit check MODEL --to TARGET` prints with `--json`."""

    status: str
    """``ok`` or ``failed``."""
    exit_code: int
    model: str
    target: str
    judges: tuple[str, ...]
    """Who looked at it: convkit's rules, and the runtime or its parser with its version."""
    findings: tuple[Finding, ...]
    """Of the model as it came, errors first."""
    repairs: Repairs | None = None
    """None without `--fix`."""


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What a target says of a model."""

    findings: tuple[Finding, ...]
    judges: tuple[str, ...]
    profiles: tuple[Profile, ...] = ()
    """The shapes that it was judged for."""


def check_model(
    request: Request,
    *,
    fix: bool = False,
    output: Path | None = None,
    observer: Observer = nobody,
    cache: Cache | None = None,
) -> Preflight:
    """Judge a model for the request's target; with `fix`, mend what can be, judge again, and compare the numbers.

    An ONNX file is judged as it is; any other source is exported and simplified first, as `convert` does.

    Args:
        request: `model`, `to`, `config`, `trust`, `export` and the target's table are looked at.
        fix: write the mended model.
        output: where to; by default ``NAME.mended.onnx`` in the working directory. Weights above 1 GB go beside it.
        observer: is told what happens.
        cache: where exports are remembered.

    Returns:
        The verdict, with exit status 5 where an error is found, or left after mending.

    Raises:
        InputError: there is no model, or its config.txt is not its own.
        TrustError: code beside the model would run.
        UsageError: the target has no preflight, would not load the user's operators, or the file to be written exists.
    """
    judge = _judge_for(request)
    found = find_model(Path(request.model), config=Path(request.config) if request.config else None)
    path = output or Path(f"{found.name}.mended.onnx")
    if fix:
        _refuse_existing(path)
    extensions = find_extensions(request.export.custom_ops)
    if extensions:
        backend = open_target(request.to).backend
        refuse_useless(extensions, environment=environment_of(found.path), target=request.to, backend=backend)
    cache = cache or open_cache(observer)
    use_index(None)
    telling = Telling(observer)
    with Runner(cache, telling) as run:
        run.extend(extensions)
        model = _opened(request, run)
        first = judge(run, model)
        findings = ordered((*first.findings, *telling.findings()))
        result = Preflight(
            status="ok",
            exit_code=ExitStatus.DONE,
            model=request.model,
            target=request.to,
            judges=first.judges,
            findings=findings,
        )
        if not fix:
            return _with_status(result, findings)
        repairs = _repaired(run, model, findings, judge, path)
        if any(finding.code == ASSUMED for finding in findings) and first.profiles:
            recipe = path.with_suffix(".toml")
            write_profiles(recipe, request.to, first.profiles)
            left = tuple(finding for finding in repairs.left if finding.code != ASSUMED)
            repairs = msgspec.structs.replace(repairs, recipe=str(recipe), left=left)
    return _with_status(msgspec.structs.replace(result, repairs=repairs), repairs.left, repairs.numbers)


def _with_status(result: Preflight, left: Sequence[Finding], numbers: NumbersCheck | None = None) -> Preflight:
    wrong = any(finding.severity is Weight.ERROR for finding in left) or (numbers is not None and numbers.failed)
    if not wrong:
        return result
    return msgspec.structs.replace(result, status="failed", exit_code=int(ExitStatus.CHECK_FAILED))


Judge = Callable[[Runner, Model], Judged]


def _judge_for(request: Request) -> Judge:
    """Return what judges for a target.

    Raises:
        UsageError: there is no such target, or it has no preflight.
    """
    if request.to in (Flavour.TENSORRT, Flavour.TENSORRT_RTX):
        flavour = Flavour(request.to)
        table = target_options(request, request.to)
        options = table if isinstance(table, TensorRTOptions) else TensorRTOptions()
        return lambda run, model: _for_tensorrt(run, model, flavour, options)
    if request.to == "onnxruntime":
        return lambda run, model: _said(run(judge_onnxruntime, model))
    if request.to == "openvino":
        return lambda run, model: _said(run(judge_openvino, model))
    target = open_target(request.to)
    raise UsageError(
        f"--to {target.name}: this target has no preflight",
        hint="--to tensorrt, tensorrt-rtx, onnxruntime and openvino have one; convkit convert says what others refuse",
        code="preflight.no-target",
    )


def _said(judged: object) -> Judged:
    return msgspec.convert(judged, type=Judged, from_attributes=True)


def _for_tensorrt(run: Runner, model: Model, flavour: Flavour, options: TensorRTOptions) -> Judged:
    profiles: tuple[Profile, ...] = ()
    impossible: tuple[Finding, ...] = ()
    try:
        profiles = choose_profiles(run, model, options, seen=None)
    except UsageError as error:
        impossible = (
            Finding(
                code="profile",
                node="the profiles",
                operator="input",
                reason=error.message,
                fix=error.hint or "",
                found_by=("convkit",),
                beyond_parser=True,
            ),
        )
    verdict = preflight(run, model, profiles, flavour)
    measured = f"convkit's rules, measured with {operator_table().measured.partition(':')[0]}"
    judges = ("convkit's rules", verdict.parsed.label) if verdict.parsed is not None else (measured,)
    return Judged(findings=(*impossible, *verdict.findings), judges=judges, profiles=profiles)


def _opened(request: Request, run: Runner) -> Model:
    found = find_model(Path(request.model), config=Path(request.config) if request.config else None)
    metadata = read_metadata(Path(found.config)) if found.config else None
    if found.framework is Framework.ONNX:
        folder = Path(found.folder)
        external = run(find_external_data, gather(folder, [found.file]))
        there = [name for name in external.names if (folder / name).is_file()]
        files = gather(folder, [found.file, *there])
        return run(take_unchecked, files, file=found.file, metadata=metadata, options=request.export)
    command = f"convkit check {shlex.quote(request.model)} --to {request.to}"
    source = open_source(found, metadata, request.export, request.trust, command)
    exported = source.export(run, samples=None, max_opset=_ANY_OPSET)
    simplified = run(simplify, exported.model, chain=request.simplify.chain)
    return fitted(open_target(request.to), run, simplified).model


def _repaired(run: Runner, model: Model, findings: Sequence[Finding], judge: Judge, path: Path) -> Repairs:
    """Mend, judge and mend again, until nothing is left that can be."""
    made: dict[tuple[str, tuple[str, ...]], Repaired] = {}
    now, left = model, tuple(findings)
    for _ in range(_MOST_ROUNDS):
        wanted = _wanted(left)
        if not wanted:
            break
        mended = run(mend, now, wanted=wanted)
        if not mended.done:
            break
        for done in mended.done:
            made[done.mend, done.nodes] = Repaired(mend=done.mend, what=REPAIRS[done.mend][1], nodes=done.nodes)
        now = mended.model
        left = judge(run, now).findings
    if not made:
        return Repairs(path=None, recipe=None, made=(), left=left, numbers=None)
    comparable = all(REPAIRS[each.mend][2] for each in made.values())
    requantized = any(each.mend == "symmetric" for each in made.values())
    numbers = run(compare_mended, model, now, requantized=requantized, comparable=comparable)
    write_mended(now, path)
    return Repairs(path=str(path), recipe=None, made=tuple(made.values()), left=left, numbers=numbers)


def _wanted(findings: Sequence[Finding]) -> tuple[Wanted, ...]:
    nodes: dict[str, list[str]] = {}
    for finding in findings:
        if finding.mend:
            nodes.setdefault(finding.mend, []).append(finding.node)
    return tuple(Wanted(mend=name, nodes=tuple(dict.fromkeys(each))) for name, each in nodes.items())


def _refuse_existing(path: Path) -> None:
    beside = path.absolute().parent / DATA_FILE
    for file in (path, path.with_suffix(".toml")):
        if file.exists():
            raise UsageError(f"{file} exists", hint="name a file that does not: -o FILE.onnx", code="preflight.exists")
    if path.suffix != ".onnx" or not path.absolute().parent.is_dir() or beside == path:
        raise UsageError(
            f"-o {path}: this is no .onnx file in a folder that exists",
            hint="name one, such as mended.onnx",
            code="preflight.output",
        )


def is_source(path: Path) -> bool:
    """Tell whether a path is a model to convert, rather than a repository: a file, or a folder that holds one."""
    if path.is_file():
        return True
    if not path.is_dir() or is_published(path):
        return False
    with contextlib.suppress(InputError):
        find_model(path)
        return True
    return False
