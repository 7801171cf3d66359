"""Pairs of keys, to sign manifests with."""

from __future__ import annotations

from pathlib import Path


def make_key(path: Path) -> Path:
    """Make a pair of keys with cryptography: the private one at `path`, the public one at `public(path)`."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    path.write_bytes(private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()))
    public(path).write_bytes(
        private.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    )
    return path


def public(path: Path) -> Path:
    return path.with_suffix(".pub.pem")
