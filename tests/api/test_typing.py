"""What a type checker makes of scripts that call convkit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

RIGHT = """
from pathlib import Path

import convkit


def watch(event: convkit.Event) -> None:
    print(event)


def main() -> int:
    try:
        report = convkit.convert(
            Path("model.pth"),
            to="onnxruntime",
            quantize={"precision": "int8", "data": Path("calibration")},
            trust=["sha256:00"],
            observer=watch,
            cache="cache",
        )
    except convkit.ConvkitError as error:
        print(error.message, error.hint, error.code)
        return int(error.exit_status)
    version: int | None = report.version
    speedups: list[float] = [comparison.speedup for comparison in report.comparisons]
    print(version, speedups, [built.engine for built in convkit.build("models")])
    return report.exit_code
"""

WRONG = {
    'convkit.convert("m", quantise={"precision": "int8"})': 'Unexpected keyword argument "quantise"',
    'convkit.convert("m", quantize="int8")': 'Argument "quantize" to "convert" has incompatible type',
    "convkit.convert(3)": 'Argument 1 to "convert" has incompatible type',
    'convkit.convert("m").versoin': '"Report" has no attribute "versoin"',
    "convkit.transmogrify": 'Module has no attribute "transmogrify"',
}


def mypy(*scripts: Path) -> list[str]:
    """Return the errors, without convkit's own configuration but for the libraries that it leaves alone."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", ROOT / "pyproject.toml", *scripts]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=ROOT)
    return [line for line in done.stdout.splitlines() if ": error: " in line]


def test_a_script_that_is_right_passes_and_each_mistake_is_seen(tmp_path: Path) -> None:
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(RIGHT, encoding="utf-8")
    wrong.write_text("import convkit\n" + "\n".join(WRONG) + "\n", encoding="utf-8")

    found = mypy(right, wrong)

    assert [line for line in found if "right.py" in line] == []
    for number, expected in enumerate(WRONG.values(), start=2):
        assert any(f"wrong.py:{number}: " in line and expected in line for line in found), (expected, found)
