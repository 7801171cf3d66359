"""Runs steps, remembers them, and keeps account of what they cost."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar

import msgspec

from convkit.errors import ConvkitError, InputError
from convkit.pipeline.ahead import Ahead, has_room
from convkit.pipeline.artifact import digest_bytes
from convkit.pipeline.cache import Cache, Entry, artifacts_in, without_paths
from convkit.pipeline.events import Event, Observer, StepFinished, StepProgress, StepStarted, Warned
from convkit.pipeline.extensions import Extension
from convkit.pipeline.identity import code_digest, library_versions, machine_digest, others_code_digest
from convkit.pipeline.isolation import OF_THIS_MACHINE
from convkit.pipeline.kept import kept_folder
from convkit.pipeline.lock import unlock
from convkit.pipeline.removal import remove_tree
from convkit.pipeline.step import ENVIRONMENTS, Kind, Step
from convkit.pipeline.watch import Limits, Watch, limits_from
from convkit.pipeline.worker import Worker, signals_held
from convkit.spec.options import LimitOptions

P = ParamSpec("P")
R = TypeVar("R")

_EXTENSIONS = "(extensions)"
"""Stands for them among a step's arguments in its key; no argument has such a name."""


class StageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What one step of a run cost. `peak_bytes` is its worker's largest resident set meanwhile."""

    name: str
    title: str
    seconds: float
    peak_bytes: int
    cached: bool


class Contender(Generic[R]):
    """One side of an alternating measurement: a step and its arguments."""

    def __init__(self, step: Step[..., R], *args: Any, **kwargs: Any) -> None:
        self.step = step
        self.arguments: dict[str, Any] = {n: msgspec.to_builtins(v) for n, v in step.bind(*args, **kwargs).items()}


class DryRunEnded(Exception):  # noqa: N818 - no error
    """A dry run has come to the first step whose result is not remembered; None: to what would be published."""

    def __init__(self, step: Step[..., Any] | None) -> None:
        super().__init__(step.title if step else "Publish")
        self.step = step


class Runner:
    """Runs steps for one command. Use it as a context manager: its workers and scratch space end with it.

    Args:
        cache: where results are remembered.
        observer: is told what happens.
        dry: run nothing; raise `DryRunEnded` at the first step whose result is not remembered.
        limits: what the workers may take; by default the memory that there is, and any time.
    """

    def __init__(self, cache: Cache, observer: Observer, *, dry: bool = False, limits: Limits | None = None) -> None:
        self.cache = cache
        self.stages: list[StageRecord] = []
        self.warnings: list[Warned] = []
        self.libraries: set[str] = set()
        """Distributions on which the results of this run depend."""
        self._observer = observer
        self._dry = dry
        self._limits = limits
        self._expected: tuple[str, ...] = ()
        self._extensions: tuple[Extension, ...] = ()
        self._workers: dict[str, Worker] = {}
        self._scratch: Path | None = None
        self._lock: int | None = None
        self._use = cache.in_use()
        self._before: dict[str, Callable[[], object]] = {}
        self._ahead = Ahead(cache, begin=self._begun, end=self._ended, observe=self.observe)

    def __enter__(self) -> Self:
        self._use.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers.values():
            worker.kill()
        for worker in self._workers.values():
            worker.stop()
        self._workers.clear()
        if self._scratch is not None:
            remove_tree(self._scratch)
            self._scratch = None
        if self._lock is not None:
            unlock(self._lock)
            self._lock = None
        self._use.__exit__(kind, error, trace)

    def expect(self, *environments: str) -> None:
        """Start these workers together as soon as the first step has to run, so that their imports overlap."""
        self._expected = environments

    def extend(self, extensions: Sequence[Extension]) -> None:
        """Let every worker load these beside its libraries; they enter the keys of all steps from here on."""
        self._extensions = tuple(extensions)

    def __call__(self, step: Step[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the step's result: the remembered one, else by running it."""
        arguments = {name: msgspec.to_builtins(value) for name, value in step.bind(*args, **kwargs).items()}
        key = self._key(step, arguments)
        self.libraries.update(_libraries(step))
        prepare = self._before.pop(step.name, None)
        with self.account(step.stage, step.title) as account:
            begun = self._ahead.claim(key)
            entry = begun or self.cache.load(key)
            if entry is None:
                if prepare is not None and not self._dry:
                    prepare()
                entry = self.cache.store(key, self._run(step, arguments))
            elif begun is None:
                account.cached = True
                for warning in entry.warnings:
                    self.observe(warning)
            account.seconds, account.peak_bytes = entry.seconds, entry.peak_bytes
        return step.decode_result(entry.result)

    def begin(self, step: Step[P, R], *args: P.args, **kwargs: P.kwargs) -> None:
        """Let a step begin that the pipeline will come to, beside what comes before it: see `convkit.pipeline.ahead`.

        Nothing happens in a dry run, where the result is remembered, or where the machine has no room for two.
        """
        arguments = {name: msgspec.to_builtins(value) for name, value in step.bind(*args, **kwargs).items()}
        if self.has_room(arguments):
            self._ahead.begin(self._key(step, arguments), step, arguments)

    def has_room(self, read: object) -> bool:
        """Tell whether a step that reads these data may begin ahead here; never in a dry run."""
        return not self._dry and has_room(msgspec.to_builtins(read), self.limits)

    def ahead(self, step: Step[P, R], *args: P.args, **kwargs: P.kwargs) -> R | None:
        """Return the result of a step that the pipeline will come to; None: it fails, which is told there.

        None in a dry run, too.
        """
        arguments = {name: msgspec.to_builtins(value) for name, value in step.bind(*args, **kwargs).items()}
        entry = None if self._dry else self._ahead.result(self._key(step, arguments), step, arguments)
        return None if entry is None else step.decode_result(entry.result)

    def before(self, step: Step[..., Any], prepare: Callable[[], object]) -> None:
        """Have something done once it is sure that a step has to run, before it does; in a dry run never.

        Args:
            step: its next call is meant.
            prepare: calls `ahead` and `begin`, which tell nothing and raise nothing of what a step raises.
        """
        self._before[step.name] = prepare

    def meanwhile(self, prepare: Callable[[], object]) -> None:
        """Have something made ready while the run waits for a step that began ahead; where it never does, not at all.

        Args:
            prepare: keeps what it makes, for whoever asks it again.
        """
        self._ahead.meanwhile = prepare

    def alternate(
        self,
        contenders: Sequence[Contender[R]],
        *,
        rounds: int,
        title: str,
        most: int | None = None,
        enough: Callable[[Sequence[Sequence[R]]], bool] | None = None,
        fresh: bool = False,
    ) -> list[list[R]]:
        """Run every contender in turn and in changing order, again and again, after one round that does not count.

        Args:
            contenders: what to run.
            rounds: how often.
            title: what the report calls it.
            most: go on up to so many rounds.
            enough: is asked after every round from `rounds` on whether that suffices; it gets what has come so far.
            fresh: run them even where the result is remembered, and remember the new one in its place.

        Returns, for each contender, its results in order. The whole is one observation.
        """
        stage = contenders[0].step.stage
        keys = [self._key(contender.step, contender.arguments) for contender in contenders]
        key = digest_bytes(msgspec.json.encode(["alternate", keys, rounds, most])).removeprefix("sha256:")
        with self.account(stage, title) as account:
            entry = None if fresh else self.cache.load(key)
            if entry is None:
                entry = self.cache.store(key, self._alternate(contenders, rounds, most or rounds, enough))
            else:
                account.cached = True
            account.seconds, account.peak_bytes = entry.seconds, entry.peak_bytes
        return [
            [contender.step.decode_result(result) for result in results]
            for contender, results in zip(contenders, entry.result, strict=True)
        ]

    def end_worker(self, environment: str) -> None:
        """End a worker in which what the run can do without went wrong; the next step there starts another."""
        self._ahead.forget(environment)
        worker = self._workers.pop(environment, None)
        if worker is not None:
            worker.stop()

    def act(self) -> None:
        """Say that what follows has effects outside the cache.

        Raises:
            DryRunEnded: in a dry run.
        """
        if self._dry:
            raise DryRunEnded(None)

    def observe(self, event: Event) -> None:
        """Keep a warning for the report, and pass every event on."""
        if isinstance(event, Warned):
            if event in self.warnings:
                return
            self.warnings.append(event)
        self._observer(event)

    def _alternate(
        self,
        contenders: Sequence[Contender[R]],
        rounds: int,
        most: int,
        enough: Callable[[Sequence[Sequence[R]]], bool] | None,
    ) -> Entry:
        results: list[list[Any]] = [[] for _ in contenders]
        decoded: list[list[R]] = [[] for _ in contenders]
        started, peak = time.perf_counter(), 0
        for number in range(most + 1):
            if number > rounds and enough is not None and enough(decoded):
                break
            self.observe(StepProgress(done=number, total=most, text="rounds at most"))
            order = list(enumerate(contenders))
            for position, contender in order if number % 2 else reversed(order):
                entry = self._run(contender.step, contender.arguments)
                peak = max(peak, entry.peak_bytes)
                if number:
                    results[position].append(entry.result)
                    decoded[position].append(contender.step.decode_result(entry.result))
        seconds = time.perf_counter() - started
        return Entry(step="alternate", result=results, seconds=seconds, peak_bytes=peak)

    def _run(self, step: Step[..., Any], arguments: dict[str, Any]) -> Entry:
        if self._dry:
            raise DryRunEnded(step)
        return self._ended(step, arguments, self._begun(step, arguments), self.observe)

    def _begun(self, step: Step[..., Any], arguments: dict[str, Any]) -> Worker:
        """Have its worker begin a step, once that has no other one to do; a measurement begins when none has."""
        for environment in self._expected:
            self._worker(environment)
        self._ahead.settle(None if step.kind is Kind.OBSERVATION else step.needs)
        worker = self._worker(step.needs)
        worker.begin(step, arguments, self._scratch_folder(), self.limits, self._extensions)
        return worker

    def _ended(self, step: Step[..., Any], arguments: dict[str, Any], worker: Worker, observe: Observer) -> Entry:
        """Wait for what has begun, and hold its inputs against what they were."""
        warnings: list[Warned] = []

        def note(event: Event) -> None:
            if isinstance(event, Warned) and not event.code.startswith(OF_THIS_MACHINE):
                warnings.append(event)
            observe(event)

        returned = worker.answer(step, note, self._watch(step))
        for artifact in artifacts_in([arguments, msgspec.to_builtins(self._extensions)]):
            if self.cache.has_changed(artifact):
                raise InputError(
                    f"{artifact['path']} has changed while it was read ({', '.join(artifact['files'][:3])})",
                    hint="run the same command again when nothing writes there any more",
                    code="source.changed",
                )
        return Entry(
            step=step.name,
            result=returned.result,
            warnings=tuple(warnings),
            seconds=returned.seconds,
            peak_bytes=returned.peak_bytes,
        )

    def _key(self, step: Step[..., Any], arguments: dict[str, Any]) -> str:
        return _key(
            step, {**arguments, _EXTENSIONS: msgspec.to_builtins(self._extensions)} if self._extensions else arguments
        )

    def _worker(self, environment: str) -> Worker:
        if environment in self._workers and self._workers[environment].has_ended:
            self._workers.pop(environment).stop()
        if environment not in self._workers:
            log = self.cache.root / "logs" / f"{self._scratch_folder().name}-{environment}.log"
            kept = kept_folder(environment, self.cache.root)
            with signals_held():  # a worker that nobody knows of yet could not be ended
                self._workers[environment] = Worker(environment, log, self._scratch_folder(), kept)
        return self._workers[environment]

    @property
    def limits(self) -> Limits:
        """Return what the workers may take."""
        if self._limits is None:
            self._limits = limits_from(LimitOptions())
        return self._limits

    def _watch(self, step: Step[..., Any]) -> Watch:
        return Watch(self.limits, step, {name: worker.process for name, worker in self._workers.items()})

    def _scratch_folder(self) -> Path:
        if self._scratch is None:
            with signals_held():  # a folder that nobody knows of yet could not be removed
                self._scratch, self._lock = self.cache.new_scratch()
        return self._scratch

    @contextlib.contextmanager
    def account(self, stage: str, title: str) -> Iterator[Account]:
        """Keep account of a part of the run: the caller fills in what it cost, or it is timed here."""
        self.observe(StepStarted(stage=stage, title=title))
        account = Account()
        started = time.perf_counter()
        try:
            yield account
        except ConvkitError as error:
            error.stage = error.stage or stage
            raise
        if not account.seconds and not account.cached:
            account.seconds = time.perf_counter() - started
        self.stages.append(
            StageRecord(
                name=stage,
                title=title,
                seconds=account.seconds,
                peak_bytes=account.peak_bytes,
                cached=account.cached,
            )
        )
        self.observe(
            StepFinished(
                stage=stage,
                title=title,
                seconds=account.seconds,
                peak_bytes=account.peak_bytes,
                cached=account.cached,
            )
        )


class Account:
    """What a part of the run cost; seconds are taken by the clock unless they are set."""

    seconds = 0.0
    peak_bytes = 0
    cached = False


def _key(step: Step[..., Any], arguments: dict[str, Any]) -> str:
    """Derive a step's key from all that its result depends on."""
    parts = {
        "step": step.name,
        "version": step.version,
        "arguments": without_paths(arguments),
        "code": code_digest(),
        "libraries": library_versions(_libraries(step)),
        "machine": machine_digest() if step.kind is Kind.OBSERVATION else None,
    }
    module = step.function.__module__
    if module.partition(".")[0] != "convkit":
        parts["others"] = others_code_digest(module)
    return digest_bytes(msgspec.json.encode(parts, order="sorted")).removeprefix("sha256:")


def _libraries(step: Step[..., Any]) -> tuple[str, ...]:
    return ENVIRONMENTS[step.needs] + step.libraries
