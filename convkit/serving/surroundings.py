"""A model's own folder besides its versions, and a repository's content taken over into another."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from convkit.pipeline.artifact import digest_file, gather
from convkit.serving.holding import told
from convkit.serving.in_place import STAGING, flush_tree, staging_folder, write_file
from convkit.serving.layout import numbered
from convkit.serving.publish import CONFIG, PENDING
from convkit.serving.put import put_in_place


def surroundings(model: Path) -> dict[str, bytes]:
    """Return every file of a model's own folder that lies in none of its versions, by its relative name."""
    if not model.is_dir():
        return {}
    own = [
        path
        for path in model.iterdir()
        if not (path.is_dir() and (path.name.isdigit() or path.name == PENDING or path.name.startswith(STAGING)))
    ]
    files = [file for path in own for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    return {file.relative_to(model).as_posix(): file.read_bytes() for file in sorted(files)}


def take_over(model: Path, repository: Path, versions: Iterable[Path], config: bytes | None) -> list[Path]:
    """Copy versions of a model into another repository, each whole or not at all; the caller holds its lock.

    What is there already is not written again.

    Args:
        model: the model's folder.
        repository: where to.
        versions: folders of its versions.
        config: what its config.pbtxt is to be there; None: it has none.

    Returns the versions that were written.

    Raises:
        InputError: the repository cannot be written.
        MissingError: its disk is full, or fails.
    """
    around = {name: data for name, data in surroundings(model).items() if name != CONFIG}
    around |= {CONFIG: config} if config is not None else {}
    written = []
    for version in versions:
        target = repository.resolve() / model.name
        if _is_same(version, target / version.name):
            continue
        with told(repository), staging_folder(repository, model.name) as staging:
            staged = staging / "version"
            for name in gather(version).files:
                write_file(staged / name, version / name)
            flush_tree(staged)
            is_first = not any(numbered(target))
            put_in_place(
                target / version.name, staged, model=target, around=around, is_first=is_first, keeps_config=False
            )
        written.append(target / version.name)
    return written


def _is_same(one: Path, other: Path) -> bool:
    """Tell whether two folders hold the same files."""
    if not other.is_dir():
        return False
    names = [{p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} for folder in (one, other)]
    return names[0] == names[1] and all(digest_file(one / name) == digest_file(other / name) for name in names[0])
