"""Several models in one recipe, converted side by side.

A process of its own converts each model (`convkit.fleet_member`): what one does to itself, running out of memory
included, is no other's concern.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from convkit.errors import ConvkitError, ExitStatus, InputError, StepError, UsageError
from convkit.fleet_member import Assignment, Ended, Happened, Said
from convkit.pipeline.allowance import cores, memory
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import Event
from convkit.pipeline.home import default_root
from convkit.report.document import Report, Result, Status, failed
from convkit.request import Request, layers_of, relative_to, request_from
from convkit.sources.find import find_model
from convkit.spec.inheritance import EXTENDS, extended_by, read_chain
from convkit.spec.recipe import Layer, Recipe, Table, place_of

FleetObserver = Callable[[str, Event], None]
"""Is called with a model's name and what happened to it; never by two threads at once."""


def nobody(_: str, __: Event) -> None:
    """Observe nothing."""


MEMORY_EACH = 4 * 2**30
"""Bytes of memory that one conversion is given when `jobs` is left to convkit."""

WORST_FIRST = (
    ExitStatus.BUG,
    ExitStatus.STEP_FAILED,
    ExitStatus.CHECK_FAILED,
    ExitStatus.INPUT_REFUSED,
    ExitStatus.USAGE,
    ExitStatus.MISSING,
    ExitStatus.DONE,
)
"""The exit status of a fleet is the first of these that one of its models ended with."""

_SAID = msgspec.json.Decoder(Said)


class Fleet(msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="convkit.fleet/1"):
    """What became of every model, in the recipe's order."""

    status: Status
    """``failed`` where one failed, ``unchanged`` where nothing was published."""
    exit_code: int
    """The worst of all, see `WORST_FIRST`."""
    results: tuple[Report | Result, ...]
    """A `Report`; a `Result` where the conversion failed before there was anything to report."""

    def head(self) -> Fleet:
        """Return what `--json` prints: the head of each report."""
        heads = (result.head() if isinstance(result, Report) else result for result in self.results)
        return msgspec.structs.replace(self, results=tuple(heads))


def read_fleet(path: Path, arguments: Table, *, environment: Mapping[str, str] = os.environ) -> tuple[Request, ...]:
    """Read a recipe with ``[[model]]`` tables: each holds what a recipe may hold, and wins over what stands above it.

    Args:
        path: the recipe. A table may itself extend another recipe, which then wins over the shared keys.
        arguments: nested tables; they win over every model's own.
        environment: as in `make_request`; what names a model there has no say.

    Raises:
        InputError: the recipe cannot be read, holds no ``[[model]]``, or a mistake; or two models are one in the
            repository.
        UsageError: an argument is malformed, or cannot be meant for several models.
    """
    *bases, recipe = read_chain(path, environment=environment)
    tables = _tables(recipe)
    own = {key: value for key, value in recipe.table.items() if key != "model"}
    shared = layers_of([*(_shareable(base) for base in bases), msgspec.structs.replace(recipe, table=own)])
    for key in ("name", "config", "locked"):
        if len(tables) > 1 and key in arguments:
            raise UsageError(
                f"--{key}: {path.name} holds {len(tables)} models, and no two can have the same",
                hint=f"write {key} into the [[model]] that it is meant for",
                code="usage.several-models",
            )
    requests = []
    for number, table in enumerate(tables):
        at = ("model", number)
        if not isinstance(table.get("model"), str):
            raise InputError(
                f"{place_of(recipe, at)}: this table names no model",
                hint='add model = "PATH"',
                code="recipe.no-model",
            )
        layers = [*shared, *_extended(recipe, table, number, environment)]
        plain = {key: value for key, value in table.items() if key != EXTENDS}
        layers.append(Layer(table=relative_to(path.parent, plain), recipe=recipe, at=at))
        requests.append(request_from(layers, arguments, environment=environment))
    _refuse_duplicates(recipe, requests)
    return tuple(requests)


def _tables(recipe: Recipe) -> list[Table]:
    tables = recipe.table.get("model")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise InputError(
            f"{recipe.name} holds no [[model]] tables",
            hint=f"write one for each model, or convkit convert --recipe {recipe.path} where one is enough",
            code="recipe.no-models",
        )
    return tables


def _extended(recipe: Recipe, table: Table, number: int, environment: Mapping[str, str]) -> list[Layer]:
    if EXTENDS not in table:
        return []
    root = recipe.path.parent
    found, _ = extended_by(recipe, table[EXTENDS], root, at=("model", number))
    return layers_of(_shareable(base) for base in read_chain(found, environment=environment, root=root))


def _shareable(base: Recipe) -> Recipe:
    if isinstance(base.table.get("model"), list):
        raise InputError(
            f"{place_of(base, ('model',))}: only the recipe that is converted may hold [[model]] tables",
            hint="move them there; what is extended holds what they share",
            code="recipe.no-models",
        )
    return base


def _refuse_duplicates(recipe: Recipe, requests: Sequence[Request]) -> None:
    seen: dict[tuple[Path, str], int] = {}
    for number, request in enumerate(requests):
        place = (Path(request.output).absolute(), name_of(request))
        first = seen.setdefault(place, number)
        if first != number:
            raise InputError(
                f"{place_of(recipe, ('model', number))}: '{place[1]}' is already model[{first}] of {request.output}",
                hint='give it a name of its own: name = "..."',
                code="recipe.same-model",
            )


def name_of(request: Request) -> str:
    """Return what a model is called in the repository, as far as can be told before it is converted."""
    try:
        return find_model(
            Path(request.model), config=Path(request.config) if request.config else None, name=request.name
        ).name
    except ConvkitError:  # its own conversion will say so
        return request.name or Path(request.model).name


def convert_fleet(
    requests: Sequence[Request],
    *,
    jobs: int | None = None,
    observer: FleetObserver = nobody,
    cache: Cache | None = None,
    command: tuple[str, ...] = (),
) -> Fleet:
    """Convert models side by side. One that fails does not stop the others; while one is measured, the others wait.

    Args:
        requests: from `read_fleet`.
        jobs: how many at a time; by default half the cores, and no more than have 4 GiB of memory each.
        observer: is told what happens to which.
        cache: where results are remembered; by default this user's.
        command: the command line that asked for it, for the reports.

    Raises:
        UsageError: `jobs` is less than 1.
    """
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs {jobs}: at least one", hint="leave --jobs out, or give 1 or more", code="usage.jobs")
    root = (cache or Cache(default_root())).root
    members = _Members(observer)
    at_once = min(jobs or default_jobs(len(requests)), len(requests))
    with tempfile.NamedTemporaryFile(prefix="turns-", dir=root) as turns:
        assignments = [
            Assignment(
                request=msgspec.to_builtins(request),
                cache=str(root),
                turns=turns.name,
                share=at_once,
                command=command,
            )
            for request in requests
        ]
        names = [name_of(request) for request in requests]
        with ThreadPoolExecutor(max_workers=at_once) as pool:
            futures = [pool.submit(members.run, *each) for each in zip(names, assignments, strict=True)]
            try:
                results = tuple(future.result() for future in futures)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                members.end()
                raise
    return summarized(results)


def summarized(results: tuple[Report | Result, ...]) -> Fleet:
    """Give several results one status."""
    codes = {result.exit_code for result in results}
    known = codes <= set(WORST_FIRST)
    worst = next(status for status in WORST_FIRST if status in codes) if known else ExitStatus.BUG
    unchanged = all(result.status is Status.UNCHANGED for result in results)
    status = Status.FAILED if worst else Status.UNCHANGED if unchanged else Status.OK
    return Fleet(status=status, exit_code=int(worst), results=results)


def default_jobs(models: int) -> int:
    """Return how many conversions this machine, or this container, bears at a time."""
    return max(1, min(models, cores() // 2, memory().bytes // MEMORY_EACH))


class _Members:
    """The processes that convert, and whoever watches them."""

    def __init__(self, observer: FleetObserver) -> None:
        self._observer = observer
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._ended = False

    def run(self, name: str, assignment: Assignment) -> Report | Result:
        """Convert one model in a process, and wait for what becomes of it."""
        process = self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(msgspec.json.encode(assignment))
            process.stdin.close()
            result: Report | Result | None = None
            for line in process.stdout:
                match _SAID.decode(line):
                    case Happened(event=event):
                        with self._lock:
                            self._observer(name, event)
                    case Ended(result=result):
                        pass
            status = process.wait()
        except BrokenPipeError:
            status, result = process.wait(), None
        finally:
            process.stdout.close()
            with self._lock:
                self._running.discard(process)
        return _named(failed(_death(name, status)) if result is None else result, name)

    def _start(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._ended:
                raise StepError("the fleet has been ended", hint="run the command again", code="fleet.ended")
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "convkit.fleet_member", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for this process to handle
                env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
            )
            self._running.add(process)
            return process

    def end(self) -> None:
        """Let every process end, with what it has begun put away."""
        with self._lock:
            self._ended = True
            for process in self._running:
                process.terminate()


def _named(result: Report | Result, name: str) -> Report | Result:
    return result if result.name else msgspec.structs.replace(result, name=name)


def _death(name: str, status: int) -> ConvkitError:
    if status < 0:
        return StepError(
            f"the process that converted {name} was killed by signal {-status}",
            hint="it was most likely out of memory: fewer --jobs, or more memory",
            code="fleet.killed",
        )
    return ConvkitError(
        f"a bug in convkit: the process that converted {name} ended with status {status}",
        hint="please report it with the command and the lines above; nothing of this model was published",
        code="convkit.bug",
    )
