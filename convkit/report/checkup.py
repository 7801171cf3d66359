"""What `convkit doctor` finds on a machine, as one typed document."""

from __future__ import annotations

import msgspec

from convkit.targets.cuda_driver import Gpu


class System(msgspec.Struct, frozen=True, kw_only=True):
    """The machine, as far as this process may use it."""

    os: str
    python: str
    cpu: str
    cores: int
    """Processors that this process may use: affinity and control groups count."""
    cores_of_machine: int
    memory_bytes: int
    """Memory that this process may use."""
    memory_owner: str
    """``the machine``, or the control group that sets the limit."""


class Isolation(msgspec.Struct, frozen=True, kw_only=True):
    """What code under trust is cut off from."""

    writes: bool
    """Landlock holds it to its scratch space."""
    network: bool
    """A network namespace of its own."""
    off: bool
    """CONVKIT_ISOLATION=off says not to."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Something that convkit can do where its extra is installed."""

    name: str
    """The extra's name."""
    does: str
    ready: bool
    installed: dict[str, str]
    """Distributions with their versions."""
    missing: tuple[str, ...]
    """What the extra asks for and is not here, or too old."""
    install: str | None
    """The command that brings it; None where it is here."""


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """A runtime that is here, and what it reads."""

    name: str
    version: str
    reads: str


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A Triton server that was found."""

    program: str
    release: str | None
    """Such as ``26.06``; None where neither the container nor the wheel says."""
    backends: tuple[str, ...]
    reads: str | None = None
    """What of ONNX and TensorRT a server of that release reads."""


class CacheFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Where results are remembered."""

    path: str
    free_bytes: int | None
    writable: bool


class Trap(msgspec.Struct, frozen=True, kw_only=True):
    """Something known to go wrong."""

    name: str
    what: str
    hint: str
    severe: bool
    """What convkit needs for any conversion is broken by it."""


class Checkup(msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="convkit.checkup/1"):
    """What `convkit doctor --json` prints."""

    status: str
    """``ok``, or ``failed`` where nothing can be converted."""
    exit_code: int
    convkit: str
    system: System
    isolation: Isolation
    gpu: Gpu | None
    gpu_absent: str | None
    """Why there is no GPU."""
    parts: tuple[Part, ...]
    readers: tuple[Reader, ...]
    server: Server | None
    cache: CacheFacts
    traps: tuple[Trap, ...]
