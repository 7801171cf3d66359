"""Every example of docs/api.md is run, in order, as one who copies it would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.M | re.S)

SAYS = (
    r"ok models/digits_cnn 1\n.*ONNX FP32: \d+\.\d\d times as fast as torch",
    r"True \[\d+",
    r"model\.py.*\n.*--trust.*\n--quantize: 'int9' is none of the choices - choose one of none",
    r"Simplify.*: \d+\.\d s",
    r"digits_cnn ok\ndigits_cnn_int8 ok\ndigits_keras ok\nrepository: \[\]\ndigits_cnn none\ndigits_cnn_int8 int8\n",
    r"TensorRT|digits_cnn built",
)
"""What each example prints."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    for name in ("sample_models", "recipes"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def test_every_example_says_something_that_is_held() -> None:
    assert len(EXAMPLES) == len(SAYS)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_does_what_it_says(number: int, folder: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CONVKIT_", "SOURCE_MODEL"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", EXAMPLES[number]],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**kept, "CONVKIT_CACHE_DIR": str(folder / "everyone")},
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(SAYS[number], done.stdout, re.S), done.stdout
