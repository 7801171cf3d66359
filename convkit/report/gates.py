"""Gates in words: figures with their units, and the refusal of a result that missed one."""

from __future__ import annotations

from convkit.errors import CheckError
from convkit.graph.work import Work
from convkit.measure.gates import Found, Gate, Interval, Verdict
from convkit.measure.ratio import MIN_ROUNDS
from convkit.report import units
from convkit.report.document import Subject
from convkit.report.latency import Comparison, Latency
from convkit.report.verdict import busy

MISSED = (Verdict.FAILED, Verdict.INCONCLUSIVE)


def latency_interval(latency: Latency) -> Interval:
    """Return a subject's median latency, in ms, as gates are held against it."""
    enough = latency.rounds >= MIN_ROUNDS
    return Interval(
        value=latency.p50_ms, low=latency.low_ms, high=latency.high_ms, enough=enough, waited=(latency.waited, None)
    )


def speedup_interval(comparison: Comparison) -> Interval:
    """Return a speed-up as gates are held against it."""
    enough = comparison.rounds >= MIN_ROUNDS
    return Interval(
        value=comparison.speedup,
        low=comparison.low,
        high=comparison.high,
        enough=enough,
        waited=(comparison.before_waited, comparison.after_waited),
    )


def low_precision(subject: Subject, bits: int) -> float | None:
    """Return the share of a subject's multiply-accumulates in so many bits or fewer; None where nothing was counted."""
    return Work(macs=subject.macs).share(bits) if subject.macs else None


def asked(gate: Gate) -> str:
    """Return what a gate asks for, with its unit and direction: ``at most 5.00 ms``."""
    return f"{'at least' if gate.name.startswith('min-') else 'at most'} {_figure(gate, gate.asked)}"


def found(gate: Gate) -> str:
    """Return what was found, with its unit."""
    if gate.found is None:
        return "exact" if gate.name == "min-sqnr" and gate.verdict is Verdict.PASSED else units.NOTHING
    return _figure(gate, gate.found)


def missed(gates: tuple[Gate, ...]) -> tuple[Gate, ...]:
    """Return the gates that stand in the way of a publication."""
    return tuple(gate for gate in gates if gate.verdict in MISSED)


def timed(gates: tuple[Gate, ...]) -> bool:
    """Tell whether one of these gates is held against a measurement of time."""
    return any(gate.name in ("max-latency", "min-speedup") for gate in gates)


def refuse_missed(gates: tuple[Gate, ...], measured: Found) -> None:
    """Let a result pass that keeps all its gates.

    Raises:
        CheckError: it misses one, or one cannot be judged for sure; the message names gate, asked and found of each.
    """
    bad = missed(gates)
    if not bad:
        return
    message = "\n".join(sentence(gate, measured) for gate in bad)
    failed = any(gate.verdict is Verdict.FAILED for gate in bad)
    if failed:
        hint = "nothing was published; ask for less, or for another precision or target (--quantize, --to)"
        raise CheckError(message, hint=hint, code="gates.failed", stage="check")
    hint = "nothing was published; measure longer with --measure full on an idle machine, or move the limit"
    raise CheckError(message, hint=hint, code="gates.inconclusive", stage="check")


def sentence(gate: Gate, measured: Found | None = None) -> str:
    """Say what a gate asked for, what was found, and how it was judged."""
    if gate.verdict is Verdict.DEFERRED:
        return f"--{gate.name}: asked for {asked(gate)}; 'convkit build' judges it where the engine is built"
    if gate.found is None and gate.verdict is Verdict.INCONCLUSIVE:
        return f"--{gate.name}: asked for {asked(gate)}, and it could not be measured here"
    interval = _interval(gate, measured)
    return f"--{gate.name}: asked for {asked(gate)}, found {found(gate)}{interval}: {gate.verdict.value}"


def _interval(gate: Gate, measured: Found | None) -> str:
    if measured is None:
        return ""
    interval = {"max-latency": measured.latency_ms, "min-speedup": measured.speedup}.get(gate.name)
    if interval is None:
        return ""
    few = "" if interval.enough else f", from fewer than {MIN_ROUNDS} rounds"
    unsure = busy(*interval.waited) if gate.verdict is Verdict.INCONCLUSIVE else ""
    waits = f"; {unsure}" if unsure else ""
    return f" (95% interval {_figure(gate, interval.low)} to {_figure(gate, interval.high)}{few}{waits})"


def _figure(gate: Gate, value: float) -> str:
    match gate.name:
        case "max-latency":
            return units.milliseconds(value)
        case "max-size":
            return f"{int(value):,} B" if value < 1000 else f"{units.size(int(value))} ({int(value):,} B)"
        case "min-low-precision":
            return f"{100 * value:.4g} %"
        case "max-drop":
            return f"{value:.4g} ({100 * value:.4g} %)"
        case "min-speedup":
            return f"{units.ratio(value)} ×"
        case "min-sqnr":
            return f"{value:.4g} dB"
        case _:
            return units.difference(value)
