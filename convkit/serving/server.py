"""A Triton server of this machine, started for as long as a check lasts, or as somebody asks it."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from convkit.errors import StepError
from convkit.serving.program import Program, Start, find_program, prepare_start
from convkit.serving.program import find_server as find_server

_START_S, _LOAD_S, _STOP_S, _REQUEST_S, _LOOK_S = 120.0, 1800.0, 10.0, 300.0, 0.1
_ATTEMPTS = 3
_TAIL_LINES = 15


class Answer(NamedTuple):
    """What the server has sent back."""

    status: int
    """HTTP's; 0 where nobody answered."""
    data: bytes = b""
    json_bytes: int | None = None
    """How many of the bytes are JSON, where binary data follow it."""


class Listen(NamedTuple):
    """Where a server listens; a port of 0 is any that is free."""

    host: str = "127.0.0.1"
    http: int = 0
    grpc: int = 0
    metrics: int | None = None
    """None: there are no metrics."""


class Server:
    """A running server, as a context.

    Args:
        repository: the model repository.
        config_name: the configuration to prefer: `configs/NAME.pbtxt`.
        load: the models to load; it is ready when all of them are.
        listen: where it listens.
        program: what to start; by default what is found.

    Raises:
        MissingError: there is no server on this machine.
        StepError: it did not start; the message ends with its log.
    """

    def __init__(
        self,
        repository: Path,
        *,
        config_name: str | None = None,
        load: Sequence[str] = (),
        listen: Listen = Listen(),  # noqa: B008 - frozen
        program: Program | None = None,
    ) -> None:
        self._program = program or find_program()
        self._arguments = [
            f"--model-repository={repository}",
            "--model-control-mode=explicit",
            *(f"--load-model={name}" for name in load),
            "--disable-auto-complete-config",
            "--exit-timeout-secs=1",
            *([f"--model-config-name={config_name}"] if config_name else []),
        ]
        self._start_s = _LOAD_S if load else _START_S
        self._asked = listen
        self._process: subprocess.Popen[bytes] | None = None
        self._begun = Start()
        self._url = ""
        self.listens = listen
        """Where it listens, once it has been started: every port has a number."""

    def __enter__(self) -> Server:
        self._scratch = Path(tempfile.mkdtemp(prefix="convkit-check-"))
        try:
            self._begun = prepare_start(self._program, self._scratch)
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def load(self, name: str) -> str | None:
        """Load a model; return the server's reason where it refuses."""
        answer = self.post(f"/v2/repository/models/{name}/load", b"{}")
        if answer.status == 200:
            return None
        return _reason(answer) or (f"HTTP {answer.status}" if answer.status else f"the server ended: {self._tail()}")

    def is_ready(self, name: str, version: int) -> bool:
        """Tell whether a version of a model answers requests."""
        return self._request(f"/v2/models/{name}/versions/{version}/ready", None, {}).status == 200

    def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        """Send a request with a body."""
        return self._request(path, body, dict(headers or {}))

    def _request(self, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        request = urllib.request.Request(f"http://{self._url}{path}", data=body, headers=headers)
        try:
            with opener.open(request, timeout=_REQUEST_S) as answer:
                length = answer.headers.get("Inference-Header-Content-Length")
                return Answer(int(answer.status), answer.read(), int(length) if length else None)
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.read())
        except (OSError, http.client.HTTPException):
            return Answer(0)

    def wait(self, echo: Callable[[str], object] | None = None) -> None:
        """Wait for as long as the server runs.

        Args:
            echo: is given what the server writes into its log.

        Raises:
            StepError: it has ended by itself.
        """
        assert self._process is not None
        with (self._scratch / "server.log").open(errors="replace") as log:
            while self._process.poll() is None:
                if echo is not None and (said := log.read()):
                    echo(said)
                time.sleep(_LOOK_S)
        raise StepError(
            f"the Triton server has ended by itself, with status {self._process.returncode}: {self._tail()}",
            hint="its log says why: --verbose shows all of it",
            code="serve.ended",
        )

    @property
    def pid(self) -> int:
        """Return the number of the server's process."""
        assert self._process is not None
        return self._process.pid

    def _refuse_taken(self) -> None:
        """Look whether the ports asked for are free: else another server there would be taken for this one.

        Raises:
            StepError: one of them is not, or the address is not this machine's.
        """
        for port in filter(None, (self._asked.http, self._asked.grpc, self._asked.metrics)):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((self._asked.host, port))
                except OSError as error:
                    raise StepError(
                        f"a server cannot listen on {self._asked.host}, port {port}: {error.strerror or error}",
                        hint="choose another port, or end what listens there",
                        code="serve.port",
                    ) from error

    def _start(self) -> None:
        """Start it; once more where another program took a port between the look and the server's binding."""
        self._refuse_taken()
        for _ in range(_ATTEMPTS):
            self._launch()
            if self._becomes_ready():
                return
            if "in use" not in self._log() or self._asked == self.listens:
                break
            self._end_process()
        raise StepError(
            f"the Triton server {self._program.path} did not start: {self._tail()}",
            hint="start it by hand with the same repository to see more",
            code="check.server-failed",
        )

    def _launch(self) -> None:
        asked, free = self._asked, _free_ports()
        ports = Listen(asked.host, asked.http or free[0], asked.grpc or free[1], asked.metrics)
        if asked.metrics == 0:
            ports = ports._replace(metrics=free[2])
        self.listens = ports
        self._url = f"{'127.0.0.1' if ports.host == '0.0.0.0' else ports.host}:{ports.http}"  # noqa: S104 - all of them
        arguments = [
            f"--http-address={ports.host}",
            f"--grpc-address={ports.host}",
            f"--http-port={ports.http}",
            f"--grpc-port={ports.grpc}",
            *(
                ["--allow-metrics=false"]
                if ports.metrics is None
                else [f"--metrics-address={ports.host}", f"--metrics-port={ports.metrics}"]
            ),
        ]
        with (self._scratch / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                [self._program.path, *self._arguments, *self._begun.arguments, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._scratch,
                env={**os.environ, **self._begun.variables},
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    def _becomes_ready(self) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + self._start_s
        while self._process.poll() is None and time.monotonic() < deadline:
            if self._request("/v2/health/ready", None, {}).status == 200:
                return True
            time.sleep(0.05)
        return False

    def _stop(self) -> None:
        self._end_process()
        self._begun.clean_up()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _end_process(self) -> None:
        """End the server and everything that it started."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _log(self) -> str:
        return (self._scratch / "server.log").read_text(errors="replace")

    def _tail(self) -> str:
        lines = [line for line in self._log().splitlines() if line.strip()]
        errors = [line.split("] ", 1)[-1] for line in lines if line.startswith("E")]
        return " / ".join((errors or lines)[-_TAIL_LINES:])


def _reason(answer: Answer) -> str:
    try:
        return str(json.loads(answer.data)["error"])
    except (ValueError, KeyError, TypeError):
        return ""


def _free_ports() -> tuple[int, int, int]:
    """Find three loopback ports that nobody uses at this moment."""
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        for each in (one, two, three):
            each.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1], three.getsockname()[1]


_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    """In the child, before it becomes the server: let the kernel end it however convkit ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
