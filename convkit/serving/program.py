"""The Triton server of this machine: where its program is, and what it has to be told to run."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from convkit.errors import MissingError
from convkit.serving import python_backends
from convkit.serving.python_backends import OnnxRuntimeModel, OpenVINOModel

VARIABLE = "CONVKIT_TRITONSERVER"
"""Names the server's program where it is not on PATH: it is given tritonserver's own arguments."""
_HINT = f"run convkit check in a Triton container, or name the program with {VARIABLE}"
_USUAL = Path("/opt/tritonserver/bin/tritonserver")
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where the kernel keeps it
BACKENDS = {"onnxruntime": OnnxRuntimeModel, "openvino": OpenVINOModel}
"""What the wheel's server loads through its Python backend."""


class Program(NamedTuple):
    """A server's program, and what it needs besides the arguments of a start."""

    path: Path
    wheel: Path | None = None
    """The folder of a wheel's server, which brings its Python backend alone."""
    python: Path = Path(sys.executable)
    """The Python that the wheel is installed in."""


class Start(NamedTuple):
    """What one start of a program takes."""

    arguments: tuple[str, ...] = ()
    variables: Mapping[str, str] = MappingProxyType({})
    shared_memory: str = ""
    """How the names of its shared memory begin; empty: it has none."""

    def clean_up(self) -> None:
        """Remove the shared memory that a server which was killed has left."""
        if self.shared_memory:
            for left in _SHARED_MEMORY.glob(f"{self.shared_memory}*"):
                left.unlink(missing_ok=True)


def find_server(asked: str = "--serve", *, hint: str = _HINT) -> Path:
    """Return the program of a Triton server: the one named, on PATH, or in a container's usual place.

    Args:
        asked: what needs it.
        hint: how to get one.

    Raises:
        MissingError: there is none.
    """
    named = os.environ.get(VARIABLE)
    found = shutil.which(named or "tritonserver") or (str(_USUAL) if not named and _USUAL.is_file() else None)
    if found is None:
        where = f"{VARIABLE} names {named}, which cannot be run" if named else "there is no tritonserver on PATH"
        raise MissingError(
            f"{asked} needs a Triton server: {where}",
            hint=hint,
            code="missing.tritonserver",
        )
    return Path(found).absolute()


def find_program(asked: str = "--serve", *, hint: str = _HINT) -> Program:
    """Return the program of `find_server`, else that of the package nvidia-pytriton.

    Raises:
        MissingError: there is neither.
    """
    try:
        return Program(find_server(asked, hint=hint))
    except MissingError:
        wheel = _wheel() if VARIABLE not in os.environ else None
        if wheel is None:
            raise
        return wheel


def _wheel() -> Program | None:
    """Return the server that the package nvidia-pytriton brings, where that is installed beside convkit."""
    spec = importlib.util.find_spec("pytriton")
    for folder in (spec and spec.submodule_search_locations) or ():
        server = Path(folder) / "tritonserver"
        if (server / "bin" / "tritonserver").is_file():
            return Program(server / "bin" / "tritonserver", wheel=server)
    return None


def prepare_start(program: Program, scratch: Path) -> Start:
    """Lay out what a start of the program needs.

    Args:
        program: as `find_server` gives it.
        scratch: an empty folder of the start's own.
    """
    if program.wheel is None:
        return Start()
    backends = scratch / "backends"
    version = "{}.{}".format(*sys.version_info[:2])
    stub = program.wheel / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copytree(program.wheel / "backends" / "python", backends / "python")  # a server follows no links out of it
    shutil.copy2(stub, backends / "python")
    for name, kind in BACKENDS.items():
        (backends / name).mkdir()
        text = Path(python_backends.__file__).read_text(encoding="utf-8")
        (backends / name / "model.py").write_text(f"{text}\n\nTritonPythonModel = {kind.__name__}\n", encoding="utf-8")
    prefix = f"convkit_{uuid.uuid4().hex[:12]}_"
    return Start(
        arguments=(
            f"--backend-directory={backends}",
            f"--backend-config=python,shm-region-prefix-name={prefix}",
        ),
        variables=_variables(program, program.wheel),
        shared_memory=prefix,
    )


def _variables(program: Program, wheel: Path) -> dict[str, str]:
    """Return under what the stub finds its libraries, and the Python that convkit is installed in."""
    libraries = (wheel.parents[1] / "nvidia_pytriton.libs", Path(str(sysconfig.get_config_var("LIBDIR"))))
    inherited = os.environ.get("LD_LIBRARY_PATH")
    return {
        "PATH": f"{program.python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "LD_LIBRARY_PATH": os.pathsep.join([*map(str, libraries), *([inherited] if inherited else [])]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
