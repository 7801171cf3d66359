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
        TrustError: a file is not trusted. The message lists what would have run, of each such file.
    """
    if TRUST_ALL in granted:
        return
    digests = {file.path: digest_file(Path(file.path)) for file in files}
    refused = [file for file in files if digests[file.path] not in granted]
    if not refused:
        return
    changed = " (its digest is not the one that was trusted)" if granted else ""
    one = " ".join(f"--trust={digest}" for digest in dict.fromkeys(digests.values()))
    refusal = TrustError(
        "; ".join(f"{file.path} runs code when it is loaded{changed}: {_listed(file.runs)}" for file in refused),
        hint=f"if you know who wrote it: {command} --trust, or for {_these(files)} alone: {one}",
        code="trust.required",
    )
    refusal.files = tuple(refused)
    raise refusal


def _listed(runs: tuple[str, ...]) -> str:
    return ", ".join(runs[:12]) + (f" and {len(runs) - 12} more" if len(runs) > 12 else "")


def _these(files: Sequence[Untrusted]) -> str:
    return "this very file" if len(files) == 1 else "these very files"
