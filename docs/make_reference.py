"""Write reference.md, every command with its arguments and options, from the command line itself.

python docs/make_reference.py
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from convkit.cli import app
from convkit.errors import ExitStatus

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference.md"

HEAD = """\
# Commands and options

What `convkit COMMAND --help` says, in one place. Written from the source by `make docs`.

Options of `convkit convert` are keys of a recipe, too: [recipe_keys.md](recipe_keys.md). They beat the environment,
which beats the recipe. What is read and written, as JSON Schema: [schemas.md](schemas.md). With `--json` a command
prints one object on standard output, whatever happens; talk goes to standard error.
"""

STATUSES = {
    ExitStatus.DONE: "done, or unchanged",
    ExitStatus.BUG: "a bug in convkit",
    ExitStatus.USAGE: "usage: an option is missing, malformed or impossible",
    ExitStatus.INPUT_REFUSED: "the input is refused: a file, metadata, a name, trust",
    ExitStatus.STEP_FAILED: "a step failed: an operator without a counterpart, a library's error",
    ExitStatus.CHECK_FAILED: "a check or gate failed or was inconclusive: nothing was published",
    ExitStatus.MISSING: "something is missing here: an extra, a GPU, disk space",
    ExitStatus.INTERRUPTED: "interrupted (Ctrl-C); the same command goes on from there",
    ExitStatus.TERMINATED: "terminated (SIGTERM); the same command goes on from there",
}

VARIABLES = {
    "CONVKIT_CACHE_DIR": "where finished steps are remembered; else `$XDG_CACHE_HOME/convkit`, `~/.cache/convkit`; "
    "without a home `/tmp/convkit-UID`",
    "CONVKIT_SHARED_CACHE": "a second cache by URL, which a team shares ([cache.md](cache.md))",
    "CONVKIT_TIMING_CACHE": "a folder for TensorRT's timings ([engine_settings.md](engine_settings.md))",
    "CONVKIT_TARGET": "`--to`",
    "CONVKIT_TRUST": "`1` is `--trust`",
    "CONVKIT_TRITONSERVER": "the server to start, where it is not the `tritonserver` on `PATH` ([check.md](check.md))",
    "CONVKIT_ISOLATION": "`off`: workers may write and connect as their user may ([limits.md](limits.md))",
    "SOURCE_MODEL_PATH": "dl_inference's form, with `TARGET_MODEL_PATH`, `MODEL_NAME` and `MODEL_TYPE` "
    "([dl_inference.md](dl_inference.md))",
}

INTERNAL = {"CONVKIT_KEPT"}
"""Variables that convkit sets for its own workers."""


def page() -> str:
    """Return the text of reference.md."""
    parts = [HEAD]
    for name in app.COMMANDS:
        for path, command in _leaves(f"convkit {name}", app._application([name]).commands[name]):
            parts += [f"## {path}\n", f"{command.help}\n", *_options(command)]
    parts += ["## Exit status\n", *_table({str(int(status)): STATUSES[status] for status in ExitStatus})]
    parts += ["## Environment\n", *_table({f"`{name}`": VARIABLES[name] for name in _read_by_the_source()})]
    return "\n".join(parts)


def _read_by_the_source() -> list[str]:
    """Return the variables of the table, in its order.

    Raises:
        ValueError: the source reads one that the table lacks.
    """
    source = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "convkit").rglob("*.py")))
    used = set(re.findall(r"\"(CONVKIT_[A-Z_]+|SOURCE_MODEL_PATH)\"", source)) - INTERNAL
    if unknown := used - VARIABLES.keys():
        raise ValueError(f"say in VARIABLES, or in INTERNAL, what these are for: {', '.join(sorted(unknown))}")
    return sorted(used, key=list(VARIABLES).index)


def _leaves(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Go through a command, or through those of a group of commands."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
    for name, each in (inner or {}).items():
        yield from _leaves(f"{path} {name}", each)


def _options(command: Any) -> list[str]:
    context = command.context_class(command, info_name=command.name)
    shown = [record for each in command.params if (record := each.get_help_record(context))]
    return _table({_name(said): " ".join(text.split()).replace("|", "\\|") for said, text in shown})


def _name(said: str) -> str:
    """Return an option as code; the types of texts and paths say nothing that the sentence beside it does not."""
    name = re.sub(r"<(str|path|list\[str\])>", "", said)
    name = re.sub(r"<int>", "N", re.sub(r"<float( range)?>", "X", name))
    return f"`{' '.join(name.split())}`".replace("<", "").replace(">", "").replace("|", "\\|")


def _table(rows: dict[str, str]) -> list[str]:
    written = [f"| {left} | {right} |" for left, right in rows.items()]
    return ["| | |", "|---|---|", *written, ""] if written else []


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stderr.write(f"docs/{PAGE.name}\n")
