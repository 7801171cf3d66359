"""Signed manifests: who signs, what a verified signature says, and what it does not survive."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest

from check.keys import make_key, public
from check.repositories import errors, publish
from convkit.checking import check
from convkit.errors import InputError
from convkit.serving.signature import Signer, Verifier, encoded


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return make_key(tmp_path / "key.pem")


def test_a_payload_is_encoded_as_dsse_says() -> None:
    assert encoded("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"  # the protocol's own example
    )


def test_what_was_signed_is_verified(tmp_path: Path, cache: Path, key: Path) -> None:
    repository = publish(tmp_path, cache, sign=str(key))

    assert check(repository, key=public(key)).remarks == ()
    assert check(repository).remarks == ()
    envelope = json.loads((repository / "dense" / "1" / "convkit" / "manifest.dsse.json").read_text())
    manifest = (repository / "dense" / "1" / "convkit" / "manifest.json").read_bytes()
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    assert base64.b64decode(envelope["payload"]) == manifest


def test_openssl_verifies_what_convkit_signs(tmp_path: Path, key: Path) -> None:
    envelope = json.loads(Signer(key).sign(b"{}"))
    (tmp_path / "signed").write_bytes(encoded(envelope["payloadType"], b"{}"))
    (tmp_path / "signature").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", public(key), "-rawin", "-in", "signed"]

    done = subprocess.run(
        [*map(str, command), "-sigfile", "signature"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert "Verified Successfully" in done.stdout, done.stderr


def test_a_version_that_is_not_signed_or_by_another_is_an_error(tmp_path: Path, cache: Path, key: Path) -> None:
    unsigned = publish(tmp_path / "unsigned", cache)
    others = publish(tmp_path / "others", cache, sign=str(make_key(tmp_path / "other.pem")))

    assert errors(check(unsigned, key=public(key))) == ["check.not-signed"]
    assert errors(check(others, key=public(key))) == ["check.signature"]


def test_a_manifest_that_was_rewritten_with_all_its_digests_is_betrayed_by_its_signature(
    tmp_path: Path, cache: Path, key: Path
) -> None:
    repository = publish(tmp_path, cache, sign=str(key))
    records = repository / "dense" / "1" / "convkit"
    manifest = records / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"convkit": "', '"convkit": "9.'))
    done = subprocess.run(
        "sha256sum $(cut -c67- SHA256SUMS) > new && mv new SHA256SUMS", shell=True, cwd=records, check=True
    )

    assert done.returncode == 0
    assert check(repository).remarks == ()
    assert errors(check(repository, key=public(key))) == ["check.signature"]


@pytest.mark.parametrize(
    "change",
    [
        lambda envelope: envelope | {"payloadType": "application/json"},
        lambda envelope: envelope | {"signatures": []},
        lambda envelope: envelope | {"payload": base64.b64encode(b"{}").decode()},
        lambda envelope: envelope | {"payload": "?"},
        lambda envelope: [],
    ],
)
def test_an_envelope_that_does_not_hold_is_refused(key: Path, change: object) -> None:
    envelope = json.loads(Signer(key).sign(b'{"a": 1}'))

    assert Verifier(public(key)).fault(b'{"a": 1}', json.dumps(envelope).encode()) is None
    assert Verifier(public(key)).fault(b'{"a": 1}', json.dumps(change(envelope)).encode())  # type: ignore[operator]


def test_a_version_is_signed_afterwards_under_its_own_number(tmp_path: Path, cache: Path, key: Path) -> None:
    publish(tmp_path, cache)
    repository = publish(tmp_path, cache, sign=str(key))
    signed = (repository / "dense" / "1" / "convkit" / "manifest.dsse.json").stat()
    publish(tmp_path, cache, sign=str(key))
    publish(tmp_path, cache)

    assert [version.version for version in check(repository, key=public(key)).models[0].versions] == [1]
    assert check(repository, key=public(key)).remarks == ()
    assert (repository / "dense" / "1" / "convkit" / "manifest.dsse.json").stat().st_mtime_ns == signed.st_mtime_ns


@pytest.mark.parametrize("content", [None, b"", b"no key", "public"])
def test_what_is_no_key_is_refused_before_anything_runs(
    tmp_path: Path, cache: Path, key: Path, content: bytes | str | None
) -> None:
    bad = tmp_path / "bad.pem"
    if content is not None:
        bad.write_bytes(public(key).read_bytes() if isinstance(content, str) else content)

    with pytest.raises(InputError) as refused:
        publish(tmp_path, cache, sign=str(bad))
    assert refused.value.code == "sign.key"
    assert not (tmp_path / "repository").exists()


def test_a_public_key_that_is_none_is_refused(published: Path, key: Path) -> None:
    with pytest.raises(InputError):
        check(published, key=key)
