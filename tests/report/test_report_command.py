"""`convkit report`: what a path stands for, in every form."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from convkit.cli.app import run
from convkit.errors import InputError
from convkit.report.document import Engine, Report, to_json
from convkit.report.render import Format
from convkit.reporting import read_reports, report
from tests.report.samples import faster_report, slower_report


def write(folder: Path, document: Report, **changes: Any) -> None:
    folder.mkdir(parents=True)
    changed = msgspec.structs.replace(document, **changes)
    (folder / "report.json").write_text(to_json(changed), encoding="utf-8")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository: `old` with two versions, `new` whose second is pending, and one that convkit did not make."""
    for number in (9, 10):
        write(tmp_path / "old" / str(number) / "convkit", slower_report(), name="old", version=number)
    write(tmp_path / "new" / "1" / "convkit", faster_report(), name="new", version=1)
    write(tmp_path / "new" / "pending" / "2", faster_report(), name="new", version=2, engine=Engine.DEFERRED)
    (tmp_path / "foreign" / "1").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".", {"new": 2, "old": 10}),
        ("old", {"old": 10}),
        ("new", {"new": 2}),
        ("old/9", {"old": 9}),
        ("new/pending/2", {"new": 2}),
        ("old/9/convkit/report.json", {"old": 9}),
    ],
)
def test_a_path_stands_for_the_latest_version_of_what_it_names(
    repository: Path, path: str, found: dict[str, int]
) -> None:
    assert {name: document.version for name, document in read_reports(repository / path).items()} == found


@pytest.mark.parametrize("path", ["foreign", "nothing", "foreign/1"])
def test_where_there_is_no_report_the_refusal_names_the_path(repository: Path, path: str) -> None:
    with pytest.raises(InputError, match=path) as refused:
        read_reports(repository / path)

    assert "report.json" in refused.value.hint or refused.value.code.startswith("repository.")


@pytest.mark.parametrize("form", list(Format))
def test_a_repository_is_one_document_with_every_model(repository: Path, form: Format) -> None:
    text = report(repository, form)

    assert text.endswith("\n")
    assert all(re.search(rf'\b{name}\b"?, version|name"?[=:] ?"{name}"', text) for name in ("old", "new"))
    if form is Format.JSON:
        assert [r["name"] for r in msgspec.json.decode(text)["reports"]] == ["new", "old"]


def test_one_page_has_every_id_once(repository: Path) -> None:
    page = report(repository, Format.HTML)

    ids = re.findall(r' id="([^"]+)"', page)
    named = re.findall(r' aria-labelledby="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(named) <= set(ids)
    assert page.partition("<body>")[0].count("<title>") == 1


def test_the_command_prints_or_writes_a_file(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["report", str(repository / "old"), "--format", "junit"]

    assert run(asked) == 0
    printed = capsys.readouterr().out
    assert run([*asked, "--output", str(tmp_path / "new folder" / "junit.xml")]) == 0

    assert (tmp_path / "new folder" / "junit.xml").read_text(encoding="utf-8") == printed
    assert capsys.readouterr().out == ""


def test_json_is_the_report_itself(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(repository / "old" / "9"), "--json"]) == 0

    assert capsys.readouterr().out == (repository / "old" / "9" / "convkit" / "report.json").read_text(encoding="utf-8")


def test_a_path_without_report_is_input_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(tmp_path / "nothing"), "--json"]) == 3

    assert msgspec.json.decode(capsys.readouterr().out)["error"]["code"] == "report.missing"


def test_a_file_that_cannot_be_written_is_said_so(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / "file").touch()

    assert run(["report", str(repository), "-o", str(repository / "file" / "report.html")]) == 3

    assert "cannot be written" in capsys.readouterr().err
