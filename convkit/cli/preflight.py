"""How `convkit check MODEL` shows what it found."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from convkit.preflighting import Preflight, Repairs
from convkit.report import units
from convkit.report.lines import wrapped
from convkit.targets.finding import Finding, Weight

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {Weight.ERROR: "bold red", Weight.WARNING: "yellow", Weight.NOTE: "dim"}
_MOST_NODES = 4
_WIDEST_NODE = 30


def show(result: Preflight) -> None:
    """Write the verdict: what is wrong, node by node, what mends it, and what has been mended."""
    from rich.console import Console

    console = Console(
        width=shutil.get_terminal_size((100, 24)).columns,
        no_color=not sys.stdout.isatty(),
        highlight=False,
        markup=False,
        emoji=False,
    )
    _say(console, f"{result.model} for {result.target}, judged by {' and '.join(result.judges)}")
    _show_findings(console, result.findings)
    if result.repairs is not None:
        _show_repairs(console, result.repairs)
    _say(console, _verdict(result))


def _say(console: Console, sentence: str) -> None:
    """Print a sentence, which may hold a path."""
    console.print(wrapped(sentence, console.width), soft_wrap=True)


def _show_findings(console: Console, findings: Sequence[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    for weight, style in _STYLES.items():
        groups = _grouped([finding for finding in findings if finding.severity is weight])
        if not groups:
            continue
        table = Table(box=None, show_header=False, padding=(0, 2, 1, 0), pad_edge=False)
        table.add_column(overflow="fold", max_width=min(_WIDEST_NODE, console.width // 3))
        table.add_column(overflow="fold", ratio=1)
        for group in groups:
            first = group[0]
            names = [each.node for each in group[:_MOST_NODES]]
            more = [f"and {len(group) - _MOST_NODES} more"] if len(group) > _MOST_NODES else []
            where = Text("\n".join(names), style=style)
            where.append("\n" + "\n".join((*more, first.operator)), style="dim")
            what = Text(first.reason)
            what.append(f"\n→ {first.fix}")
            if first.mend:
                what.append("  (--fix does it)", style="dim")
            table.add_row(where, what)
        console.print()
        console.print(Text(_count(sum(map(len, groups)), weight.value), style=style))
        console.print(table)


def _grouped(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Put findings that say the same of different nodes together."""
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.operator, finding.reason, finding.fix), []).append(finding)
    return list(groups.values())


def _show_repairs(console: Console, repairs: Repairs) -> None:
    console.print()
    if repairs.recipe:
        _say(console, f"The shapes assumed are in {repairs.recipe}: correct them, and give it to convert --recipe")
    if not repairs.made:
        _say(console, "Nothing of it can be mended mechanically." if repairs.left else "Nothing is to be mended.")
        return
    _say(console, f"Mended, in {repairs.path}")
    for repair in repairs.made:
        nodes = ", ".join(repair.nodes[:_MOST_NODES]) + (", ..." if len(repair.nodes) > _MOST_NODES else "")
        _say(console, f"  {nodes}: {repair.what}")
    if repairs.left:
        console.print("\nLeft in it")
        _show_findings(console, repairs.left)
    console.print()
    _say(console, _numbers(repairs))


def _numbers(repairs: Repairs) -> str:
    numbers = repairs.numbers
    if numbers is None or not numbers.compared:
        return f"Numbers not compared: {numbers.why_not if numbers is not None else ''}"
    worst = max(numbers.outputs, key=lambda output: output.max_abs or 0.0)
    ratio = "" if worst.sqnr_db is None else f", SQNR {worst.sqnr_db:.1f} dB"
    said = "Numbers agree" if numbers.passed else "NUMBERS DIFFER"
    largest = f"largest difference {units.difference(worst.max_abs)}{ratio}"
    return f"{said} with the model as it came, in ONNX Runtime: {largest} (asked for: {numbers.tolerance})"


def _verdict(result: Preflight) -> str:
    left = result.findings if result.repairs is None else result.repairs.left
    counts = {weight: sum(finding.severity is weight for finding in left) for weight in Weight}
    said = ", ".join(_count(number, weight.value) for weight, number in counts.items() if number)
    subject = result.model if result.repairs is None or not result.repairs.path else result.repairs.path
    if counts[Weight.ERROR]:
        able = sum(bool(finding.mend) for finding in left) if result.repairs is None else 0
        hint = f"; --fix mends {able} of them" if able else ""
        return f"\n{subject}: {result.target} does not take it: {said}{hint}"
    if result.exit_code:
        return f"\n{subject}: {result.target} takes it, and its numbers differ"
    return f"\n{subject}: nothing stands against {result.target}" + (f" ({said})" if said else "")


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"
