"""A configuration with, and without, the names that the plans of several GPUs have."""

from __future__ import annotations

from collections.abc import Mapping

from convkit.errors import ConvkitError
from convkit.serving.triton_text import parse, render


def with_names(config: bytes, names: Mapping[str, str]) -> bytes:
    """Return a config.pbtxt that names each compute capability's plan; none where one has the default name."""
    message = parse(config.decode())
    message.ClearField("cc_model_filenames")
    if len(names) > 1 or set(names.values()) - {message.default_model_filename}:
        for capability, file in names.items():
            message.cc_model_filenames[capability] = file
    return render(message).encode()


def same_but_names(one: bytes | None, other: bytes) -> bool:
    """Tell whether two configurations are the same whatever the plans of several GPUs are called."""
    if one is None:
        return False
    try:
        return with_names(one, {}) == with_names(other, {})
    except (UnicodeDecodeError, ConvkitError):
        return False
