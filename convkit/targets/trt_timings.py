"""TensorRT's timing cache: what the builder has measured of its kernels on this GPU, kept for the next build.

FOLDER/<gpu>-<compute capability>-tensorrt-<version>/<digest>.timings

Several processes may build at once, on several machines that share the folder. Each begins with all that is there, and
at its end writes one file with everything that it knows and takes away those that it began with: nothing that another
wrote meanwhile is lost, and no lock is needed. A file whose content is not what its name says is dropped.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from convkit.pipeline import events
from convkit.pipeline.artifact import digest_bytes
from convkit.pipeline.cache import write_atomically
from convkit.targets import trt_types as types
from convkit.targets.cuda_driver import Gpu

_SUFFIX = ".timings"


def timings_folder(root: Path | None, on: Gpu | None, version: str) -> Path | None:
    """Return where timings of this GPU and this TensorRT lie; None without a GPU, or where nothing may be kept."""
    if root is None or on is None:
        return None
    gpu = re.sub(r"[^A-Za-z0-9.]+", "-", on.name).strip("-")
    return root / f"{gpu}-{on.compute_capability}-tensorrt-{version}"


@contextlib.contextmanager
def kept_timings(config: types.IBuilderConfig, folder: Path | None) -> Iterator[None]:
    """Let a build begin with the timings in a folder, and keep there what it adds, also where it fails or is stopped.

    A folder that cannot be read or written costs time, not the build: the user is told.
    """
    if folder is None:
        yield
        return
    begun_with = _hand_over(config, folder)
    try:
        yield
    finally:
        try:
            _keep(config, folder, begun_with)
        except OSError as error:
            _warn(f"TensorRT's timings cannot be kept in {folder}: {error.strerror}; the next build measures again")


def _hand_over(config: types.IBuilderConfig, folder: Path) -> tuple[Path, ...]:
    """Give the builder everything that is there, and return the files whose content it took."""
    cache = config.create_timing_cache(b"")
    taken: list[Path] = []
    if cache is not None:
        for path, content in _intact(folder):
            read = config.create_timing_cache(content)
            if read is not None and cache.combine(read, False):  # False: not those of another GPU or version
                taken.append(path)
    if cache is None or not config.set_timing_cache(cache, False):
        _warn(f"TensorRT does not take the timings in {folder}: it measures again")
        return ()
    return tuple(taken)


def _intact(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        try:
            content = path.read_bytes()
        except OSError:  # another build has just taken it in
            continue
        if _name(content) == path.name:
            yield path, content
        else:
            path.unlink(missing_ok=True)


def _keep(config: types.IBuilderConfig, folder: Path, begun_with: tuple[Path, ...]) -> None:
    cache = config.get_timing_cache()
    learnt = cache.serialize() if cache is not None else None
    if learnt is None:
        return
    content = bytes(learnt)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _name(content)
    if not path.exists():
        write_atomically(path, content)
    for old in begun_with:
        if old != path:
            old.unlink(missing_ok=True)


def _name(content: bytes) -> str:
    return digest_bytes(content).removeprefix("sha256:")[:32] + _SUFFIX


def _warn(message: str) -> None:
    events.warn("tensorrt.timings", message)
