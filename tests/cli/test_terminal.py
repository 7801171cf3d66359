"""What a person at a narrow terminal sees: bars that move, a question where code would run, and no line that breaks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from sources.torch_models import LOADER, NETWORK

from cli.program import PROGRAM, Program
from cli.terminal import Shown, on_screen, run_in_terminal

FAST = ("--measure", "none")


def shown(convkit: Program, *arguments: object, **options: Any) -> Shown:
    command = [*PROGRAM, *map(str, arguments)]
    return run_in_terminal(command, environment=convkit.environment(), folder=convkit.folder, **options)


def test_the_screen_of_these_tests_is_that_of_a_terminal() -> None:
    assert on_screen("one\r\ntwo\x1b[1A\r\x1b[2Kthree\n", 10) == ["three", "two"]
    assert on_screen("abcdefghijklm", 10) == ["abcdefghij", "klm"]


def test_each_step_has_one_line_with_a_bar_and_the_summary_follows(convkit: Program, net: Path, tmp_path: Path) -> None:
    convkit.cache = tmp_path / "cache"
    screen = shown(convkit, "convert", net, "-o", "models", *FAST)
    bars = [line for line in screen.lines if "━" in line]

    assert screen.status == 0
    assert [re.split(r"\s{2,}|━", line)[0].strip("✓ ") for line in bars] == [
        "Look for external data",
        "Read the ONNX model",
        "Check the numbers",
        "Simplify the graph",
        "Check the numbers",
        "Write the warm-up",
        "Write the client",
        "Publish",
    ]
    assert all(line.startswith("✓ ") for line in bars)
    assert all(re.search(r"\d:\d\d:\d\d$", line) for line in bars)  # none is cut off at the right
    assert sum("MiB" in line for line in bars) == 6
    assert sum("remembered" in line for line in bars) == 1
    assert screen.lines.index("net, version 1") > screen.lines.index(bars[-1])
    assert "\x1b[2K" in screen.written  # lines were drawn over


@pytest.mark.parametrize("columns", [60, 100])
def test_nothing_is_wider_than_the_screen(columns: int, convkit: Program, net: Path) -> None:
    screen = shown(convkit, "convert", net, "-o", "models", *FAST, columns=columns)
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.written))

    assert screen.status == 0
    assert max(map(len, lines)) <= columns


def test_remembered_steps_say_so(convkit: Program, net: Path) -> None:
    shown(convkit, "convert", net, "-o", "models", *FAST)
    screen = shown(convkit, "convert", net, "-o", "models", *FAST)
    bars = [line for line in screen.lines if "━" in line]

    assert sum("remembered" in line for line in bars) == len(bars) - 1
    assert any("UNCHANGED" in line for line in screen.lines)


def test_a_step_that_failed_is_told_from_those_that_ended_well(convkit: Program, unknown: Path) -> None:
    screen = shown(convkit, "convert", unknown, *FAST)
    [failed] = [line for line in screen.lines if "not finished" in line]

    assert screen.status == 4
    assert "Read the ONNX model" in failed
    assert "✓" not in failed
    assert any(line.startswith("error (source): ") for line in screen.lines)
    assert any(line.startswith("  hint: ") for line in screen.lines)


def test_a_warning_stands_above_the_bars(convkit: Program, net: Path) -> None:
    screen = shown(convkit, "convert", net, "-o", "models", "--opset", "18", *FAST)
    texts = "\n".join(screen.lines)

    assert "warning: opset 20 was converted to 18" in texts
    assert texts.index("warning:") < texts.index("━")


@pytest.fixture
def stranger(convkit: Program) -> Path:
    """A folder with a state dict (an empty one) and a model.py that says that it ran."""
    import json
    import pickle

    from sources.hostile import in_zip
    from sources.torch_models import ONE_INPUT

    folder = convkit.folder / "net"
    folder.mkdir()
    (folder / "model.py").write_text("raise KeyError('it ran')\n" + NETWORK + LOADER)
    (folder / "model.pth").write_bytes(in_zip(pickle.dumps({}, protocol=2)))
    (folder / "config.txt").write_text(json.dumps(ONE_INPUT))
    return folder


def test_on_a_terminal_trust_is_asked_for_and_no_is_the_answer_that_enter_gives(
    convkit: Program, stranger: Path
) -> None:
    screen = shown(convkit, "convert", stranger, *FAST, answers=(("Run it? [y/N]:", "\r"),))

    assert screen.status == 3
    assert "runs code when it is loaded" in screen.written
    assert "it ran" not in screen.written


def test_a_yes_runs_it(convkit: Program, stranger: Path) -> None:
    screen = shown(convkit, "convert", stranger, *FAST, answers=(("Run it? [y/N]:", "y\r"),))

    assert screen.status == 4
    assert "importing model.py raised KeyError: 'it ran'" in screen.written


def test_ctrl_c_at_the_question_is_an_interruption(convkit: Program, stranger: Path) -> None:
    screen = shown(convkit, "convert", stranger, *FAST, answers=(("Run it? [y/N]:", "\x03"),))

    assert screen.status == 130
    assert "convkit: interrupted" in "".join(screen.lines)
    assert "it ran" not in screen.written


@pytest.mark.parametrize("option", ["--quiet", "--json"])
def test_nobody_is_asked_where_nobody_is_told(option: str, convkit: Program, stranger: Path) -> None:
    screen = shown(convkit, "convert", stranger, option, *FAST)

    assert screen.status == 3
    assert "Run it?" not in screen.written
