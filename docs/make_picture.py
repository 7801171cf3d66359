"""Make report.png, the picture of a report in README.md: a conversion, its report.html, a browser without a window.

    python docs/make_picture.py
    python docs/make_picture.py models/digits_mobile/1/convkit/report.html

Without a report a sample model is converted first, and its latency measured: on a machine that does nothing else,
please. Needs chromium (or `CHROMIUM`, the path of one) and the extra `images`.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "report.png"
WIDTH, HEIGHT = 1000, 760
"""Of the browser's window, CSS pixels: what stands above the fold. The picture has twice as many, to be sharp."""

MOST_BYTES = 200_000
COLOURS = 128

MODEL = "digits_mobile"
OPTIONS = ("--trust", "--quantize", "int8", "--max-drop", "1%", "--calibration-data", "calibration.npz")
OPTIONS += ("--eval-data", "heldout.npz", "--measure", "full")


def convert(folder: Path) -> Path:
    """Convert the sample model, and return its report."""
    model = ROOT / "sample_models" / MODEL
    options = [str(model / option) if option.endswith(".npz") else option for option in OPTIONS]
    command = [sys.executable, "-m", "convkit", "convert", str(model), *options, "--output", str(folder / "models")]
    subprocess.run(command, check=True, cwd=folder, env={**os.environ, "CONVKIT_CACHE_DIR": str(folder / "cache")})
    return folder / "models" / MODEL / "1" / "convkit" / "report.html"


def screenshot(report: Path, to: Path) -> None:
    """Draw the first screen of a report, light, as a PNG.

    Raises:
        SystemExit: there is no Chromium.
    """
    browser = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        raise SystemExit("there is no chromium on PATH; CHROMIUM names one elsewhere")
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--force-device-scale-factor=2",
    ]
    command += [f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={to}", report.resolve().as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    if not to.is_file():
        raise SystemExit(f"{browser} has drawn nothing of {report}")


def small(png: bytes) -> bytes:
    """Return the picture with few colours, which text on one ground does not miss."""
    from PIL import Image

    written = io.BytesIO()
    with Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(written, "PNG", optimize=True)
    return written.getvalue()


def main() -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        report = Path(sys.argv[1]) if len(sys.argv) > 1 else convert(folder)
        screenshot(report, folder / "report.png")
        picture = small((folder / "report.png").read_bytes())
    if len(picture) > MOST_BYTES:
        raise SystemExit(f"the picture takes {len(picture):,} bytes, more than {MOST_BYTES:,}")
    PICTURE.write_bytes(picture)
    sys.stderr.write(f"docs/{PICTURE.name}: {len(picture):,} bytes\n")


if __name__ == "__main__":
    main()
