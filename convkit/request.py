"""Everything one conversion is asked for: recipe, environment and command line laid over each other."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, cast

import msgspec

from convkit.errors import InputError, UsageError
from convkit.serving.releases import release
from convkit.serving.triton import ServingOptions
from convkit.sources.find import Framework
from convkit.sources.trust import TRUST_ALL
from convkit.spec.accuracy import AccuracyOptions
from convkit.spec.entry_points import entry_points
from convkit.spec.inheritance import read_chain
from convkit.spec.options import (
    CheckOptions,
    EngineMode,
    ExportOptions,
    GateOptions,
    LimitOptions,
    MeasureMode,
    MeasureOptions,
    Precision,
    QuantizeOptions,
    SimplifyOptions,
)
from convkit.spec.paths import refuse_impossible_path
from convkit.spec.preprocess import PreprocessOptions
from convkit.spec.recipe import Layer, Recipe, Table, decode, explaining, merge
from convkit.targets.onnxruntime_options import OnnxRuntimeOptions
from convkit.targets.openvino_model import OpenVINOOptions
from convkit.targets.target import GROUP, TARGETS, open_target
from convkit.targets.trt_api import Flavour
from convkit.targets.trt_options import TensorRTOptions
from convkit.targets.trt_settings import checks

OPTIONS: dict[str, str] = {
    "model": "MODEL",
    "to": "--to",
    "output": "--output",
    "config": "--config",
    "name": "--name",
    "version": "--version",
    "replace": "--replace",
    "trust": "--trust",
    "engine": "--engine",
    "onnxruntime.accelerator": "--accelerator",
    "report_dir": "--report-dir",
    "locked": "--locked",
    "sign": "--sign",
    "export.model_def": "--model-def",
    "export.state_key": "--state-key",
    "export.signature": "--signature",
    "export.opset": "--opset",
    "export.layout": "--layout",
    "export.tensor_names": "--tensor-names",
    "export.max_batch_size": "--max-batch-size",
    "export.samples": "--samples",
    "export.custom_ops": "--custom-ops",
    "quantize.precision": "--quantize",
    "quantize.data": "--calibration-data",
    "quantize.method": "--calibration-method",
    "quantize.samples": "--calibration-samples",
    "quantize.allow_random": "--allow-random-calibration",
    "accuracy.data": "--eval-data",
    "accuracy.labels": "--labels-key",
    "accuracy.metric": "--metric",
    "accuracy.max_drop": "--max-drop",
    "accuracy.budget_evals": "--budget-evals",
    "check.max_error": "--max-error",
    "check.min_sqnr": "--min-sqnr",
    "measure.mode": "--measure",
    "gates.max_latency": "--max-latency",
    "gates.min_speedup": "--min-speedup",
    "gates.max_size": "--max-size",
    "gates.min_low_precision": "--min-low-precision",
    "triton.release": "--triton",
    "limits.memory": "--memory-limit",
    "limits.time": "--time-limit",
}
"""The command-line option that sets each key of a recipe; every other key is set by ``--set table.key=value``."""

PATHS = (
    "model",
    "output",
    "config",
    "report_dir",
    "locked",
    "sign",
    "export.model_def",
    "export.samples",
    "export.custom_ops",
    "quantize.data",
    "preprocess.function",
    "accuracy.data",
    "accuracy.metric",
)
"""The keys that hold paths, or a list of them: in a recipe they are seen from where it lies."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_CODE = re.compile(r"(?!.*\.py:)[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*")
"""``module:function``, which some of these keys may hold instead."""
_TAKE_CODE = ("export.model_def", "export.samples", "quantize.data", "preprocess.function", "accuracy.data")
_NAMES = ("accuracy.metric",)
"""The keys that hold a path in ``FILE.py:function`` alone, and else a name."""


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `convert` is asked to do. The same keys stand in a recipe, tables and all."""

    model: str
    """The model: a ``.pth``, a SavedModel's folder, an ``.onnx`` file, or a folder that holds one of them."""
    to: str = "onnxruntime"
    """The target."""
    output: str = "./models"
    """The model repository to publish into."""
    config: str | None = None
    """config.txt; by default the one beside or inside the model."""
    name: str | None = None
    """What the model is called in the repository."""
    version: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """The version to publish; by default the next number where the result has changed."""
    replace: bool = False
    """Replace a version that exists with other content, or a model whose interface has changed."""
    trust: tuple[str, ...] = ()
    """``yes``, or the digests (``sha256:...``) of files beside the model that may run code."""
    framework: Framework | None = None
    """The framework that the model must come from; anything else is refused."""
    engine: EngineMode = EngineMode.AUTO
    """Build an engine now, prepare it for `convkit build`, or whichever this machine can."""
    report_dir: str | None = None
    """Where the report is written besides the repository, also that of a failed run."""
    locked: str | None = None
    """A manifest.json: give exactly that result, or refuse and say what differs."""
    sign: str | None = None
    """A private key (PEM, Ed25519) with which the manifest is signed."""
    export: ExportOptions = ExportOptions()
    simplify: SimplifyOptions = SimplifyOptions()
    quantize: QuantizeOptions = QuantizeOptions()
    preprocess: PreprocessOptions = PreprocessOptions()
    accuracy: AccuracyOptions = AccuracyOptions()
    check: CheckOptions = CheckOptions()
    measure: MeasureOptions = MeasureOptions()
    gates: GateOptions = GateOptions()
    limits: LimitOptions = LimitOptions()
    triton: ServingOptions = ServingOptions()
    onnxruntime: OnnxRuntimeOptions = OnnxRuntimeOptions()
    openvino: OpenVINOOptions = OpenVINOOptions()
    tensorrt: TensorRTOptions = TensorRTOptions()
    tensorrt_rtx: TensorRTOptions = msgspec.field(default=TensorRTOptions(), name="tensorrt-rtx")


def make_request(
    arguments: Table, *, recipe: Path | None = None, environment: Mapping[str, str] = os.environ
) -> Request:
    """Lay command line over environment over recipe, and decode the whole.

    Args:
        arguments: nested tables as a recipe has them; only what was really given.
        recipe: a TOML file; paths in it are relative to its folder.
        environment: CONVKIT_TARGET, CONVKIT_TRUST and dl_inference's four variables are read from it.

    Raises:
        InputError: the recipe cannot be read, or holds a mistake; the message names line and key.
        UsageError: an option or variable is malformed, or no model was named.
    """
    recipes = read_chain(recipe, environment=environment) if recipe is not None else ()
    if recipes and isinstance(recipes[-1].table.get("model"), list):
        raise InputError(
            f"--recipe {recipe} holds several [[model]]s",
            hint=f"convkit convert {recipe}",
            code="recipe.several-models",
        )
    return request_from(layers_of(recipes), arguments, environment=environment)


def layers_of(recipes: Iterable[Recipe]) -> list[Layer]:
    """Return what recipes say, paths made relative to where each lies."""
    return [Layer(table=relative_to(recipe.path.parent, recipe.table), recipe=recipe) for recipe in recipes]


def request_from(layers: Sequence[Layer], arguments: Table, *, environment: Mapping[str, str]) -> Request:
    """Lay command line over environment over what recipes say, and decode the whole; see `make_request`."""
    from_environment = _from_environment(environment)
    if "model" in arguments or any("model" in layer.table for layer in layers):
        from_environment = {key: value for key, value in from_environment.items() if key in ("to", "trust")}
    layers = [*layers, Layer(table=from_environment), Layer(table=arguments)]
    if "model" in from_environment:
        layers = [Layer(table=_AS_DL_INFERENCE), *layers]
    if not any("model" in layer.table for layer in layers):
        raise UsageError(
            "no model was named",
            hint="convkit convert MODEL, or model = '...' in the recipe, or SOURCE_MODEL_PATH in the environment",
            code="usage.no-model",
        )
    request = decode(_type_for(layers), layers, option_for=OPTIONS.get)
    for key in PATHS:
        for value in texts_of(attrgetter(key)(request)):
            if is_path(key, value):
                refuse_impossible_path(value, where=OPTIONS.get(key, key))
    for key, check in _checks(request).items():
        with explaining(key, layers, option_for=OPTIONS.get):
            check()
    return request


def _checks(request: Request) -> dict[str, Callable[[], object]]:
    """Return, by key, what raises `UsageError` for a value of the right type that means nothing."""
    return {
        "to": lambda: open_target(request.to),
        "triton.release": lambda: request.triton.release is None or release(request.triton.release),
        "onnxruntime.workspace": lambda: request.onnxruntime.workspace_bytes,
        "tensorrt.workspace": lambda: request.tensorrt.workspace_bytes,
        "tensorrt-rtx.workspace": lambda: request.tensorrt_rtx.workspace_bytes,
        **_checks_of_tensorrt(request),
        "accuracy.metric": request.accuracy.require_metric,
        "accuracy.also": request.accuracy.require_also,
        "accuracy.max_drop": request.accuracy.require_max_drop,
        "accuracy.budget_evals": request.accuracy.require_budget,
        "preprocess.function": request.preprocess.require_function,
        "preprocess.resize": lambda: request.preprocess.require_pair("resize"),
        "preprocess.crop": lambda: request.preprocess.require_pair("crop"),
        "preprocess.mean": lambda: request.preprocess.require_channels("mean"),
        "preprocess.std": lambda: request.preprocess.require_channels("std"),
        "gates.max_size": lambda: request.gates.max_size_bytes,
        "gates.min_low_precision": lambda: _refuse_unlowered(request),
        "limits.memory": lambda: request.limits.memory_bytes,
        "limits.time": lambda: request.limits.seconds,
        "gates.max_latency": lambda: _refuse_unmeasured(request, request.gates.max_latency),
        "gates.min_speedup": lambda: _refuse_unmeasured(request, request.gates.min_speedup),
    }


def _checks_of_tensorrt(request: Request) -> dict[str, Callable[[], object]]:
    return {
        f"{flavour}.{key}": check
        for flavour, table in ((Flavour.TENSORRT, request.tensorrt), (Flavour.TENSORRT_RTX, request.tensorrt_rtx))
        if table != TensorRTOptions()
        for key, check in checks(table, flavour).items()
    }


def _refuse_unmeasured(request: Request, asked: float | None) -> None:
    if asked is not None and request.measure.mode is MeasureMode.NONE:
        raise UsageError(
            f"a gate of {asked:g}, and with --measure none nothing is measured that it could be held against",
            hint="leave --measure out; without measuring, only size and numbers can be gated",
            code="gates.not-measured",
        )


def _refuse_unlowered(request: Request) -> None:
    if request.gates.min_low_precision_share is not None and request.quantize.precision is Precision.NONE:
        raise UsageError(
            "a share of low precision is asked for, and nothing is to be quantized",
            hint="add --quantize int8 or another precision, or leave --min-low-precision out",
            code="gates.not-lowered",
        )


_AS_DL_INFERENCE: Table = {"to": "tensorrt", "version": 1, "replace": True, "triton": {"version_policy": "all"}}
"""What the users of dl_inference's image expect where nothing else is said."""


def _from_environment(environment: Mapping[str, str]) -> Table:
    names = {
        "SOURCE_MODEL_PATH": "model",
        "TARGET_MODEL_PATH": "output",
        "MODEL_NAME": "name",
        "MODEL_TYPE": "framework",
        "CONVKIT_TARGET": "to",
    }
    table: Table = {key: environment[name] for name, key in names.items() if environment.get(name)}
    if "model" not in table:
        table = {key: value for key, value in table.items() if key == "to"}
    if environment.get("CONVKIT_TRUST") == "1":
        table["trust"] = [TRUST_ALL]
    return table


def relative_to(folder: Path, table: Table) -> Table:
    """Return a recipe's table with its paths, seen from `folder`, seen from here."""
    moved = merge(table)
    for dotted in PATHS:
        name, _, key = dotted.rpartition(".")
        inner = moved.get(name) if name else moved
        value = inner.get(key) if isinstance(inner, dict) else None
        if texts := texts_of(value):
            there = [str(folder / text) if is_path(dotted, text) else text for text in texts]
            change = {key: there[0] if isinstance(value, str) else there}
            moved = merge(moved, {name: change} if name else change)
    return moved


def texts_of(value: object) -> list[str]:
    """Return the texts that a key of `PATHS` holds: one, several, or none."""
    texts = value if isinstance(value, list | tuple) else [value]
    return [text for text in texts if isinstance(text, str)] if all(isinstance(t, str) for t in texts) else []


def is_path(dotted: str, value: str) -> bool:
    """Tell whether a key of `PATHS` holds a path, and neither a URL nor ``module:function``."""
    if dotted in _NAMES and ".py:" not in value:
        return False
    return not _URL.match(value) and not (dotted in _TAKE_CODE and _CODE.fullmatch(value))


def request_type(targets: Iterable[str]) -> type[Request]:
    """Return `Request` with the tables of targets that others have written.

    Raises:
        MissingError: one of them cannot be loaded.
    """
    tables = {name: getattr(open_target(name), "options", None) for name in targets}
    fields = [
        (_attribute(name), table, msgspec.field(default=table(), name=name))
        for name, table in sorted(tables.items())
        if table is not None
    ]
    if not fields:
        return Request
    kind: Any = msgspec.defstruct(
        "Request", fields, bases=(Request,), frozen=True, kw_only=True, forbid_unknown_fields=True, module=__name__
    )
    return cast(type[Request], kind)


def _type_for(layers: Sequence[Layer]) -> type[Request]:
    """Return the type that decodes the layers; entry points are looked up only for names that are not convkit's own."""
    merged = merge(*(layer.table for layer in layers))
    known = set(Request.__struct_encode_fields__)
    tables = {key for key, value in merged.items() if isinstance(value, dict) and key not in known}
    target = merged.get("to")
    wanted = tables | ({target} if isinstance(target, str) and target not in TARGETS else set())
    return request_type(wanted & set(entry_points(GROUP)) - known) if wanted else Request


def restored(builtins: dict[str, Any]) -> Request:
    """Return the request that `msgspec.to_builtins` has taken apart."""
    return msgspec.convert(builtins, type=_type_for([Layer(table=builtins)]))


def _attribute(target: str) -> str:
    return "target_" + re.sub(r"\W", "_", target)


def target_options(request: Request, target: str) -> msgspec.Struct | None:
    """Return the recipe's table of a target; None where it has none."""
    names = dict(zip(request.__struct_encode_fields__, request.__struct_fields__, strict=True))
    found: msgspec.Struct | None = getattr(request, names[target]) if target in names else None
    return found
