"""An inspection as sections of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from convkit.report import units
from convkit.report.inspection import DynamicDim, Inspection, LeftOut, Roofline, TensorFacts, Work
from convkit.report.section import Section, Table, facts, plain_section

_MOST_OPERATORS = 12
_MOST_RUNS = 12


def sections(told: Inspection) -> Iterator[Section]:
    """Lay an inspection out."""
    for section in _sections(told):
        yield plain_section(section)


def _sections(told: Inspection) -> Iterator[Section]:
    yield Section(key="model", title=told.name, table=_model(told))
    if told.inputs or told.outputs:
        yield Section(key="signature", title="Inputs and outputs", table=_tensors(told.inputs, told.outputs))
    elif told.arguments:
        line = f"forward takes {', '.join(told.arguments)}; of which types and shapes, the file does not say."
        yield Section(key="signature", title="Inputs and outputs", lines=(line,))
    if len(told.signatures) > 1 or (told.signatures and not told.inputs):
        for signature in told.signatures:
            yield Section(
                key="signature",
                title=f"Signature {signature.name}",
                table=_tensors(signature.inputs, signature.outputs),
            )
    if told.dynamic:
        yield Section(key="dynamic", title="Dynamic dimensions", table=_dynamic(told.dynamic))
    if told.graph is None and told.stored is not None:
        rows = tuple((each.name, each.dtype or units.NOTHING, _dims(each.dims)) for each in told.stored.largest)
        yield Section(
            key="stored",
            title="Largest tensors of the file",
            table=Table(columns=("", "type", "dims"), rows=rows, align="lll"),
        )
    if told.graph is not None:
        yield Section(key="operators", title="Operators", table=_operators(told))
    if told.work is not None:
        yield Section(
            key="work", title=f"One call: {_shapes(told.work)}", table=_work(told.work), lines=_bound(told.roofline)
        )
    if told.untrusted:
        yield _untrusted(told)
    if told.left_out:
        yield Section(
            key="left-out",
            title="Not told",
            lines=tuple(f"{each.what}: {_why(each)}. → {each.hint}" for each in told.left_out),
        )


def _model(told: Inspection) -> Table:
    published, engine = told.published, told.engine
    version = None
    if published is not None and published.version is not None:
        version = f"{published.version}{', its engine still to be built' if published.pending else ''}"
    made = None
    if published is not None and published.target is not None:
        made = (
            published.target if published.precision in (None, "none") else f"{published.target} {published.precision}"
        )
    stored = told.stored if told.parameters is None else None
    return facts(
        ("kind", ", ".join(filter(None, (told.kind, told.framework)))),
        ("model", told.model),
        ("version", version),
        ("made for", made),
        ("published", published.created if published is not None else None),
        ("served by", published.backend if published is not None else None),
        ("engine", _engine(told)),
        ("built for", engine.gpu if engine is not None else None),
        ("files", f"{len(told.files)}, {units.size(sum(told.files.values()))}" if told.files else None),
        ("config.txt", _short(told.config) if told.config else None),
        ("parameters", units.count(told.parameters) if told.parameters is not None else None),
        ("stored", f"{units.count(stored.elements)} numbers in {stored.tensors} tensors" if stored else None),
        ("weights", units.size(told.weight_bytes) if told.weight_bytes is not None else None),
        ("largest batch", _batch(told.max_batch_size)),
        ("written to", told.draft),
    )


def _engine(told: Inspection) -> str | None:
    if told.engine is None:
        return None
    built = f"{told.engine.flavour or 'of unknown format'} {told.engine.version or ''}".strip()
    layers = f", {told.engine.layers} layers" if told.engine.layers is not None else ""
    return f"{built}, {units.size(told.engine.bytes)}{layers}"


def _batch(size: int | None) -> str | None:
    if size is None:
        return None
    return str(size) if size else "0: dims are sent as they are"


def _tensors(inputs: Sequence[TensorFacts], outputs: Sequence[TensorFacts]) -> Table:
    rows = [
        (side if number == 0 else "", each.name, each.dtype or units.NOTHING, _dims(each.dims), each.tensor or "")
        for side, tensors in (("in", inputs), ("out", outputs))
        for number, each in enumerate(tensors)
    ]
    if any(row[-1] for row in rows):
        return Table(columns=("", "name", "type", "dims", "tensor"), rows=tuple(rows), align="lllll")
    return Table(columns=("", "name", "type", "dims"), rows=tuple(row[:-1] for row in rows), align="llll")


def _dims(dims: Sequence[int | str] | None) -> str:
    return units.NOTHING if dims is None else f"[{', '.join(map(str, dims))}]"


def _dynamic(dims: Sequence[DynamicDim]) -> Table:
    def bounds(dim: DynamicDim) -> str:
        if dim.low is None and dim.high is None:
            return "any size"
        return f"{dim.low if dim.low is not None else 1} to {dim.high if dim.high is not None else 'any size'}"

    return facts(*((dim.name, f"{bounds(dim)}: {', '.join(dim.places)}") for dim in dims))


def _operators(told: Inspection) -> Table:
    assert told.graph is not None
    macs = told.work.macs_by_operator if told.work is not None else {}
    total = sum(macs.values())
    shown = list(told.graph.operators.items())
    ordered = sorted(shown, key=lambda item: (-macs.get(item[0], 0), -item[1], item[0]))
    rows = [
        (name, units.count(number), f"{100 * macs[name] / total:.1f} %" if macs.get(name) and total else "")
        for name, number in ordered[:_MOST_OPERATORS]
    ]
    if rest := ordered[_MOST_OPERATORS:]:
        rows.append((f"{len(rest)} other types", units.count(sum(number for _, number in rest)), ""))
    rows.append(("all", units.count(told.graph.nodes), ""))
    return Table(columns=("", "nodes", "of the work"), rows=tuple(rows), align="lrr")


def _shapes(work: Work) -> str:
    return ", ".join(f"{name} {_dims(shape)}" for name, shape in work.shapes.items())


def _work(work: Work) -> Table:
    kinds = ", ".join(f"{units.count(count)} in {name}" for name, count in work.macs_by_precision.items())
    several = len(work.macs_by_precision) > 1 or "fp32" not in work.macs_by_precision
    return facts(
        ("multiply-accumulates", f"{units.count(work.macs)}{f': {kinds}' if several and kinds else ''}"),
        ("bytes moved", f"{units.size(work.bytes_moved)}, of which {units.size(work.bytes_least)} in any case"),
        ("arithmetic intensity", f"{units.significant(work.intensity)} FLOP/byte"),
    )


def _bound(roofline: Roofline | None) -> tuple[str, ...]:
    if roofline is None:
        return ()
    computes = f"{units.significant(roofline.flops / 1e9)} GFLOP/s in FP32"
    moves = f"{units.significant(roofline.bytes_per_s / 1e9)} GB/s"
    threads = f"{roofline.threads} thread{'s' * (roofline.threads != 1)}"
    return (
        f"Bound by {roofline.bound} on this machine's CPU, where the line is at {units.significant(roofline.ridge)} "
        f"FLOP/byte: it reaches {computes} and {moves} with {threads}, measured shortly. "
        f"A call in FP32 takes {units.milliseconds(roofline.least_ms)} at the least.",
    )


def _untrusted(told: Inspection) -> Section:
    rows = tuple((_short(each.path), _listed(each.runs)) for each in told.untrusted)
    line = "It may run, as --trust says." if told.trusted else "Nothing of it has run."
    return Section(
        key="untrusted",
        title="Runs code when it is loaded",
        lines=(line,),
        table=Table(columns=("file", "imports or calls"), rows=rows, align="ll"),
    )


def _listed(runs: Sequence[str]) -> str:
    more = f" and {len(runs) - _MOST_RUNS} more" if len(runs) > _MOST_RUNS else ""
    return ", ".join(runs[:_MOST_RUNS]) + more


def _why(left_out: LeftOut) -> str:
    return "the code named above would run" if left_out.code == "trust.required" else left_out.why.rstrip(".")


def _short(path: str) -> str:
    """Return a path as it is named from here, where it lies below."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path
