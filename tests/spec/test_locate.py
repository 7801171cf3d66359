"""The line of a key in JSON and TOML: right where the text is right, and harmless where it is not."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convkit.spec.locate import KeyPath, json_entries, json_line, toml_entries, toml_line

quick = settings(deadline=None, max_examples=150)

TOML = """\
# a recipe
title = "[not.a.table]"
output.name."odd key" = 1

[tensorrt]           # a comment with = and [
workspace = 1_000.5
profiles = [
  {min = [1, 2], "max".x = [3,
     4]},            # ]
  \"\"\"more
  = [lines]\"\"\",
  '''
  x = 1''', 5 ]

[[gates]]
name = 'a'
[gates.sub]
when = 1979-05-27 07:32:00
[[gates]]
name = 'b'
  [[gates.inner]]
  y.z = {}
[quantize."a.b"]
text = \"\"\"
[nope] \\\"\"\"
\"\"\"
last = 1"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("title",), 2),
        (("output",), 3),
        (("output", "name", "odd key"), 3),
        (("tensorrt",), 5),
        (("tensorrt", "workspace"), 6),
        (("tensorrt", "profiles"), 7),
        (("tensorrt", "profiles", 0), 8),
        (("tensorrt", "profiles", 0, "max", "x", 0), 8),
        (("tensorrt", "profiles", 0, "max", "x", 1), 9),
        (("tensorrt", "profiles", 1), 10),
        (("tensorrt", "profiles", 2), 12),
        (("tensorrt", "profiles", 3), 13),
        (("gates",), 15),
        (("gates", 0), 15),
        (("gates", 0, "name"), 16),
        (("gates", 0, "sub"), 17),
        (("gates", 0, "sub", "when"), 18),
        (("gates", 1), 19),
        (("gates", 1, "name"), 20),
        (("gates", 1, "inner", 0), 21),
        (("gates", 1, "inner", 0, "y", "z"), 22),
        (("quantize", "a.b"), 23),
        (("quantize", "a.b", "text"), 24),
        (("quantize", "a.b", "last"), 27),
        (("tensorrt", "missing"), 5),
        (("gates", 1, "missing"), 19),
        (("not",), None),
        (("nope",), None),
    ],
)
def test_a_key_in_toml_is_found_in_its_line(path: KeyPath, line: int | None) -> None:
    assert toml_line(TOML, path) == line
    assert toml_line(TOML.replace("\n", "\r\n"), path) == line


def paths(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    yield path
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in members:
        yield from paths(inner, (*path, key))


def test_toml_holds_the_same_keys_as_the_standard_librarys_reader_finds() -> None:
    assert {path for path, _ in toml_entries(TOML)} | {()} == set(paths(tomllib.loads(TOML)))


def written(value: Any, path: KeyPath, line: int, places: list[tuple[KeyPath, int]]) -> int:
    """Note the line of each path, as `json.dumps` with an indent lays the value out; return the last line."""
    places.append((path, line))
    if not isinstance(value, dict | list) or not value:
        return line
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        line = written(inner, (*path, key), line + 1, places)
    return line + 1


@quick
@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=15,
    ),
    st.booleans(),
)
def test_every_place_of_any_json_is_found_in_its_line(value: Any, escaped: bool) -> None:
    places: list[tuple[KeyPath, int]] = []
    written(value, (), 1, places)
    text = json.dumps(value, indent=1, ensure_ascii=escaped)

    assert list(json_entries(text)) == places
    assert [json_line(text, path) for path, _ in places] == [line for _, line in places]


def test_what_is_missing_in_json_has_the_line_of_what_is_around_it() -> None:
    text = '\n{"a": [\n1,\n{"b": 2}]}'

    assert json_line(text, ("a", 1, "c")) == 4
    assert json_line(text, ("a", 7)) == 2
    assert json_line(text, ("x", "y")) == 2
    assert json_line(" ", ("x",)) is None


@quick
@given(st.text() | st.text(alphabet="{}[]:,=.\"'\\#/*\n ab1"))
def test_any_text_has_lines_and_nothing_is_raised(text: str) -> None:
    last = text.count("\n") + 1

    assert all(1 <= line <= last for _, line in json_entries(text))
    assert all(1 <= line <= last for _, line in toml_entries(text))


@pytest.mark.parametrize("text", ["[" * 50_000, '{"a":' * 20_000, "a." * 50_000 + "=", "[[a]]\n" * 20_000])
def test_a_hostile_text_is_cheap(text: str) -> None:
    assert max(len(path) for path, _ in json_entries(text)) <= 17
    assert max((len(path) for path, _ in toml_entries(text)), default=0) <= 17
