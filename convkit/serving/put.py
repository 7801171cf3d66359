"""Putting what was staged into its place in a model repository: at once, and back again where that fails.

One rename puts a version in place; where files of the model's own folder change with it, the whole folder is swapped
for one in which what stays is linked. Where a file system cannot swap, one follows another, config.pbtxt after the
version. What is put back is only ever renamed or removed: a full disk does not stand in the way.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Mapping
from pathlib import Path

from convkit.pipeline.ownership import make_folder
from convkit.serving.in_place import exchange, flush, flush_tree, link_tree, remove_empty, write_file

CONFIG = "config.pbtxt"


def put_in_place(
    folder: Path, staged: Path, *, model: Path, around: Mapping[str, bytes], is_first: bool, keeps_config: bool
) -> None:
    """Put a version in place, with the files of its model's own folder.

    Args:
        folder: where the version belongs, in `model` or below it.
        staged: the version, in a staging folder of its own on the same file system.
        model: the model's folder.
        around: files of the model's own folder, by their relative names.
        is_first: no version of the model stands or is pending.
        keeps_config: where one does, the files around it stay as they are.

    Raises:
        OSError: the file system refused; what was there is there again.
    """
    changed = {name: data for name, data in around.items() if read_if_there(model / name) != data}
    with contextlib.ExitStack() as undo:
        if is_first and not model.exists():
            _put_new(folder, staged, model, around, undo)
        elif is_first:
            _put_one_by_one(folder, staged, model, changed, undo)
        elif not changed or keeps_config:
            _put(folder, staged, undo)
        elif not _put_with_folder(folder, staged, model, changed, undo):
            _put_one_by_one(folder, staged, model, changed, undo, last=CONFIG)
        undo.pop_all()


def set_aside(folder: Path, aside: Path) -> bool:
    """Take a folder away at once; piece by piece where it lies in a lower layer of the file system.

    Returns whether it stands at `aside` now.
    """
    try:
        folder.rename(aside)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.rmtree(folder)
        return False
    return True


def read_if_there(path: Path) -> bytes | None:
    """Return a file's bytes; None where there is no such file."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _put_new(folder: Path, staged: Path, model: Path, around: Mapping[str, bytes], undo: contextlib.ExitStack) -> None:
    """Put a model's first version in place with its whole folder."""
    whole = staged.parent / "model"
    target = whole / folder.relative_to(model)
    make_folder(target.parent)
    staged.rename(target)
    for name, data in around.items():
        write_file(whole / name, data)
    flush_tree(whole)
    whole.rename(model)
    undo.callback(model.rename, whole)
    flush(model.parent)


def _put(folder: Path, staged: Path, undo: contextlib.ExitStack) -> None:
    """Put a version in place, at once."""
    _make_folder(folder.parent, undo)
    if not folder.exists():
        staged.rename(folder)
        undo.callback(folder.rename, staged)
    elif exchange(staged, folder):
        undo.callback(exchange, staged, folder)
    else:
        aside = staged.parent / "replaced"
        if set_aside(folder, aside):
            undo.callback(aside.rename, folder)
        staged.rename(folder)
        undo.callback(folder.rename, staged)
    flush(folder.parent)


def _put_with_folder(
    folder: Path, staged: Path, model: Path, changed: Mapping[str, bytes], undo: contextlib.ExitStack
) -> bool:
    """Put a version and the files around it in place at once, by swapping the whole folder; tell whether it could."""
    staging = staged.parent
    if model in staging.parents or model.is_symlink():
        return False
    whole = staging / "model"
    replaced = {model / name for name in changed} | {folder}
    link_tree(model, whole, leave_out=replaced)
    for name, data in changed.items():
        write_file(whole / name, data)
    target = whole / folder.relative_to(model)
    staged.rename(target)
    flush_tree(whole)
    if not exchange(whole, model):
        target.rename(staged)
        return False
    undo.callback(exchange, whole, model)
    flush(model.parent)
    return True


def _put_one_by_one(
    folder: Path,
    staged: Path,
    model: Path,
    changed: Mapping[str, bytes],
    undo: contextlib.ExitStack,
    *,
    last: str | None = None,
) -> None:
    """Put the files around a version in place, then the version, then the file `last`."""
    for number, (name, data) in enumerate(changed.items()):
        if name != last:
            _replace_file(model / name, data, staged.parent / f"file{number}", undo)
    _put(folder, staged, undo)
    if last is not None and last in changed:
        _replace_file(model / last, changed[last], staged.parent / "last", undo)


def _replace_file(path: Path, data: bytes, temporary: Path, undo: contextlib.ExitStack) -> None:
    _make_folder(path.parent, undo)
    write_file(temporary, data)
    if path.exists():
        kept = temporary.with_name(f"{temporary.name}-before")
        shutil.copy2(path, kept)
        undo.callback(kept.replace, path)
    else:
        undo.callback(path.unlink, missing_ok=True)
    temporary.replace(path)
    flush(path.parent)


def _make_folder(folder: Path, undo: contextlib.ExitStack) -> None:
    if not folder.exists():
        undo.callback(remove_empty, folder)
        make_folder(folder)
