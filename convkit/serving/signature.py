"""Signing a manifest and verifying it: a DSSE envelope, as in-toto attestations travel in, with an Ed25519 key.

Format: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md and envelope.md beside it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from convkit.errors import InputError, MissingError
from convkit.spec.damage import NOT_JSON

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE = "manifest.dsse.json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
_MAKE_KEY = "openssl genpkey -algorithm ed25519 -out key.pem; openssl pkey -in key.pem -pubout -out key.pub.pem"


class _Signature(msgspec.Struct, frozen=True, kw_only=True):
    sig: str
    keyid: str = ""


class _Envelope(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    payload: str
    payload_type: str
    signatures: tuple[_Signature, ...]


class Signer:
    """A private key.

    Raises:
        InputError: the file is missing, or holds no unencrypted Ed25519 key.
        MissingError: the extra `sign` is not installed.
    """

    def __init__(self, path: Path) -> None:
        serialization = _serialization()
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError, _unsupported()) as error:
            raise _no_key(path, "private", str(error)) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise _no_key(path, "private", f"it is a {type(key).__name__}")
        self._key: Ed25519PrivateKey = key

    def sign(self, manifest: bytes) -> bytes:
        """Return the envelope of a manifest: the same key and manifest give the same bytes."""
        signature = _Signature(
            sig=base64.b64encode(self._key.sign(encoded(PAYLOAD_TYPE, manifest))).decode(),
            keyid=_key_id(self._key.public_key()),
        )
        envelope = _Envelope(
            payload=base64.b64encode(manifest).decode(), payload_type=PAYLOAD_TYPE, signatures=(signature,)
        )
        return msgspec.json.format(msgspec.json.encode(envelope), indent=2) + b"\n"


class Verifier:
    """A public key.

    Raises:
        InputError: the file is missing, or holds no Ed25519 key.
        MissingError: the extra `sign` is not installed.
    """

    def __init__(self, path: Path) -> None:
        serialization = _serialization()
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            key = serialization.load_pem_public_key(path.read_bytes())
        except (OSError, ValueError, _unsupported()) as error:
            raise _no_key(path, "public", str(error)) from error
        if not isinstance(key, Ed25519PublicKey):
            raise _no_key(path, "public", f"it is a {type(key).__name__}")
        self._key: Ed25519PublicKey = key

    def fault(self, manifest: bytes, envelope: bytes) -> str | None:
        """Say why an envelope does not vouch for a manifest; None where it does.

        Every signature is tried: the name that it gives its key proves nothing.
        """
        from cryptography.exceptions import InvalidSignature

        try:
            read = msgspec.json.decode(envelope, type=_Envelope)
            payload = base64.b64decode(read.payload, validate=True)
            signatures = [base64.b64decode(signature.sig, validate=True) for signature in read.signatures]
        except (*NOT_JSON, ValueError, binascii.Error) as error:
            return f"it is no DSSE envelope: {error}"
        if read.payload_type != PAYLOAD_TYPE:
            return f"it is of the type '{read.payload_type}', and not {PAYLOAD_TYPE}"
        for signature in signatures:
            try:
                self._key.verify(signature, encoded(read.payload_type, payload))
            except InvalidSignature:
                continue
            return None if payload == manifest else "it was signed for another manifest"
        return f"none of its signatures is of the key {_key_id(self._key)[:12]}"


def encoded(payload_type: str, payload: bytes) -> bytes:
    """Return what is signed: DSSE's pre-authentication encoding of a payload and its type."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _key_id(key: Ed25519PublicKey) -> str:
    """Return the SHA-256 of the key's DER form, in hexadecimal digits."""
    serialization = _serialization()
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def _serialization() -> Any:
    try:
        from cryptography.hazmat.primitives import serialization
    except ImportError as error:
        raise MissingError(
            "signatures need the package cryptography, which is not installed here",
            hint='pip install "convkit[sign]"',
            code="missing.extra",
        ) from error
    return serialization


def _unsupported() -> type[Exception]:
    from cryptography.exceptions import UnsupportedAlgorithm

    return UnsupportedAlgorithm


def _no_key(path: Path, which: str, why: str) -> InputError:
    return InputError(
        f"{path} is no {which} Ed25519 key in PEM form without a passphrase: {why}",
        hint=f"make a pair with: {_MAKE_KEY}",
        code="sign.key",
    )
