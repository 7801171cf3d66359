"""Requirements, markers and versions are judged as `packaging` judges them, on all that is installed here."""

from __future__ import annotations

import importlib.metadata

import pytest

from convkit.installed import Requirement, parse_requirement, release, wanted_by_extra

packaging_requirements = pytest.importorskip("packaging.requirements")
packaging_version = pytest.importorskip("packaging.version")

ALL = sorted({text for distribution in importlib.metadata.distributions() for text in distribution.requires or ()})
VERSIONS = ("0.5", "1", "1.0.0", "1.26.4", "2.0.1", "2.13.0+cpu", "3.20.3", "6.33.5", "7.0", "25.9.23", "2026.9.0")


def parsed(text: str) -> Requirement:
    found = parse_requirement(text)
    assert found is not None, text
    return found


def test_every_installed_requirement_is_read_as_packaging_reads_it() -> None:
    assert len(ALL) > 100
    for text in ALL:
        theirs, ours = packaging_requirements.Requirement(text), parsed(text)
        assert (ours.name, set(ours.extras)) == (theirs.name, theirs.extras), text
        if theirs.url is None:
            for version in VERSIONS:
                assert ours.takes(version) == theirs.specifier.contains(version, prereleases=True), (text, version)


def test_every_installed_marker_holds_where_packaging_says_so() -> None:
    for text in ALL:
        theirs, ours = packaging_requirements.Requirement(text), parsed(text)
        for extra in ("", "test", "dev", "onnx"):
            wanted = theirs.marker is None or theirs.marker.evaluate({"extra": extra})
            assert ours.holds(extra) == wanted, (text, extra)


@pytest.mark.parametrize(
    ("clauses", "version", "taken"),
    [
        ("~=1.4", "1.9", True),
        ("~=1.4", "2.0", False),
        ("~=1.4.2", "1.5.0", False),
        ("==1.4.*", "1.4.9", True),
        ("!=1.4.*", "1.4.9", False),
        ("==1.0", "1", True),
        ("<7,>=6.33.5", "6.33.5", True),
        ("<7,>=6.33.5", "7.0.1", False),
        (">=1.17", "1.16.1", False),
    ],
)
def test_a_version_is_held_against_clauses(clauses: str, version: str, taken: bool) -> None:
    assert Requirement(name="x", clauses=clauses).takes(version) is taken


def test_an_extra_brings_what_the_extras_that_it_builds_on_bring() -> None:
    names = {requirement.name for requirement in wanted_by_extra("torch")}

    assert {"torch", "onnxscript", "onnx", "onnxruntime"} <= names
    assert "tensorflow-cpu" not in names


def test_what_stands_behind_a_release_is_not_compared() -> None:
    assert release("2.13.0+cpu") == release("2.13") == (2, 13)
