"""A real Triton Inference Server on this machine, without Docker and without a GPU.

The package nvidia-pytriton carries the server's own program (2.51.0, release 24.10) with its Python backend. It lives
in an environment of its own, made from `requirements.txt` beside this file; `CONVKIT_TRITON_ENV` names another one.
The backends `onnxruntime` and `openvino` are `backends/*/model.py`, run by the server's Python backend.
"""

from __future__ import annotations

import contextlib
import ctypes
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
import uuid
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple

HERE = Path(__file__).resolve().parent
DEFAULT_ENVIRONMENT = HERE.parents[1] / ".venv-triton"
RELEASE = "24.10"

START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 60.0
LOG_TAIL_LINES = 40
START_ATTEMPTS = 3

ModelControl = Literal["none", "explicit", "poll"]


class ServerUnavailableError(RuntimeError):
    """The server, or something that it needs, is not on this machine."""


class ServerFailedError(AssertionError):
    """The server did not start, did not become ready, or refused a model; the text ends with its log."""


class Installation(NamedTuple):
    """Where the pieces of one installed server are."""

    python: Path
    server: Path
    backend: Path
    stub: Path
    libraries: tuple[Path, ...]

    def variables(self) -> dict[str, str]:
        """Return the variables under which the server finds its libraries and the right Python."""
        inherited = os.environ.get("LD_LIBRARY_PATH")
        folders = [*map(str, self.libraries), *([inherited] if inherited else [])]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return {
            **kept,
            "PATH": f"{self.python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "LD_LIBRARY_PATH": os.pathsep.join(folders),
            "PYTHONDONTWRITEBYTECODE": "1",
        }


@cache
def installation() -> Installation:
    """Find the installed server.

    Raises:
        ServerUnavailableError: with what is missing and where it was looked for.
    """
    environment = Path(os.environ.get("CONVKIT_TRITON_ENV", DEFAULT_ENVIRONMENT))
    python = environment / "bin" / "python3"
    if not python.exists():
        raise ServerUnavailableError(f"there is no environment at {environment}; `make test` makes it")
    facts = _facts(python)
    package = Path(facts["site_packages"]) / "pytriton" / "tritonserver"
    found = Installation(
        python=python,
        server=package / "bin" / "tritonserver",
        backend=package / "backends" / "python",
        stub=package / "python_backend_stubs" / facts["version"] / "triton_python_backend_stub",
        libraries=(package.parents[1] / "nvidia_pytriton.libs", Path(facts["library_folder"])),
    )
    missing = [path for path in (found.server, found.backend, found.stub) if not path.exists()]
    if missing:
        raise ServerUnavailableError(f"{environment} is incomplete: there is no {missing[0]}")
    unresolved = _unresolved_libraries(found)
    if unresolved:
        raise ServerUnavailableError(f"the server's Python backend needs {unresolved}, which is not on this machine")
    return found


def unavailable() -> str | None:
    """Say why no server can be started here, or None where one can."""
    try:
        installation()
    except ServerUnavailableError as error:
        return str(error)
    return None


def lay_out_backends(folder: Path, found: Installation, names: Sequence[str]) -> None:
    """Lay out a backend directory: the Python backend with the stub for our Python, and those built on it."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(found.backend, folder / "python", ignore=ignore)
    shutil.copy2(found.stub, folder / "python")
    for name in names:
        for part in (name, "shared"):
            shutil.copytree(HERE / "backends" / part, folder / name, ignore=ignore, dirs_exist_ok=True)


def _facts(python: Path) -> dict[str, str]:
    """Ask the environment's own Python for its version, its packages and the folder of its shared library."""
    question = (
        "import json, sys, sysconfig;"
        "print(json.dumps({'version': '%d.%d' % sys.version_info[:2],"
        " 'site_packages': sysconfig.get_path('purelib'),"
        " 'library_folder': sysconfig.get_config_var('LIBDIR')}))"
    )
    answer = subprocess.run([python, "-I", "-c", question], capture_output=True, text=True, check=True)
    facts: dict[str, str] = json.loads(answer.stdout)
    return facts


def _unresolved_libraries(found: Installation) -> str:
    """Name the shared libraries that the stub would not find, as the loader sees it."""
    listing = subprocess.run(["ldd", found.stub], capture_output=True, text=True, env=found.variables(), check=False)
    return ", ".join(line.split()[0] for line in listing.stdout.splitlines() if "not found" in line)


class TritonServer:
    """A running server, as a context.

    Args:
        repository: the model repository to serve.
        model_control: Triton's `--model-control-mode`; `explicit` starts with no model loaded.
        config_name: Triton's `--model-config-name`: prefer `configs/NAME.pbtxt`.
        poll_seconds: how often a polling server looks at the repository.
        backends: the names of the Python-based backends to offer, of those beside this file.
        extra_args: further arguments for tritonserver.

    Raises:
        ServerUnavailableError: where no server is installed.
        ServerFailedError: when it does not become ready; ends with the tail of the server's log.
    """

    def __init__(
        self,
        repository: Path,
        *,
        model_control: ModelControl = "none",
        config_name: str | None = None,
        poll_seconds: int = 1,
        backends: Sequence[str] = ("onnxruntime", "openvino"),
        extra_args: Sequence[str] = (),
    ) -> None:
        self._installation = installation()
        self._arguments = [
            f"--model-repository={repository.resolve()}",
            f"--model-control-mode={model_control}",
            *([f"--repository-poll-secs={poll_seconds}"] if model_control == "poll" else []),
            *([f"--model-config-name={config_name}"] if config_name else []),
            *extra_args,
        ]
        self._backends = backends
        self._process: subprocess.Popen[bytes] | None = None
        self.http_url = ""
        self.grpc_url = ""

    def __enter__(self) -> TritonServer:
        self.scratch = Path(tempfile.mkdtemp(prefix="convkit-triton-"))
        self._log = self.scratch / "server.log"
        self.shared_memory_prefix = f"convkit_{uuid.uuid4().hex[:12]}_"
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The number of the server's process."""
        assert self._process is not None
        return self._process.pid

    def log(self) -> str:
        """Return everything that the server has written so far."""
        return self._log.read_text(errors="replace")

    def load(self, name: str) -> None:
        """Load, or load again, a model of a server under explicit control.

        Raises:
            ServerFailedError: with the server's reason and the tail of its log.
        """
        status, answer = self._post(f"/v2/repository/models/{name}/load")
        if status != 200:
            raise ServerFailedError(f"HTTP {status}: {answer}\n{self._tail()}")

    def unload(self, name: str) -> None:
        """Unload a model of a server under explicit control."""
        status, answer = self._post(f"/v2/repository/models/{name}/unload")
        if status != 200:
            raise ServerFailedError(f"HTTP {status}: {answer}\n{self._tail()}")

    def is_ready(self, name: str, version: int | None = None) -> bool:
        """Tell whether a model, or one version of it, answers requests."""
        path = f"/v2/models/{name}" + (f"/versions/{version}" if version else "") + "/ready"
        return self._get_status(path) == 200

    def wait_until_ready(self, name: str, version: int | None = None, *, timeout_s: float = 60.0) -> None:
        """Wait until a model answers requests, as after a polling server has seen it appear."""
        deadline = time.monotonic() + timeout_s
        while not self.is_ready(name, version):
            if time.monotonic() > deadline:
                raise ServerFailedError(f"{name} is not ready after {timeout_s:.0f} s\n{self._tail()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End the server and its backends at once, and remove what they left. Safe to call twice.

        The server's own way out takes seconds, in which it only waits for requests that nobody sends.
        """
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for left in Path("/dev/shm").glob(f"{self.shared_memory_prefix}*"):
            left.unlink(missing_ok=True)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _start(self) -> None:
        """Start the server; once more when another program took a port between our looking and its binding."""
        backends = self._assemble_backends()
        for _ in range(START_ATTEMPTS):
            self._launch(backends)
            if self._becomes_ready():
                return
            if "in use" not in self.log():
                break
        raise ServerFailedError(f"the server did not become ready\n{self._tail()}")

    def _assemble_backends(self) -> Path:
        folder = self.scratch / "backends"
        lay_out_backends(folder, self._installation, self._backends)
        return folder

    def _launch(self, backends: Path) -> None:
        http_port, grpc_port = _free_ports(2)
        self.http_url, self.grpc_url = f"127.0.0.1:{http_port}", f"127.0.0.1:{grpc_port}"
        command = [
            self._installation.server,
            *self._arguments,
            f"--backend-directory={backends}",
            f"--backend-config=python,shm-region-prefix-name={self.shared_memory_prefix}",
            "--http-address=127.0.0.1",
            f"--http-port={http_port}",
            "--grpc-address=127.0.0.1",
            f"--grpc-port={grpc_port}",
            "--allow-metrics=false",
            "--exit-timeout-secs=5",
            "--log-verbose=0",
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self._installation.variables(),
                cwd=self.scratch,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def _becomes_ready(self) -> bool:
        """Wait for readiness; False when the server ended instead."""
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._process.poll() is None:
            if self._get_status("/v2/health/ready") == 200:
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return False

    def _get_status(self, path: str) -> int:
        return _request(f"http://{self.http_url}{path}", None)[0]

    def _post(self, path: str) -> tuple[int, str]:
        return _request(f"http://{self.http_url}{path}", {})

    def _tail(self) -> str:
        lines = self.log().splitlines()[-LOG_TAIL_LINES:]
        return "\n".join(["--- the end of the server's log ---", *lines])


def validate_config(repository: Path, name: str, *, config_name: str | None = None) -> str | None:
    """Let the real server read a model's configuration, where it may well lack the backend.

    Returns:
        None where the configuration passed; else the server's reason.
    """
    arguments = ("--disable-auto-complete-config",)
    with TritonServer(
        repository, model_control="explicit", config_name=config_name, backends=(), extra_args=arguments
    ) as server:
        status, answer = server._post(f"/v2/repository/models/{name}/load")
        log = server.log()
    if status == 200 or (status == 400 and "unable to find backend library" in answer):
        return None
    reasons = [line.split("] ", 1)[-1] for line in log.splitlines() if line.startswith("E")]
    return "\n".join([f"HTTP {status}: {answer}", *reasons])


def command_lines() -> list[str]:
    """Return the command lines of all processes, their words divided by null characters."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_text(errors="replace"))
        except OSError:  # the process ended while we looked
            continue
    return lines


def all_ended(*words: str) -> bool:
    """Tell whether no process has all these words on its command line; one that was killed takes a moment to end."""
    deadline = time.monotonic() + END_TIMEOUT_S
    while there := any(all(word in line for word in words) for line in command_lines()):
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return not there


def _request(url: str, body: Mapping[str, object] | None) -> tuple[int, str]:
    """Send a GET, or a POST where there is a body; return the status (0: nobody listens) and the text."""
    data = None if body is None else json.dumps(body).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, data=data), timeout=60) as answer:
            return int(answer.status), answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except OSError:
        return 0, ""


def _free_ports(count: int) -> list[int]:
    """Find loopback ports that nobody uses at this moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """In the child, before it becomes the server: ask the kernel to end it when the tests' process ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
