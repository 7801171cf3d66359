"""The cache is looked after: counted, listed, pruned by last use, cleared, and never under a run that uses it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from convkit.errors import MissingError
from convkit.pipeline.artifact import Artifact, gather, new_folder, use_scratch
from convkit.pipeline.cache import Cache, Entry
from convkit.pipeline.keeping import cache_clear, cache_info, cache_list, cache_prune


def remember(cache: Cache, key: str, content: bytes, *, used: float) -> Artifact:
    use_scratch(cache.root / "scratch" / "test")
    folder = new_folder("made")
    (folder / "file").write_bytes(content)
    made = gather(folder)
    cache.store(key, Entry(step="test:step", result={"files": msgspec.to_builtins(made)}, seconds=1.5))
    os.utime(cache.root / "entries" / key[:2] / key, (used, used))
    return made


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_what_is_remembered_is_counted_and_listed_the_last_used_first(cache: Cache) -> None:
    remember(cache, "aa1", b"x" * 1000, used=1000)
    remember(cache, "bb2", b"y" * 3000, used=2000)

    assert (cache_info(cache).steps, cache_info(cache).artifacts) == (2, 2)
    assert [(entry.key, entry.bytes) for entry in cache_list(cache)] == [("bb2", 3000), ("aa1", 1000)]


def test_pruning_forgets_what_was_used_longest_ago_and_only_its_own_artifacts(cache: Cache) -> None:
    old = remember(cache, "aa1", b"x" * 1000, used=1000)
    new = remember(cache, "bb2", b"y" * 3000, used=2000)
    remember(cache, "cc3", b"y" * 3000, used=500)  # the same artifact as bb2: it costs nothing more

    freed = cache_prune(cache, 3500)

    assert freed >= 1000
    assert cache.load("aa1") is None
    assert cache.load("bb2") is not None
    assert cache.load("cc3") is not None
    kept = {folder.name for folder in (cache.root / "objects").glob("*/*")}
    assert kept == {new.digest.removeprefix("sha256:")}
    assert old.digest.removeprefix("sha256:") not in kept


def test_using_an_entry_makes_it_the_last_used(cache: Cache) -> None:
    remember(cache, "aa1", b"x" * 1000, used=1000)
    remember(cache, "bb2", b"y" * 1000, used=2000)
    assert cache.load("aa1") is not None

    cache_prune(cache, 1500)

    assert cache.load("bb2") is None
    assert cache.load("aa1") is not None


def test_clearing_forgets_everything_and_the_cache_goes_on(cache: Cache) -> None:
    remember(cache, "aa1", b"x" * 1000, used=1000)

    assert cache_clear(cache) >= 1000

    assert cache_info(cache).steps == 0
    remember(Cache(cache.root), "aa1", b"x" * 1000, used=1000)
    assert Cache(cache.root).load("aa1") is not None


def test_nothing_is_pruned_under_a_run_that_uses_the_cache(cache: Cache) -> None:
    remember(cache, "aa1", b"x" * 1000, used=1000)

    with cache.in_use(), pytest.raises(MissingError) as refused:
        cache_prune(cache, 0)

    assert refused.value.code == "cache.busy"
    assert cache.load("aa1") is not None
    cache_prune(cache, 0)
    assert cache.load("aa1") is None


def test_two_runs_use_the_cache_together(cache: Cache) -> None:
    with cache.in_use(), cache.in_use():
        assert cache.load("aa1") is None


def convkit(cache: Cache, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CONVKIT_CACHE_DIR": str(cache.root)}
    command = [sys.executable, "-m", "convkit", "cache", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_the_command_says_the_same(cache: Cache) -> None:
    remember(cache, "aa1", b"x" * 1000, used=1000)

    info = convkit(cache, "info", "--json")
    assert json.loads(info.stdout)["steps"] == 1
    assert "test:step" in convkit(cache, "list").stdout
    assert convkit(cache, "prune", "--max-size", "many").returncode == 2
    assert convkit(cache, "prune", "--max-size", "0B").returncode == 0
    assert json.loads(convkit(cache, "info", "--json").stdout)["steps"] == 0
