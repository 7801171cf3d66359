"""Every command that a document shows is run, and what documents say of the source is held against it."""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from convkit.request import Request
from convkit.spec.metadata import parse_metadata

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
INDEX = ROOT / "docs" / "README.md"
DOCUMENTS = (README, *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("sample_models/*/README.md")))

MEASURED = "convkit convert sample_models/digits_cnn --trust --recipe recipes/cpu-int8.toml"
"""The command of `make demo`, run as it stands; every other one is run without measuring."""

PICTURE = ROOT / "docs" / "report.png"

FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^    (?P<text>\S.*)$", re.MULTILINE)
COMMAND = re.compile(r"(?P<variables>([A-Z_]+=\S+ +)*)(?P<program>convkit|make|pip|python) (?P<arguments>.*)")


class Shown(NamedTuple):
    """A command as a document shows it, on one line."""

    line: str
    program: str
    arguments: str
    comment: str

    @property
    def status(self) -> int:
        """The exit status that the comment promises on a machine without a GPU."""
        promised = re.search(r"exit status (\d+)", self.comment)
        return int(promised[1]) if promised else 0


def blocks(text: str, language: str) -> list[str]:
    return [match["text"] for match in FENCE.finditer(text) if match["language"] == language]


def commands(document: Path) -> Iterator[Shown]:
    """Go through a document's commands: all of its sh blocks, and those indented lines that begin like one."""
    text = document.read_text(encoding="utf-8")
    shell = "".join(blocks(text, "sh"))
    for line in re.sub(r"\\\n\s*", "", shell).splitlines():
        if line.strip():
            command, _, comment = line.partition("#")
            match = COMMAND.fullmatch(command.strip())
            assert match, f"{document.name} shows a command that no test knows how to check: {line}"
            yield Shown(command.strip(), match["program"], match["arguments"], comment)
    for match in INDENTED.finditer(FENCE.sub("", text)):
        if found := COMMAND.fullmatch(match["text"]):
            yield Shown(match["text"], found["program"], found["arguments"], "")


class Copy:
    """What a fresh clone holds for its reader, in a folder of its own, with the installed `convkit` on the path."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "sample_models", folder / "sample_models", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "recipes", folder / "recipes")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("CONVKIT_", "MODEL_", "SOURCE_", "TARGET_"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.variables = {**kept, "PATH": path, "CONVKIT_CACHE_DIR": str(cache), "COLUMNS": "100"}
        self.variables["OMP_NUM_THREADS"] = (
            "1"  # threads gain these small models nothing, and on a busy machine cost much
        )

    def run(self, shown: Shown) -> None:
        """Run a command as it stands there, and hold its exit status against what is promised."""
        quick = " --measure none" if "convkit convert" in shown.line and not shown.line.startswith(MEASURED) else ""
        done = subprocess.run(
            shown.line + quick,
            shell=True,
            cwd=self.folder,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == shown.status, f"{shown.line}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all documents: what two of them show is done once."""
    return tmp_path_factory.mktemp("cache")


def with_commands(program: str) -> list[Path]:
    return [document for document in DOCUMENTS if any(shown.program == program for shown in commands(document))]


def test_the_documents_show_commands() -> None:
    names = {document.relative_to(ROOT).as_posix() for document in with_commands("convkit")}

    assert names >= {"README.md", "docs/recipes.md", "docs/dl_inference.md", "sample_models/digits_cnn/README.md"}
    assert any(shown.line.startswith(MEASURED) for shown in commands(README))


@pytest.mark.parametrize("document", with_commands("convkit"), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_convkit_command_in_the_document_does_what_it_should(document: Path, cache: Path, tmp_path: Path) -> None:
    copy = Copy(tmp_path, cache)
    for shown in commands(document):
        if shown.program == "convkit":
            copy.run(shown)


def test_the_readmes_picture_is_a_small_png() -> None:
    assert f"({PICTURE.relative_to(ROOT)})" in README.read_text(encoding="utf-8")

    assert PICTURE.read_bytes().startswith(b"\x89PNG")
    assert PICTURE.stat().st_size < 200_000


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_make_command_in_the_documents_has_its_target() -> None:
    shown = [shown for document in DOCUMENTS for shown in commands(document) if shown.program == "make"]

    assert {each.arguments for each in shown} >= {"demo", "test"}
    for each in shown:
        assert make(*each.arguments.split()).returncode == 0, each.line


def test_make_demo_runs_a_conversion_that_the_readme_shows() -> None:
    lines = re.sub(r"\\\n\s*", "", make("demo").stdout).splitlines()

    (demo,) = [line for line in lines if "convkit convert" in line]
    (shown,) = [shown.line for shown in commands(README) if shown.line.startswith(MEASURED)]
    assert demo == f".venv/bin/{shown}"


def test_every_extra_that_the_documents_name_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    shown = [shown for document in DOCUMENTS for shown in commands(document) if shown.program == "pip"]

    assert shown
    for each in shown:
        named = re.fullmatch(r'install "convkit\[([a-z,-]+)\]"', each.arguments)
        assert named, each.line
        assert set(named[1].split(",")) | set(re.findall(r"\[([a-z-]+)\]", each.comment)) <= set(extras)


def test_every_python_command_in_the_documents_names_a_module_that_is_there() -> None:
    shown = [shown for document in DOCUMENTS for shown in commands(document) if shown.program == "python"]

    for each in shown:
        named = re.fullmatch(r"-m (\S+)", each.arguments)
        assert named, each.line
        assert importlib.util.find_spec(named[1]), each.line


def test_every_config_txt_in_the_documents_is_one() -> None:
    shown = {document: blocks(document.read_text(encoding="utf-8"), "json") for document in DOCUMENTS}

    (of_the_readme,) = shown[README]
    sample = (ROOT / "sample_models" / "digits_cnn" / "config.txt").read_text()
    assert parse_metadata(of_the_readme) == parse_metadata(sample)
    for text in [text for texts in shown.values() for text in texts if '"batch_size"' in text]:
        assert parse_metadata(text).inputs


def test_the_recipes_in_the_documents_are_read(tmp_path: Path) -> None:
    from test_recipes import request_of

    shown = [block for document in DOCUMENTS for block in blocks(document.read_text(encoding="utf-8"), "toml")]

    whole = [text for text in shown if re.match(r"(#.*\n)*model = ", text)]
    assert whole
    for text in whole:
        assert request_of(text, tmp_path).model
    keys = {field.encode_name for field in msgspec.structs.fields(Request)} | {"extends", "env", "project"}
    for text in shown:
        assert set(tomllib.loads(text)) <= keys, text


def test_every_page_is_listed_by_its_task() -> None:
    listed = re.findall(r"\]\(([^)#:/]+\.md)\)", INDEX.read_text(encoding="utf-8"))

    assert sorted(listed) == sorted(page.name for page in (ROOT / "docs").glob("*.md") if page != INDEX)


def test_every_link_in_the_documents_leads_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)\)", FENCE.sub("", document.read_text(encoding="utf-8"))):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


@pytest.mark.parametrize("name", ["errors", "recipe_keys", "reference"])
def test_the_page_that_is_made_from_the_source_is_up_to_date(name: str) -> None:
    page = runpy.run_path(str(ROOT / "docs" / f"make_{name}.py"))["page"]()

    written = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert written == page, f"docs/{name}.md is not what the source says any more: run 'make docs' and commit it"
