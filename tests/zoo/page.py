"""docs/zoo.md, from what became of each class."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from zoo.convert import Outcome

MOST_TEXT = 480
MARK = r" \*"
"""Behind the name of a class whose weights are not those that it draws."""
WANTED = 0.95
"""The share of the classes that can be made tiny which have to be converted."""


def share(outcomes: Sequence[Outcome]) -> float:
    """Return how many of the classes that could be made were converted."""
    tried = [each for each in outcomes if each.verdict != "not tiny"]
    return sum(each.verdict == "converted" for each in tried) / max(len(tried), 1)


def write_page(path: Path, outcomes: Sequence[Outcome], *, of: int) -> None:
    """Write the table; `of`: how many classes there are."""
    path.write_text(page(outcomes, of=of), encoding="utf-8")


def page(outcomes: Sequence[Outcome], *, of: int) -> str:
    """Return the table as Markdown."""
    count = Counter(each.verdict for each in outcomes)
    tried = len(outcomes) - count["not tiny"]
    failed = [each for each in outcomes if each.verdict in ("refused", "crashed")]
    roads = Counter(each.road.removeprefix("torch.onnx.export, ") for each in outcomes if each.verdict == "converted")
    versions = " · ".join(f"{name} {version(name)}" for name in ("transformers", "torch", "onnxscript", "onnxruntime"))
    drawn = ", drawn at random" if len(outcomes) < of else ""
    lines = [
        "# The zoo",
        "",
        "<!-- Written by `make zoo`; do not edit. -->",
        "",
        "Encoder and vision classes of transformers, tiny and with random weights, saved whole as a `.pth` and put",
        "through convkit's steps: exported, compared with PyTorch at two sizes of every free dimension, simplified and",
        "written for TensorRT, compared again, parsed by TensorRT-RTX.",
        "",
        f"{versions}.",
        "",
        f"Of {of} classes {len(outcomes)} were tried{drawn}; {count['not tiny']} of",
        "them could not be made tiny without knowing more of them than their configuration.",
        f"**{count['converted']} of the other {tried} were converted: {share(outcomes):.1%}.** By road: "
        + ", ".join(f"{road} {number}" for road, number in roads.most_common())
        + ".",
        "",
        *_drawn_again(outcomes),
        "## Not converted",
        "",
        "| class | at | error |",
        "|---|---|---|",
        *(f"| {_marked(each)} | {each.stage} | {_cell(each.message)} |" for each in failed),
        "",
        "## Converted",
        "",
        "| class | parameters | free dimensions | cases | nodes |",
        "|---|---|---|---|---|",
        *(
            f"| {_marked(each)} | {each.parameters} | {each.free} | {each.cases} | {each.operators} |"
            for each in outcomes
            if each.verdict == "converted"
        ),
        "",
        "## Not to be had tiny",
        "",
        ", ".join(each.name for each in outcomes if each.verdict == "not tiny") or "None.",
        "",
    ]
    return "\n".join(lines)


def _marked(outcome: Outcome) -> str:
    return outcome.name + MARK * outcome.drawn_again


def _drawn_again(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the paragraph on networks whose weights are not those that their class draws."""
    drawn = [each for each in outcomes if each.drawn_again]
    if not drawn:
        return []
    passed = sum(each.verdict == "converted" for each in drawn)
    return [
        f"Of {len(drawn)} of them (with a{MARK}), of which {passed} were converted, the weights are drawn anew before",
        "the export, with a variance that keeps an image's own. As their class draws them the image fades on its way,",
        "and PyTorch's own answers in float32 and in float64 differ by more than 0.3 of convkit's tolerance: rounding",
        "alone could fail the check then, whoever converts.",
        "",
    ]


def _cell(text: str) -> str:
    last = text.strip().splitlines()[-1] if "Traceback" in text else text
    short = re.sub(r"\S*/(?=[\w.-]+\.py)", "", " ".join(last.split())).replace("|", "\\|")
    return short if len(short) <= MOST_TEXT else f"{short[: MOST_TEXT // 3]} … {short[-MOST_TEXT * 2 // 3 :]}"
