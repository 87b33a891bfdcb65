from __future__ import annotations

import base64
import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest

from prebuilds.chassis.identity.keys import JwksFile
from prebuilds.chassis.identity.tokens import TrustedIssuer, asserted_roles, verify
from prebuilds.domain.principals import Role
from prebuilds.domain.refusals import Refusal
from prebuilds.sdk.keys import SigningKey, read_or_create_key, write_jwks
from prebuilds.sdk.tokens import issue_token


async def test_a_server_that_reads_the_jwks_believes_the_token(tmp_path: Path) -> None:
    key = read_or_create_key(tmp_path / "signing-key.pem", tmp_path / "jwks.json")
    token = issue_token(
        key,
        issuer="local",
        audience="prebuilds",
        subject="alice",
        organizations={"default": [Role.OWNER, Role.MEMBER]},
        operator=True,
    )
    verified = await verify(token, TrustedIssuer("local", "prebuilds", JwksFile(tmp_path / "jwks.json"), True))
    assert (verified.subject, verified.name) == ("alice", "alice")
    roles = asserted_roles(verified)
    assert roles.organizations == {"default": {Role.OWNER, Role.MEMBER}}
    assert roles.is_operator


async def test_a_token_says_no_more_than_it_was_asked_to(tmp_path: Path) -> None:
    key = read_or_create_key(tmp_path / "signing-key.pem", tmp_path / "jwks.json")
    token = issue_token(key, issuer="local", audience="prebuilds", subject="17", name="Bob")
    verified = await verify(token, TrustedIssuer("local", "prebuilds", JwksFile(tmp_path / "jwks.json"), True))
    assert verified.name == "Bob"
    assert not asserted_roles(verified).is_operator
    assert asserted_roles(verified).organizations == {}


async def test_a_token_of_another_key_is_not_believed(tmp_path: Path) -> None:
    read_or_create_key(tmp_path / "signing-key.pem", tmp_path / "jwks.json")
    token = issue_token(SigningKey.generate(), issuer="local", audience="prebuilds", subject="mallory")
    with pytest.raises(Refusal):
        await verify(token, TrustedIssuer("local", "prebuilds", JwksFile(tmp_path / "jwks.json")))


def test_a_token_holds_for_its_lifetime() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    token = issue_token(
        SigningKey.generate(), issuer="i", audience="a", subject="s", lifetime=timedelta(hours=1), now=now
    )
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["iat"] == claims["nbf"] == now.timestamp()
    assert claims["exp"] == (now + timedelta(hours=1)).timestamp()


def test_a_lifetime_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above zero"):
        issue_token(SigningKey.generate(), issuer="i", audience="a", subject="s", lifetime=timedelta(0))


def test_a_key_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    key_file, jwks_file = tmp_path / "keys" / "key.pem", tmp_path / "keys" / "jwks.json"
    made = read_or_create_key(key_file, jwks_file)
    assert read_or_create_key(key_file, jwks_file).key_id == made.key_id
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert "PRIVATE" not in jwks_file.read_text()
    assert [path.name for path in sorted(key_file.parent.iterdir())] == ["jwks.json", "key.pem"]


def test_a_jwks_can_hold_several_keys(tmp_path: Path) -> None:
    keys = [SigningKey.generate(), SigningKey.generate()]
    write_jwks(tmp_path / "jwks.json", *keys)
    published = json.loads((tmp_path / "jwks.json").read_text())["keys"]
    assert [entry["kid"] for entry in published] == [key.key_id for key in keys]


def test_a_key_can_be_a_jwk_too(tmp_path: Path) -> None:
    key = SigningKey.generate()
    seed = base64.urlsafe_b64encode(key.private.private_bytes_raw()).rstrip(b"=").decode()
    (tmp_path / "key.json").write_text(json.dumps(key.public_jwk() | {"d": seed, "kid": "mine"}))
    assert SigningKey.read(tmp_path / "key.json").key_id == "mine"


@pytest.mark.parametrize("content", ["", "no key", "{}", '{"kty": "oct", "k": "c2VjcmV0"}'])
def test_a_file_without_such_a_key_is_refused_without_its_content(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key"
    path.write_text(content)
    with pytest.raises(ValueError, match="holds no"):
        SigningKey.read(path)
