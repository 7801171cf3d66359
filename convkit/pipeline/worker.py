"""A process that holds one framework and runs steps in it.

The runner's half is `Worker`; the process's half is `serve`, started as ``python -m convkit.pipeline.worker``.
What native libraries print goes to the worker's log; replies and events travel on a socket of their own.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from convkit.errors import ConvkitError, StepError, error_class
from convkit.pipeline import early, events, patience
from convkit.pipeline.allowance import thread_variables
from convkit.pipeline.artifact import use_scratch
from convkit.pipeline.cache import space_in
from convkit.pipeline.channel import Call, Happened, Raised, Reply, Request, Returned, WarmUp, receive, send
from convkit.pipeline.events import Observer
from convkit.pipeline.extensions import Extension, use_extensions
from convkit.pipeline.home import home_variables
from convkit.pipeline.isolation import isolate
from convkit.pipeline.kept import handed_on
from convkit.pipeline.processes import adopt_orphans, end_tree
from convkit.pipeline.step import Step, find_step
from convkit.pipeline.watch import Limits, Watch

_REQUESTS = msgspec.json.Decoder(Request)
_REPLIES = msgspec.json.Decoder(Reply)
_PR_SET_PDEATHSIG = 1  # prctl(2)
_LOG_TAIL = 12

WARM_UPS: dict[str, tuple[str, ...]] = {
    "onnx": ("numpy", "onnx", "onnxruntime"),
    "torch": ("numpy", "torch", "onnx", "torch.onnx"),
    "tensorflow": ("numpy", "tensorflow", "tf2onnx", "tf2onnx.tfonnx", "tensorflow.python.grappler.tf_optimizer"),
    "openvino": ("numpy", "openvino"),
    "tensorrt": (),
    "tensorrt-rtx": ("tensorrt_rtx", "convkit.targets.trt_build"),
}
"""Modules that a worker imports as soon as it stands, while the runner still does other things."""

SETTINGS: dict[str, dict[str, str]] = {"tensorflow": {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}}
"""Environment variables that a framework reads as it is imported."""

GIVE_UP = {"tensorrt", "tensorrt-rtx"}
"""Environments whose steps end by themselves, and soon, where the worker gets SIGINT."""
_GIVE_UP_S = 5

_STOPPING = {signal.SIGINT, signal.SIGTERM}


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until what is begun is noted down; they arrive right after it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Worker:
    """The runner's handle on one worker process."""

    def __init__(self, environment: str, log: Path, scratch: Path, kept: Path | None = None) -> None:
        self.environment = environment
        self.log = log
        ours, theirs = socket.socketpair()
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "convkit.pipeline.worker"),
                    *(str(theirs.fileno()), str(os.getpid()), str(scratch)),
                    *([str(kept)] if kept is not None else []),
                ],
                cwd=scratch,  # libraries leave files where they run
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is the runner's to handle
                env={
                    **os.environ,
                    **home_variables(scratch),
                    **thread_variables(),
                    **SETTINGS.get(environment, {}),
                    **handed_on(kept),
                    "PYTHONUNBUFFERED": "1",
                    "TMPDIR": str(scratch),
                    "PYTHONPATH": os.pathsep.join(_import_path()),
                },
            )
        theirs.close()
        self._channel = ours
        self._ends = _ends_of(self._process.pid)
        self._send(WarmUp(modules=WARM_UPS[environment]))

    @property
    def process(self) -> int:
        """Return the process's number."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Tell whether the process is no more."""
        return self._process.poll() is not None

    def begin(
        self,
        step: Step[..., Any],
        arguments: dict[str, Any],
        scratch: Path,
        limits: Limits,
        extensions: tuple[Extension, ...] = (),
    ) -> None:
        """Let the process begin a step; `answer` waits for its result. One at a time."""
        self._send(
            Call(
                step=step.name,
                arguments=arguments,
                scratch=str(scratch),
                run_seconds=limits.run_seconds,
                extensions=extensions,
            )
        )

    def answer(self, step: Step[..., Any], observer: Observer, watch: Watch) -> Returned:
        """Wait for the result of the step that was begun.

        Raises:
            ConvkitError: what the step raised; a `StepError` for any other exception and for a worker that died;
                what `watch` complained of, and the worker is no more.
        """
        try:
            return self._answer(step, observer, watch)
        except Exception:
            raise
        except BaseException:  # Ctrl-C, SIGTERM
            self._let_end()
            raise

    def _answer(self, step: Step[..., Any], observer: Observer, watch: Watch) -> Returned:
        while self._has_answered(watch) and (data := receive(self._channel)) is not None:
            match _REPLIES.decode(data):
                case Happened(event=event):
                    observer(event)
                case Returned() as returned:
                    return returned
                case Raised() as raised:
                    if raised.is_stuck:
                        self._end()
                    raise self._translated(raised, step)
        raise self._death(step)

    def _let_end(self) -> None:
        """Have a worker whose library can be told to stop give up what it does; wait a while for its end."""
        if self.environment not in GIVE_UP:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGINT)
        poll = select.poll()
        for descriptor in self._ends:
            poll.register(descriptor, select.POLLIN)
        if self._ends:
            poll.poll(_GIVE_UP_S * 1000)

    def kill(self) -> None:
        """Have the process and everything that it started end; `stop` waits for it."""
        end_tree(self._process.pid)

    def stop(self) -> None:
        """End the process and everything it started."""
        self._end()
        self._channel.close()
        for descriptor in self._ends:
            os.close(descriptor)
        self._ends = ()

    def _end(self) -> None:
        self.kill()
        self._process.wait()

    def _has_answered(self, watch: Watch) -> bool:
        """Wait for the worker's next message, or for its end, even if what it started keeps the channel open."""
        poll = select.poll()
        for descriptor in (self._channel.fileno(), *self._ends):
            poll.register(descriptor, select.POLLIN)
        while True:
            overrun = watch.look(lambda: log_tail(self.log))
            if overrun is not None:
                self._end()
                raise overrun
            ready = poll.poll(watch.pause_s * 1000)
            if ready:
                return self._channel.fileno() in dict(ready)

    def _send(self, message: Request) -> None:
        with contextlib.suppress(BrokenPipeError):  # its death is reported by the next call
            send(self._channel, message)

    def _translated(self, raised: Raised, step: Step[..., Any]) -> ConvkitError:
        if raised.error:
            return error_class(raised.error)(raised.message, hint=raised.hint, code=raised.code, stage=raised.stage)
        return StepError(
            f"{step.title}: {raised.message}",
            hint=f"what the libraries printed is in {self.log}; --debug shows where it was raised",
            code="step.failed",
            stage=step.stage,
        )

    def _death(self, step: Step[..., Any]) -> StepError:
        status = self._process.wait()
        if status < 0:
            how = f"was killed by signal {-status} ({_signal_name(-status)})"
        else:
            how = f"ended by itself with status {status}"
        out_of_memory = status == -signal.SIGKILL
        return StepError(
            f"{step.title}: the {self.environment} worker {how}. The end of its log:\n{log_tail(self.log)}",
            hint=(
                "it was most likely out of memory: give the machine or the container more, or a smaller batch"
                if out_of_memory
                else f"the whole log is in {self.log}"
            ),
            code="worker.out-of-memory" if out_of_memory else "worker.died",
            stage=step.stage,
        )


def _ends_of(process: int) -> tuple[int, ...]:
    """Return a descriptor that can be read once the process has ended; nothing where the kernel has none."""
    try:
        return (os.pidfd_open(process),)
    except OSError:
        return ()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of the real-time signals, most of which have no name
        return "a real-time signal"


def log_tail(log: Path, lines: int = _LOG_TAIL) -> str:
    """Return the last lines of a log, indented."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "    (no log)"
    return "\n".join("    " + line for line in text.splitlines()[-lines:]) or "    (the log is empty)"


def _import_path() -> list[str]:
    return [entry for entry in sys.path if entry and Path(entry).is_dir()]


def serve(channel: socket.socket) -> None:
    """Answer requests until the other side is gone."""
    events.observe(lambda event: send(channel, Happened(event=event)))
    patience.on_overrun(lambda error: send(channel, _raised(error, is_stuck=True)))
    while (data := receive(channel)) is not None:
        match _REQUESTS.decode(data):
            case WarmUp(modules=modules):
                for module in modules:
                    with contextlib.suppress(ImportError, OSError):  # the step that needs it says so better
                        importlib.import_module(module)
                gc.freeze()  # what `_give_back_memory` need not look at again after every step
            case Call() as call:
                send(channel, _run(call))
                _give_back_memory()


def _run(call: Call) -> Reply:
    use_scratch(Path(call.scratch))
    use_extensions(call.extensions)
    patience.allow(call.run_seconds)
    _peak.reset()
    early.begin_step(call.scratch)
    try:
        step = find_step(call.step)
        arguments = step.decode_arguments(call.arguments)
        started = time.perf_counter()
        with space_in(Path(call.scratch)):
            result = step.function(**arguments)
        seconds, peak_bytes = early.end_step(time.perf_counter() - started, _peak.bytes())
        return Returned(result=msgspec.to_builtins(result), seconds=seconds, peak_bytes=peak_bytes)
    except ConvkitError as error:
        traceback.print_exc()
        return _raised(error)
    except Exception as error:  # noqa: BLE001 - crosses the pipe and is raised again there
        traceback.print_exc()
        text = " ".join(str(error).split())
        return Raised(error="", message=f"{type(error).__name__}: {text}", hint="", code="", stage=None)


def _raised(error: ConvkitError, *, is_stuck: bool = False) -> Raised:
    return Raised(
        error=type(error).__name__,
        message=error.message,
        hint=error.hint,
        code=error.code,
        stage=error.stage,
        is_stuck=is_stuck,
    )


def _give_back_memory() -> None:
    """Return what the step left behind to the system, while the runner goes on: another worker will need it."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class _Peak:
    """The largest resident set of this process. proc(5), VmHWM and clear_refs."""

    def __init__(self) -> None:
        self._resetting: int | None = None

    def open(self) -> None:
        """Make ready to reset it, before writing is confined."""
        with contextlib.suppress(OSError):
            self._resetting = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)

    def reset(self) -> None:
        """Begin anew from what is resident now."""
        if self._resetting is not None:
            with contextlib.suppress(OSError):
                os.write(self._resetting, b"5")

    def bytes(self) -> int:
        """Return it in bytes; 0 where the system does not tell."""
        try:
            status = Path("/proc/self/status").read_text(encoding="utf-8")
        except OSError:
            return 0
        line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
        return int(line.split()[1]) * 1024


_peak = _Peak()


def _be_the_first_to_go() -> None:
    """Where memory runs out all the same, let the kernel end this process rather than the runner. proc(5)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")


def die_with(parent: int) -> None:
    """Let the kernel end this process when the runner dies, however it dies."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died in between
        os._exit(1)


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)  # inherited from `signals_held`
    adopt_orphans()
    _be_the_first_to_go()
    _peak.open()
    isolate(*map(Path, sys.argv[3:]))
    die_with(int(sys.argv[2]))
    serve(socket.socket(fileno=int(sys.argv[1])))
