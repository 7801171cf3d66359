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

from convkit import __version__
from convkit.errors import CheckError, InputError
from convkit.pipeline.artifact import digest_bytes, digest_of_stored, read_record
from convkit.pipeline.identity import library_versions
from convkit.serving.statement import read_statement
from convkit.spec.damage import NOT_JSON

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
    except (*NOT_JSON, KeyError, TypeError):
        return {}


class Lock:
    """A manifest that says what a conversion has to give (`--locked`).

    Raises:
        InputError: the file is missing, or no manifest of convkit's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._data = read_record(path)
            self._statement = read_statement(self._data)
        except (OSError, ValueError) as error:
            raise InputError(
                f"--locked {path} is no manifest that convkit wrote: {error}",
                hint="name the manifest.json of a published version",
                code="lock.unreadable",
            ) from error

    def hold_inputs(self, *, options: Mapping[str, Any], sources: Mapping[str, str]) -> None:
        """Refuse other inputs, options or installed versions, before anything runs.

        Raises:
            CheckError: says each difference.
        """
        libraries = tuple(name for name in self._statement.versions if name not in ("convkit", "python"))
        versions = {"convkit": __version__, **library_versions(libraries)}
        locked = self._statement
        self._refuse(
            [
                *_differing("source", locked.sources, sources),
                *_differing("option", _flat(locked.options), _flat(msgspec.json.decode(msgspec.json.encode(options)))),
                *_differing("version of", locked.versions, versions),
            ],
            hint="give the very files, options and versions that the manifest names, or convert without --locked",
        )

    def hold_results(self, manifest: bytes) -> None:
        """Refuse another result, before anything is published.

        Raises:
            CheckError: says each difference.
        """
        self._refuse(
            _differing("result", results(self._data), results(manifest)),
            hint="the same inputs gave other bytes: that is a bug worth reporting; nothing was published",
        )

    def _refuse(self, differences: list[str], *, hint: str) -> None:
        if differences:
            raise CheckError(
                f"this is not what {self.path} locks: " + "; ".join(differences), hint=hint, code="lock.differs"
            )


def _flat(table: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested tables as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        dotted = f"{prefix}.{name}" if prefix else str(name)
        flat.update(_flat(value, dotted) if isinstance(value, dict) else {dotted: value})
    return flat


def _differing(what: str, locked: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    return [
        f"{what} {name} is {_short(found.get(name))}, locked is {_short(locked.get(name))}"
        for name in sorted({*locked, *found})
        if locked.get(name) != found.get(name)
    ]


def _short(value: Any) -> str:
    if value is None:
        return "absent"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 40 else text[:19] + "…"


def _described(name: str, digest: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}


def digest_of(content: Path | bytes) -> str:
    """Return the digest of a file's content, wherever it is held."""
    return digest_bytes(content) if isinstance(content, bytes) else digest_of_stored(content)
