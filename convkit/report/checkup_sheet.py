"""A checkup as sections of text."""

from __future__ import annotations

from collections.abc import Iterator

from convkit.report import units
from convkit.report.checkup import Checkup, Part
from convkit.report.section import Section, Table, facts, plain_section


def sections(found: Checkup) -> Iterator[Section]:
    """Lay a checkup out."""
    for section in _sections(found):
        yield plain_section(section)


def verdict(found: Checkup) -> str:
    """Say in one line what can be converted."""
    if found.exit_code:
        return "FAILED: nothing can be converted here"
    sources = [part.name for part in found.parts if part.ready and part.name in ("onnx", "torch", "tensorflow")]
    return f"convkit {found.convkit} converts {', '.join(sources)} models here"


def _sections(found: Checkup) -> Iterator[Section]:
    yield Section(key="machine", title="Machine", table=_machine(found))
    yield Section(
        key="parts",
        title="Extras",
        table=Table(
            columns=("", "for", "here"),
            rows=tuple((part.name, part.does, _state(part, told=found.parts[:1])) for part in found.parts),
            align="lll",
        ),
    )
    missing = [part for part in found.parts if not part.ready]
    if missing:
        yield Section(
            key="install",
            title="What brings the rest",
            table=facts(*((part.name, part.install) for part in missing)),
        )
    rows = [(f"{reader.name} {reader.version}", reader.reads) for reader in found.readers]
    if found.server is not None and found.server.reads is not None:
        rows.append((f"Triton {found.server.release}", found.server.reads))
    if rows:
        yield Section(key="readers", title="What is read", table=facts(*rows))
    for trap in found.traps:
        yield Section(
            key="trap",
            title=f"{'FAILED: ' if trap.severe else 'Beware: '}{trap.name}",
            lines=(f"{trap.what}.", f"→ {trap.hint}"),
        )


def _machine(found: Checkup) -> Table:
    system, cache = found.system, found.cache
    of = f" of {system.cores_of_machine}" if system.cores != system.cores_of_machine else ""
    owner = f", as {system.memory_owner} allows" if system.memory_owner != "the machine" else ""
    gpu = None
    if found.gpu is not None:
        gpu = f"{found.gpu.name}, compute capability {found.gpu.compute_capability}, driver for CUDA {found.gpu.cuda}"
    return facts(
        ("convkit", f"{found.convkit}, Python {system.python}, {system.os}"),
        ("processor", f"{system.cpu}, {system.cores}{of} cores"),
        ("memory", f"{units.size(system.memory_bytes)}{owner}"),
        ("GPU", gpu or f"none: {found.gpu_absent}"),
        ("isolation", _isolation(found)),
        ("Triton", _server(found)),
        ("cache", f"{cache.path}, {units.size(cache.free_bytes)} free"),
    )


def _isolation(found: Checkup) -> str:
    if found.isolation.off:
        return "off, by CONVKIT_ISOLATION"
    writes = "writes held (Landlock)" if found.isolation.writes else "writes NOT held: no Landlock"
    network = "network out of reach" if found.isolation.network else "network NOT out of reach: no user namespaces"
    return f"{writes}, {network}"


def _server(found: Checkup) -> str:
    if found.server is None:
        return "no server found; it is needed by convkit check --serve alone"
    named = f" {found.server.release}" if found.server.release else ""
    backends = f", with {', '.join(found.server.backends)}" if found.server.backends else ""
    return f"{found.server.program}{named}{backends}"


def _state(part: Part, *, told: tuple[Part, ...]) -> str:
    """Say what of an extra is here; what it shares with those that were `told` of stands there alone."""
    shared = {name for other in told if other.name != part.name for name in other.installed}
    here = ", ".join(f"{name} {version}" for name, version in part.installed.items() if name not in shared)
    if part.ready:
        return here or "yes"
    missing = f"missing: {', '.join(part.missing)}"
    return f"{missing}; here: {here}" if here else missing
