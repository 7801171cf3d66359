"""The real command line, in a process of its own, and what a caller sees of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

PROGRAM = Path(sys.executable).with_name("convkit")
OURS = ("SOURCE_MODEL_PATH", "TARGET_MODEL_PATH", "MODEL_NAME", "MODEL_TYPE", "CUDA_VISIBLE_DEVICES")

NUMBER = (int, float)
HEAD: dict[str, tuple[type, ...]] = {
    "schema": (str,),
    "status": (str,),
    "exit_code": (int,),
    "repository": (str, type(None)),
    "model": (str, type(None)),
    "name": (str, type(None)),
    "version": (int, type(None)),
    "engine": (str,),
    "report": (str, type(None)),
    "candidate": (str, type(None)),
    "stages": (list,),
    "verification": (dict, type(None)),
    "gates": (list,),
    "accuracy": (dict, type(None)),
    "warnings": (list,),
    "error": (dict, type(None)),
}
STAGE = {"name": (str,), "seconds": NUMBER, "peak_bytes": (int,), "cached": (bool,)}
STAGES = ["source", "simplify", "precision", "calibrate", "quantize", "compile", "check", "measure", "publish"]
DIFFERENCE = {"name": (str,), **dict.fromkeys(("max_abs", "max_rel", "cosine", "sqnr_db"), (*NUMBER, type(None)))}
ERROR = {"code": (str,), "stage": (str, type(None)), "message": (str,), "hint": (str,)}


class Outcome(NamedTuple):
    """What a command left: its exit status and everything that it wrote."""

    exit_status: int
    stdout: str
    stderr: str

    @property
    def result(self) -> dict[str, Any]:
        """The one JSON object on standard output."""
        return dict(json.loads(self.stdout))

    @property
    def warnings(self) -> dict[str, str]:
        """Messages of the warnings, by their codes."""
        return {warning["code"]: warning["message"] for warning in self.result["warnings"]}


class Command:
    """Runs `convkit` with a cache of its own and an environment that says nothing else."""

    def __init__(self, cache: Path, variables: Mapping[str, str] | None = None) -> None:
        self.cache = cache
        self.variables = dict(variables or {})

    def __call__(
        self, *arguments: str | Path, variables: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> Outcome:
        inherited = {
            name: value for name, value in os.environ.items() if name not in OURS and not name.startswith("CONVKIT_")
        }
        ended = subprocess.run(
            [PROGRAM, *map(str, arguments)],
            env={**inherited, "CONVKIT_CACHE_DIR": str(self.cache), **self.variables, **(variables or {})},
            cwd=cwd or self.cache,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return Outcome(ended.returncode, ended.stdout, ended.stderr)

    def convert(
        self,
        model: Path | None,
        *arguments: str | Path,
        variables: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Outcome:
        """Run `convkit convert --json --measure none` on a model; None: the environment names it."""
        named = [] if model is None else [model]
        return self("convert", *named, "--json", "--measure", "none", *arguments, variables=variables, cwd=cwd)

    def converted(self, *arguments: Any, **settings: Any) -> Outcome:
        """Run `convert`, and see that it succeeded."""
        outcome = self.convert(*arguments, **settings)
        assert outcome.exit_status == 0, outcome.stderr
        return outcome


def hold_to_head(result: Mapping[str, Any]) -> None:
    """See that a JSON object has every field of the contract's head, each of the type that is written there."""
    _hold("the result", result, HEAD)
    assert set(result) == set(HEAD)
    assert result["schema"] == "convkit.result/1"
    for stage in result["stages"]:
        _hold("a stage", stage, STAGE)
        assert stage["name"] in STAGES
        assert stage["seconds"] >= 0
    for warning in result["warnings"]:
        _hold("a warning", warning, {"code": (str,), "message": (str,)})
    if result["verification"] is not None:
        assert isinstance(result["verification"]["passed"], bool)
        for output in result["verification"]["outputs"]:
            _hold("an output's difference", output, DIFFERENCE)
    if result["error"] is not None:
        _hold("the error", result["error"], ERROR)
    assert (result["status"] == "failed") == (result["error"] is not None) == (result["exit_code"] != 0)


def _hold(what: str, found: Mapping[str, Any], wanted: Mapping[str, tuple[type, ...]]) -> None:
    for name, types in wanted.items():
        assert name in found, f"{what} has no field '{name}'"
        value = found[name]
        assert isinstance(value, types), f"{what}: {name} is {value!r}"
        assert not isinstance(value, bool) or bool in types, f"{what}: {name} is {value!r}"
