"""The page in a browser: axe-core finds nothing to object to, and nothing is wider than the screen.

Needs chromium on PATH (`CHROMIUM` names one elsewhere), and axe-core: npm fetches it, or `AXE_CORE` names axe.min.js.
"""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from convkit.graph.operator_times import Ran, operator_times
from convkit.report.document import Accuracy, Profile, Report, Trial
from convkit.report.render import Format, render, render_all
from tests.report.samples import INT8, TORCH, failed_report, faster_report, slower_report, with_verdict

pytestmark = pytest.mark.soak

AXE = "axe-core@4.14.1"
WIDTHS = (360, 800, 1400)

PROBE = """
<script>{axe}</script>
<script>
document.querySelectorAll("details").forEach(details => details.open = true);
axe.run(document, {{resultTypes: ["violations"]}}).then(found => parent.postMessage(JSON.stringify({{
  width: innerWidth,
  overflow: document.documentElement.scrollWidth - innerWidth,
  dark: matchMedia("(prefers-color-scheme: dark)").matches,
  passes: found.passes.length,
  violations: found.violations.map(each => each.id + ": " + each.nodes[0].html),
}}), "*"));
</script>
"""
FRAMES = """<!doctype html><title>frames</title><body>
<script>addEventListener("message", told => {{
  const line = document.createElement("pre"); line.textContent = told.data; document.body.append(line);
}});</script>{frames}"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("there is no chromium on PATH; CHROMIUM names one elsewhere")
    return found


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    if "AXE_CORE" in os.environ:
        return Path(os.environ["AXE_CORE"]).read_text(encoding="utf-8")
    if shutil.which("npm") is None:
        pytest.skip("there is no npm to fetch axe-core with; AXE_CORE names its axe.min.js")
    folder = tmp_path_factory.mktemp("axe")
    packed = subprocess.run(["npm", "pack", "--silent", AXE], cwd=folder, check=True, capture_output=True, timeout=300)
    with tarfile.open(folder / packed.stdout.decode().split()[-1]) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()


def searched_report() -> Report:
    """Return a report with a search, profiles and an accuracy: every drawing that there is."""
    trials = tuple(
        Trial(what=f"way {number}", value=0.9 + number / 100, drop=0.05, latency_ms=1.0 + number, passed=number > 1)
        for number in range(4)
    )
    runs = [
        Ran(f"layer.{number}/with/a/long/name/{'deep/' * number}Conv", "Conv", 1.0 + number) for number in range(10)
    ]
    times = operator_times(runs, calls=1, seen_by="ONNX Runtime", written={"Conv": 12}, ran={"Conv": 10})
    return with_verdict(
        faster_report(),
        trials=trials,
        accuracy=Accuracy(metric="top1", samples=450, source=0.98, final=0.93, drop=0.05, max_drop=0.07),
        profiles=(Profile(label=TORCH, times=times), Profile(label=INT8, times=times)),
    )


PAGES: dict[str, Callable[[], str]] = {
    "everything": lambda: render(searched_report(), Format.HTML),
    "slower": lambda: render(slower_report(), Format.HTML),
    "failed": lambda: render(failed_report(), Format.HTML),
    "several": lambda: render_all([faster_report(), slower_report()], Format.HTML),
}


def looked_at(page: str, *, browser: str, axe: str, dark: bool, folder: Path) -> list[dict[str, Any]]:
    """Return what a browser and axe-core tell of a page, at each width."""
    open_to_scripts = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    probed = open_to_scripts.replace("</body>", PROBE.format(axe=axe) + "</body>")
    frames = "".join(
        f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{html.escape(probed)}"></iframe>'
        for width in WIDTHS
    )
    (folder / "frames.html").write_text(FRAMES.format(frames=frames), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=60000"]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--window-size=1500,2800", "--dump-dom"]
    dumped = subprocess.run(
        [*command, (folder / "frames.html").as_uri()], check=True, capture_output=True, timeout=300
    ).stdout.decode()
    lines = re.findall(r"<pre>(.*?)</pre>", dumped.rpartition("</iframe>")[2], re.DOTALL)
    return [msgspec.json.decode(html.unescape(line)) for line in lines]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("page", list(PAGES))
def test_a_checker_of_accessibility_objects_to_nothing_and_nothing_is_cut_off(
    page: str, dark: bool, browser: str, axe: str, tmp_path: Path
) -> None:
    told = looked_at(PAGES[page](), browser=browser, axe=axe, dark=dark, folder=tmp_path)

    assert sorted(each["width"] for each in told) == list(WIDTHS)
    for each in told:
        assert each["dark"] is dark
        assert each["violations"] == []
        assert each["overflow"] <= 0
        assert each["passes"] > 20


def test_the_checker_would_find_an_image_without_a_name(browser: str, axe: str, tmp_path: Path) -> None:
    page = render(faster_report(), Format.HTML).replace("<h1>", '<img src="data:,"><h1>')

    told = looked_at(page, browser=browser, axe=axe, dark=False, folder=tmp_path)

    assert all(any("image-alt" in violation for violation in each["violations"]) for each in told)
