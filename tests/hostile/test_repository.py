"""`convkit check` and `convkit report` on a repository whose files are no files: an answer, and at once."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from check.repositories import publish

from convkit.checking import check
from convkit.errors import InputError
from convkit.reporting import report


def fifo(path: Path) -> None:
    os.mkfifo(path)


def too_large(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(100 << 20)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def folder(path: Path) -> None:
    path.mkdir()


FORMS = (fifo, too_large, device, loop, folder)
RECORDS = ("manifest.json", "SHA256SUMS", "report.json", "expected.json", "samples/0000.npz")
PLACES = ("config.pbtxt", "configs/cpu.pbtxt", "1/model.onnx", *(f"1/convkit/{name}" for name in RECORDS))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("live"), tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """End what waits for ever, with an error."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits for ever"))
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def spoilt(published: Path, place: str, form: Callable[[Path], None], copy: Path) -> Path:
    repository = Path(shutil.copytree(published, copy))
    path = repository / "dense" / place
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    form(path)
    return repository


CASES = [(place, form) for place in PLACES for form in FORMS]


@pytest.mark.parametrize(("place", "form"), CASES, ids=[f"{place} {form.__name__}" for place, form in CASES])
def test_check_finds_what_is_no_file(place: str, form: Callable[[Path], None], published: Path, tmp_path: Path) -> None:
    repository = spoilt(published, place, form, tmp_path / "repository")
    started = time.process_time()

    findings = check(repository, triton="24.10").remarks

    assert any(Path(place).name in finding.message for finding in findings)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("form", FORMS)
def test_report_refuses_what_is_no_file(form: Callable[[Path], None], published: Path, tmp_path: Path) -> None:
    repository = spoilt(published, "1/convkit/report.json", form, tmp_path / "repository")

    with pytest.raises(InputError):
        report(repository)
