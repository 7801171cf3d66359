"""A Triton server of this machine, started on loopback for as long as a check lasts."""

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
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from convkit.errors import MissingError, StepError

VARIABLE = "CONVKIT_TRITONSERVER"
"""Names the server's program where it is not on PATH: it is given tritonserver's own arguments."""
_USUAL = Path("/opt/tritonserver/bin/tritonserver")
_START_S, _STOP_S, _REQUEST_S = 120.0, 10.0, 300.0
_ATTEMPTS = 3
_TAIL_LINES = 15


def find_server() -> Path:
    """Return the program of a Triton server.

    Raises:
        MissingError: there is none.
    """
    named = os.environ.get(VARIABLE)
    found = shutil.which(named or "tritonserver") or (str(_USUAL) if not named and _USUAL.is_file() else None)
    if found is None:
        where = f"{VARIABLE} names {named}, which cannot be run" if named else "there is no tritonserver on PATH"
        raise MissingError(
            f"--serve needs a Triton server: {where}",
            hint=f"run convkit check in a Triton container, or name the program with {VARIABLE}",
            code="missing.tritonserver",
        )
    return Path(found).absolute()


class Answer(NamedTuple):
    """What the server has sent back."""

    status: int
    """HTTP's; 0 where nobody answered."""
    data: bytes = b""
    json_bytes: int | None = None
    """How many of the bytes are JSON, where binary data follow it."""


class Server:
    """A running server with no model loaded, as a context.

    Args:
        repository: the model repository.
        config_name: the configuration to prefer: `configs/NAME.pbtxt`.

    Raises:
        MissingError: there is no server on this machine.
        StepError: it did not start; the message ends with its log.
    """

    def __init__(self, repository: Path, *, config_name: str | None = None) -> None:
        self._program = find_server()
        self._arguments = [
            f"--model-repository={repository}",
            "--model-control-mode=explicit",
            "--disable-auto-complete-config",
            "--allow-metrics=false",
            "--exit-timeout-secs=1",
            *([f"--model-config-name={config_name}"] if config_name else []),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""

    def __enter__(self) -> Server:
        self._scratch = Path(tempfile.mkdtemp(prefix="convkit-check-"))
        try:
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

    def _start(self) -> None:
        """Start it; once more where another program took a port between the look and the server's binding."""
        for _ in range(_ATTEMPTS):
            self._launch()
            if self._becomes_ready():
                return
            if "in use" not in self._log():
                break
            self._end_process()
        raise StepError(
            f"the Triton server {self._program} did not start: {self._tail()}",
            hint="start it by hand with the same repository to see more",
            code="check.server-failed",
        )

    def _launch(self) -> None:
        http_port, grpc_port = _free_ports()
        self._url = f"127.0.0.1:{http_port}"
        ports = [f"--http-port={http_port}", f"--grpc-port={grpc_port}"]
        addresses = ["--http-address=127.0.0.1", "--grpc-address=127.0.0.1"]
        with (self._scratch / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                [self._program, *self._arguments, *addresses, *ports],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._scratch,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    def _becomes_ready(self) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + _START_S
        while self._process.poll() is None and time.monotonic() < deadline:
            if self._request("/v2/health/live", None, {}).status == 200:
                return True
            time.sleep(0.05)
        return False

    def _stop(self) -> None:
        self._end_process()
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


def _free_ports() -> tuple[int, int]:
    """Find two loopback ports that nobody uses at this moment."""
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    """In the child, before it becomes the server: let the kernel end it however convkit ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
