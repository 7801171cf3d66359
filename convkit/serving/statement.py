"""Reading a manifest.json: what it says of the results, and of what they were made with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from convkit.spec.damage import NOT_JSON


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """A file by its name and digests: in-toto's ResourceDescriptor."""

    name: str
    digest: Mapping[str, str]


class _Builder(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    version: Mapping[str, str] = {}


class _Run(msgspec.Struct, frozen=True, kw_only=True):
    builder: _Builder
    byproducts: tuple[Described, ...] = ()


class _Build(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    build_type: str
    external_parameters: Mapping[str, Any] = {}
    resolved_dependencies: tuple[Described, ...] = ()


class _Predicate(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    build_definition: _Build
    run_details: _Run


class Statement(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What `check` needs of an in-toto statement with SLSA provenance."""

    subject: tuple[Described, ...]
    predicate: _Predicate

    @property
    def subjects(self) -> dict[str, str]:
        """Return the digests (``sha256:...``) of the version's own files."""
        return _digests(self.subject)

    @property
    def byproducts(self) -> dict[str, str]:
        """Return the digests (``sha256:...``) of the files in the model's folder that belong to it."""
        return _digests(self.predicate.run_details.byproducts)

    @property
    def options(self) -> Mapping[str, Any]:
        """Return what was asked for."""
        return self.predicate.build_definition.external_parameters

    @property
    def sources(self) -> dict[str, str]:
        """Return the digests (``sha256:...``) of what it was made from."""
        return _digests(self.predicate.build_definition.resolved_dependencies)

    @property
    def versions(self) -> Mapping[str, str]:
        """Return the versions of what took part."""
        return self.predicate.run_details.builder.version

    def version_of(self, library: str) -> str | None:
        """Return the version of a library that took part; None where none did, or it was not known."""
        version = self.predicate.run_details.builder.version.get(library)
        return None if version == "absent" else version


def read_statement(manifest: bytes) -> Statement:
    """Read a manifest.json.

    Raises:
        ValueError: it is no such statement.
    """
    try:
        return msgspec.json.decode(manifest, type=Statement)
    except NOT_JSON as error:
        raise ValueError("it is no UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)) from error


def _digests(described: tuple[Described, ...]) -> dict[str, str]:
    return {entry.name: "sha256:" + entry.digest.get("sha256", "") for entry in described}
