"""manifest.json: an in-toto statement with SLSA provenance over what was published and what it was made from.

Formats: in-toto Statement v1 (https://in-toto.io/Statement/v1) and SLSA Provenance v1
(https://slsa.dev/provenance/v1). There is no time, no path and no host in it: the same inputs, options and versions
give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from convkit.pipeline.artifact import digest_bytes, digest_file

STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "convkit.convert/1"


def write_manifest(
    *,
    files: Mapping[str, Path | bytes],
    beside: Mapping[str, bytes],
    options: Mapping[str, Any],
    sources: Mapping[str, str],
    versions: Mapping[str, str],
) -> bytes:
    """Write the statement.

    Args:
        files: the version's own files, by name in its directory.
        beside: files in the model's folder that go with it, config.pbtxt among them.
        options: what was asked for, without paths.
        sources: digests (``sha256:...``) of what it was made from, by name.
        versions: of convkit, Python and the libraries that took part.
    """
    statement = {
        "_type": STATEMENT,
        "subject": [_described(name, digest_of(content)) for name, content in sorted(files.items())],
        "predicateType": PROVENANCE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": dict(options),
                "resolvedDependencies": [_described(name, digest) for name, digest in sorted(sources.items())],
            },
            "runDetails": {
                "builder": {"id": "convkit", "version": dict(sorted(versions.items()))},
                "byproducts": [_described(name, digest_bytes(data)) for name, data in sorted(beside.items())],
            },
        },
    }
    return msgspec.json.format(msgspec.json.encode(statement, order="sorted"), indent=2) + b"\n"


def results(manifest: bytes) -> dict[str, str]:
    """Return the digests (``sha256:...``) of everything a manifest says was made; nothing where it is no manifest."""
    try:
        statement = msgspec.json.decode(manifest)
        described = [*statement["subject"], *statement["predicate"]["runDetails"]["byproducts"]]
        return {str(entry["name"]): "sha256:" + str(entry["digest"]["sha256"]) for entry in described}
    except (msgspec.DecodeError, KeyError, TypeError):
        return {}


def _described(name: str, digest: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}


def digest_of(content: Path | bytes) -> str:
    """Return the digest of a file's content, wherever it is held."""
    return digest_bytes(content) if isinstance(content, bytes) else digest_file(content)
