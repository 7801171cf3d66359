"""What a result depends on besides its inputs: convkit's own code, libraries, and for measurements the machine."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import platform
import sys
from pathlib import Path

from convkit.pipeline.allowance import cores
from convkit.pipeline.artifact import digest_bytes

_PACKAGE = Path(__file__).parents[1]
_WITHOUT_RESULTS = ("cli", "report", "__pycache__")  # rooms that no step's result depends on
_IN_PARTS = {"tensorrt": ("tensorrt-cu13-bindings", "tensorrt-cu12-bindings")}  # over the libraries of a container


@functools.cache
def code_digest() -> str:
    """Return the digest of convkit's own source, so that another convkit never takes this one's results."""
    whole = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        relative = path.relative_to(_PACKAGE)
        if relative.parts[0] not in _WITHOUT_RESULTS:
            whole.update(f"{relative.as_posix()}\n".encode() + path.read_bytes())
    return "sha256:" + whole.hexdigest()


@functools.cache
def others_code_digest(module: str) -> str:
    """Return the digest of the source of the package that a step of someone else's is in."""
    top = module.partition(".")[0]
    spec = importlib.util.find_spec(top)
    roots = [Path(root) for root in spec.submodule_search_locations or ()] if spec else []
    files = [(path.relative_to(root).as_posix(), path) for root in roots for path in sorted(root.rglob("*.py"))]
    if spec and spec.origin and not files:
        files = [(Path(spec.origin).name, Path(spec.origin))]
    return digest_bytes(b"".join(f"{name}\n".encode() + path.read_bytes() for name, path in files))


@functools.cache
def library_version(distribution: str) -> str:
    """Return an installed distribution's version, or ``absent``."""
    for name in (distribution, *_IN_PARTS.get(distribution, ())):
        try:
            return importlib.metadata.version(name)
        except (importlib.metadata.PackageNotFoundError, ValueError):  # the latter: it is no name at all
            continue
    return "absent"


def library_versions(distributions: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of the named distributions and of Python."""
    versions = {name: library_version(name) for name in sorted(set(distributions))}
    return {**versions, "python": f"{sys.version_info.major}.{sys.version_info.minor}"}


@functools.cache
def cpu_name() -> str:
    """Return the processor's name as the kernel gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


@functools.cache
def machine_digest() -> str:
    """Return the digest of what a measurement depends on: processor, its flags, cores, system."""
    flags = ""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        pass
    facts = [cpu_name(), flags, str(cores()), platform.system(), platform.machine()]
    return digest_bytes("\n".join(facts).encode())
