"""A model repository on a Triton server of this machine, for whoever wants to ask it."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from convkit.errors import InputError
from convkit.served import config_name
from convkit.serving.check_files import Version
from convkit.serving.check_layout import find_models, versions_of
from convkit.serving.client import REQUEST, SCRIPT, URL
from convkit.serving.program import VARIABLE, find_program
from convkit.serving.publish import CONFIG
from convkit.serving.releases import newest
from convkit.serving.server import Listen, Server
from convkit.spec.damage import NOT_JSON

_IMAGE = "nvcr.io/nvidia/tritonserver:{}-py3"


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that the server has loaded, and how to ask it."""

    name: str
    version: int
    """The latest of its versions."""
    client: str | None = None
    """A command that sends a recorded sample and prints the answers; None where none was written with the version."""
    curl: str | None = None
    """The same with curl."""


class Serving(msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="convkit.serve/1"):
    """A server that is ready, as `convkit serve --json` prints it."""

    status: str = "ready"
    repository: str
    http: str
    """The URL of the HTTP protocol."""
    grpc: str
    """Host and port of the gRPC protocol."""
    metrics: str | None
    """The URL of the metrics."""
    config: str | None
    """The configuration that is preferred to config.pbtxt: ``cpu``, without a GPU."""
    pid: int
    """The number of the server's process."""
    models: tuple[ServedModel, ...]
    pending: tuple[str, ...] = ()
    """Models whose engines are still to be built: they are not served."""


@contextlib.contextmanager
def host(path: Path, listen: Listen) -> Iterator[tuple[Server, Serving]]:
    """Serve a repository, or one model in it, until the context ends.

    Args:
        path: REPOSITORY or REPOSITORY/NAME.
        listen: where the server listens.

    Raises:
        InputError: there is no repository, or nothing in it that can be served yet.
        MissingError: there is no server on this machine; the hint has the line that starts a container.
        StepError: the server did not start.
    """
    repository, folders = find_models(path)
    live = {model: latest for model in folders if (latest := _latest(model)) is not None}
    pending = tuple(model.name for model in folders if model not in live and versions_of(model))
    if not live:
        raise InputError(
            f"{path} has no version to serve" + (": its engines are still to be built" if pending else ""),
            hint="run convkit build on it where the GPU is" if pending else "publish one with convkit convert",
            code="serve.nothing",
        )
    config = config_name()
    names = [model.name for model in live]
    container = container_line(repository, listen, config, names if pending else ())
    hint = f"name the program with {VARIABLE}, pip install nvidia-pytriton, or start a container: {container}"
    program = find_program("convkit serve", hint=hint)
    with Server(repository, config_name=config, load=names, listen=listen, program=program) as server:
        at = server.listens
        yield (
            server,
            Serving(
                repository=str(repository),
                http=f"http://{_reachable(at.host)}:{at.http}",
                grpc=f"{_reachable(at.host)}:{at.grpc}",
                metrics=None if at.metrics is None else f"http://{_reachable(at.host)}:{at.metrics}/metrics",
                config=config,
                pid=server.pid,
                models=tuple(
                    _described(model.name, version, f"http://{_reachable(at.host)}:{at.http}")
                    for model, version in live.items()
                ),
                pending=pending,
            ),
        )


def container_line(repository: Path, listen: Listen, config: str | None, only: Sequence[str] = ()) -> str:
    """Return the command that serves a repository in a container of Triton's newest release that convkit knows.

    Args:
        repository: the model repository.
        listen: where the container listens.
        config: the configuration to prefer; None where there is a GPU.
        only: the models to load; empty: all.
    """
    ports = [(listen.http, 8000), (listen.grpc, 8001), *([] if listen.metrics is None else [(listen.metrics, 8002)])]
    words = ["docker", "run", "--rm", *([] if config else ["--gpus=all"])]
    for port, inside in ports:
        words += ["-p", f"{listen.host}:{port or inside}:{inside}"]
    words += ["-v", f"{repository}:/models:ro", _IMAGE.format(newest().name)]
    words += ["tritonserver", "--model-repository=/models"]
    words += [*(["--model-control-mode=explicit"] if only else []), *(f"--load-model={name}" for name in only)]
    return shlex.join([*words, *([f"--model-config-name={config}"] if config else [])])


def _latest(model: Path) -> Version | None:
    """Return the live version with the highest number; None where the model has none, or no configuration."""
    live = [version for version in versions_of(model) if not version.pending]
    return live[-1] if live and (model / CONFIG).is_file() else None


def _reachable(host: str) -> str:
    return "localhost" if host in ("0.0.0.0", "127.0.0.1") else host  # noqa: S104 - all of them


class _Client(msgspec.Struct):
    curl: str


class _Report(msgspec.Struct):
    client: _Client | None = None


def _described(name: str, version: Version, url: str) -> ServedModel:
    """Return how to ask a model: what its records hold for that, with this server's URL."""
    script, curl = version.records / SCRIPT, None
    with contextlib.suppress(OSError, *NOT_JSON):  # no report, or not one of convkit's
        client = msgspec.json.decode((version.records / "report.json").read_bytes(), type=_Report).client
        curl = shlex.join(_moved(shlex.split(client.curl), version.records, url)) if client else None
    command = shlex.join(["python", str(script), url]) if script.is_file() else None
    return ServedModel(name=name, version=version.number, client=command, curl=curl)


def _moved(words: Sequence[str], records: Path, url: str) -> list[str]:
    """Return a curl line's words for another server, to be run anywhere."""
    moved = [url + word.removeprefix(URL) if word.startswith(URL) else word for word in words]
    return [f"@{records / REQUEST}" if word == f"@{REQUEST}" else word for word in moved]
