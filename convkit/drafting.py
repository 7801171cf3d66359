"""A config.txt drafted from what a model itself says."""

from __future__ import annotations

from pathlib import Path

from convkit.errors import InputError, UsageError
from convkit.pipeline.cache import write_atomically
from convkit.spec.metadata import Metadata, TensorMetadata, parse_metadata, render_metadata
from convkit.spec.tensor import Interface, TensorSpec

CONFIG = "config.txt"


def drafted(interface: Interface) -> Metadata:
    """Return the metadata that an interface amounts to: what convkit takes for it where there is none."""
    return Metadata(
        batch_size=interface.max_batch_size,
        inputs=tuple(map(_tensor, interface.inputs)),
        outputs=tuple(map(_tensor, interface.outputs)),
    )


def _tensor(spec: TensorSpec) -> TensorMetadata:
    return TensorMetadata(
        name=spec.alias or spec.name,
        node_name=spec.name,
        dtype=spec.dtype,
        dims=tuple(-1 if isinstance(dim, str) else dim for dim in spec.dims),
        range=spec.range,
        min_dims=spec.min_dims,
        opt_dims=spec.opt_dims,
        max_dims=spec.max_dims,
    )


def refuse_existing(path: Path) -> None:
    """Make sure that a draft can be written there.

    Raises:
        UsageError: something is there already, or the folder is not.
    """
    if path.exists():
        raise UsageError(
            f"{path} exists, and a draft overwrites nothing",
            hint="-o FILE writes the draft elsewhere",
            code="inspect.draft-exists",
        )
    if not path.absolute().parent.is_dir():
        raise UsageError(
            f"-o {path}: there is no folder {path.parent}",
            hint="make it, or name another file",
            code="inspect.draft-folder",
        )


def write_draft(path: Path, interface: Interface) -> None:
    """Write a config.txt, which is read again to be sure that `convert` takes it.

    Raises:
        UsageError: something is there by now.
        InputError: it cannot be written.
    """
    text = render_metadata(drafted(interface))
    parse_metadata(text, where=str(path))
    refuse_existing(path)
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror}",
            hint="-o FILE writes the draft elsewhere",
            code="inspect.draft-unwritable",
        ) from error
