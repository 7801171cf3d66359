"""What the author of a target for convkit calls in their own tests, to see that it does what convkit relies on.

    import pytest
    from convkit.testing import TARGET_CHECKS

    @pytest.mark.parametrize("check", TARGET_CHECKS, ids=lambda check: check.__name__)
    def test_my_target_is_one(check, tmp_path):
        check("my-target", tmp_path)

Each check takes the target's name and an empty folder, and raises an AssertionError that says what is wrong. They need
`convkit[onnx]`. A target that this machine cannot compile for (`MissingError`) is checked as far as that goes.
`SOURCE_CHECKS` are those of a source: see `convkit.source_testing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from convkit.conversion import convert
from convkit.errors import ConvkitError, MissingError, UsageError
from convkit.graph.quant_profile import QuantProfile
from convkit.pipeline.cache import Cache
from convkit.report.document import Report, Status
from convkit.request import Request, make_request
from convkit.source_testing import SOURCE_CHECKS, loads_nothing_heavy
from convkit.spec.options import EngineMode, Precision
from convkit.targets.target import TARGETS, Refusal, open_target, refusal_of

__all__ = ["SOURCE_CHECKS", "TARGET_CHECKS"]

WIDTH = 128
"""Of the model that is converted: the least whose weights are worth writing in INT4."""

ATTRIBUTES: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "title": str,
    "profile": QuantProfile,
    "backend": (str, type(None)),
    "filename": str,
    "gpu": bool,
    "emulated": bool,
}
"""What a target says of itself; see `convkit.targets.target.Target`."""


def it_is_found_and_says_what_it_is(name: str, folder: Path) -> None:
    """The entry point gives a class that is made without arguments, with every attribute of a target."""
    del folder
    target = open_target(name)
    assert name in TARGETS or name not in Request.__struct_encode_fields__, f"'{name}' is a key of every recipe"
    for attribute, kind in ATTRIBUTES.items():
        value = getattr(target, attribute, ...)
        assert isinstance(value, kind), f"{attribute} is {value!r}, and should be of the type {kind}"
    assert target.name == name, f"the entry point is called '{name}', the target says '{target.name}'"
    assert Path(target.filename).name == target.filename, f"filename: '{target.filename}' is no plain name"
    for precision, refusal in target.refusals.items():
        assert isinstance(precision, Precision), f"refusals: {precision!r} is no Precision"
        assert isinstance(refusal, Refusal), f"refusals: {refusal!r} is no Refusal"
        assert refusal.reason, f"refusals: {precision.value} gives no reason"
        assert refusal.instead, f"refusals: {precision.value} names nothing that works instead"


def importing_it_loads_nothing_heavy(name: str, folder: Path) -> None:
    """Naming the target on a command line imports no framework: heavy libraries are imported inside steps."""
    program = f"import sys; from convkit.targets.target import open_target; open_target({name!r})"
    loads_nothing_heavy(program, folder, what="importing it")


def its_table_is_sound(name: str, folder: Path) -> None:
    """`options`, if it has any, is a frozen structure whose fields all have defaults, and refuses keys it lacks."""
    del folder
    table = getattr(open_target(name), "options", None)
    if table is None:
        return
    assert issubclass(table, msgspec.Struct), "options is no msgspec.Struct"
    config = table.__struct_config__
    assert config.frozen, "options is not frozen"
    assert config.forbid_unknown_fields, "options takes keys that it does not have: say forbid_unknown_fields=True"
    required = [field.name for field in msgspec.structs.fields(table) if field.required]
    assert not required, f"options has no default for {', '.join(required)}"
    assert msgspec.convert(msgspec.to_builtins(table()), type=table) == table(), "options is not read back as it was"
    error = _refusal(lambda: make_request({"model": "m", "to": name, name: {"no_such_key": 1}}, environment={}))
    assert error is not None, f"[{name}] takes a key that it does not have"
    assert "no_such_key" in error.message


def what_it_needs_is_said_politely(name: str, folder: Path) -> None:
    """`require` refuses with a ConvkitError or not at all, whatever engine is asked for."""
    del folder
    target = open_target(name)
    for engine in EngineMode:
        error = _refusal(lambda engine=engine: target.require(engine))  # type: ignore[misc]
        assert error is None or error.hint, f"require({engine}) gives no hint"


def it_converts_and_does_nothing_twice(name: str, folder: Path) -> None:
    """A small model is converted and published; the same again publishes nothing, and neither does an empty cache."""
    report = _converted(name, folder, cache=folder / "cache")
    if report is None:
        return
    assert report.status is Status.OK
    published = _files(folder)
    if report.engine.value != "deferred":
        filename = open_target(name).filename
        assert any(path.name == filename for path in published), f"{filename} was not published"
    again = _converted(name, folder, cache=folder / "cache")
    assert again is not None
    assert again.status is Status.UNCHANGED, "the same again was published as another version"
    assert _files(folder) == published, "the same again changed files"
    ran = [stage.title for stage in again.stages if not stage.cached and stage.name not in ("publish", "measure")]
    assert not ran, f"these ran again: {', '.join(ran)}"


def every_precision_works_or_is_refused(name: str, folder: Path) -> None:
    """A precision is refused before anything runs, or the target compiles what convkit makes for it."""
    target = open_target(name)
    refused = [precision for precision in Precision if refusal_of(target, precision) is not None]
    for precision in Precision:
        try:
            _converted(name, folder / precision.value, cache=folder / "cache", precision=precision)
            said = ""
        except UsageError as error:
            said = error.message
        assert not said or precision in refused, f"{precision.value}: {said}; and refusals does not say so"
        assert said or precision not in refused, f"refusals names {precision.value}, and it was converted"


TARGET_CHECKS: tuple[Callable[[str, Path], None], ...] = (
    it_is_found_and_says_what_it_is,
    importing_it_loads_nothing_heavy,
    its_table_is_sound,
    what_it_needs_is_said_politely,
    it_converts_and_does_nothing_twice,
    every_precision_works_or_is_refused,
)
"""Everything that a target has to pass."""


def _refusal(call: Callable[[], object]) -> ConvkitError | None:
    try:
        call()
    except ConvkitError as error:
        return error
    return None


def _converted(name: str, folder: Path, *, cache: Path, precision: Precision = Precision.NONE) -> Report | None:
    """Convert a small model; None where something is missing on this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments: dict[str, Any] = {
        "model": str(_small_model(folder)),
        "name": "small",
        "output": str(folder / "models"),
        "to": name,
        "measure": {"mode": "none"},
        "quantize": {"precision": precision.value, "allow_random": precision.is_calibrated},
    }
    try:
        return convert(make_request(arguments, environment={}), cache=Cache(cache))
    except MissingError:
        return None


def _files(folder: Path) -> dict[Path, bytes]:
    return dict(_read(folder / "models"))


def _read(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path, path.read_bytes()


def _small_model(folder: Path) -> Path:
    """Write two matrix products with a dynamic batch."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    path = folder / "small.onnx"
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.standard_normal((WIDTH, WIDTH)).astype(np.float32) / WIDTH**0.5, name)
        for name in ("a", "b")
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "b"], ["y"], "second"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH]) for name in "xy"]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
