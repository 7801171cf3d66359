"""Code that lies beside a model, and who said that it may run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from convkit.errors import TrustError
from convkit.pipeline.artifact import digest_file

TRUST_ALL = "yes"


class Untrusted(msgspec.Struct, frozen=True, kw_only=True):
    """A file whose loading runs code."""

    path: str
    runs: tuple[str, ...]
    """What would be imported or called."""


def require_trust(files: Sequence[Untrusted], granted: Sequence[str], command: str) -> None:
    """Let files pass that the user trusts: all of them, or by the digest of the very file.

    Args:
        files: what would run code.
        granted: ``yes``, or ``sha256:...`` digests.
        command: the command that would grant it, for the hint.

    Raises:
        TrustError: a file is not trusted. The message lists what would have run.
    """
    if TRUST_ALL in granted:
        return
    for file in files:
        digest = digest_file(Path(file.path))
        if digest in granted:
            continue
        listed = ", ".join(file.runs[:12]) + (f" and {len(file.runs) - 12} more" if len(file.runs) > 12 else "")
        changed = " (its digest is not the one that was trusted)" if granted else ""
        raise TrustError(
            f"{file.path} runs code when it is loaded{changed}: {listed}",
            hint=f"if you know who wrote it: {command} --trust, or for this very file alone --trust={digest}",
            code="trust.required",
        )
