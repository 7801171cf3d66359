"""What a version's records hold besides the manifest: digests of themselves, and what the model's answers should be.

The manifest names what is the same in every run. SHA256SUMS, in the form of coreutils' `sha256sum`, covers the rest of
the records, the manifest among them, so that `sha256sum --check SHA256SUMS` finds damage without convkit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from convkit.serving.manifest import digest_of
from convkit.spec.options import CheckOptions, Precision

SUMS = "SHA256SUMS"
EXPECTED = "expected.json"
SAMPLES = "samples"
REFERENCES = "references"
_LINE = re.compile(r"([0-9a-f]{64})  ([^\n]+)")


class Expected(msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="convkit.expected/1"):
    """Recorded inputs, the source framework's outputs for them, and how far a server's may be from those."""

    precision: Precision
    """It decides the tolerance where `check` leaves it open."""
    check: CheckOptions = CheckOptions()
    samples: tuple[str, ...]
    """One ``.npz`` file for each case, under wire names; relative to the records' folder."""
    references: tuple[str, ...]


def expected_files(
    samples: Mapping[str, Path], references: Mapping[str, Path], precision: Precision, check: CheckOptions
) -> dict[str, Path | bytes]:
    """Return the files of the records' folder that keep samples and references, which are given by bare names."""
    kept: dict[str, Path | bytes] = {f"{SAMPLES}/{name}": path for name, path in samples.items()}
    answers = {f"{REFERENCES}/{name}": path for name, path in references.items()}
    document = Expected(precision=precision, check=check, samples=tuple(kept), references=tuple(answers))
    return {**kept, **answers, EXPECTED: msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"}


def write_sums(files: Mapping[str, Path | bytes]) -> bytes:
    """Return the text of SHA256SUMS for files whose names are relative to its folder."""
    lines = (f"{digest_of(content).removeprefix('sha256:')}  {name}\n" for name, content in sorted(files.items()))
    return "".join(lines).encode()


def read_sums(data: bytes) -> dict[str, str]:
    """Return the digests (``sha256:...``) of a SHA256SUMS by name.

    Raises:
        ValueError: it is no such file; a single damaged byte is enough, or leads to another name or digest.
    """
    lines = data.decode().split("\n")
    found = [_LINE.fullmatch(line) for line in lines[:-1]]
    sums = {match[2]: f"sha256:{match[1]}" for match in found if match is not None}
    if lines[-1] or None in found or len(sums) != len(found):
        raise ValueError("not in the form of sha256sum")
    return sums
