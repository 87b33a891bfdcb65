"""Who may be believed: every way in which a token can be wrong is refused with its reason."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from prebuilds.chassis.identity.credentials import ServiceCredentials, ServiceKey
from prebuilds.chassis.identity.daemon_keys import make_daemon_key
from prebuilds.chassis.identity.keys import JwksUrl, parse_jwks
from prebuilds.domain.agents import mint_agent_token
from prebuilds.domain.ids import SYSTEM_USER_ID, AgentId, OrganizationId, ProvisionerKeyId
from prebuilds.domain.principals import (
    Agent,
    AssertedRoles,
    Daemon,
    Person,
    Role,
    Service,
    ServiceName,
    StoredDaemonKey,
)
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.sdk.keys import SigningKey, write_jwks
from prebuilds.sdk.tokens import issue_token
from tests.support.clock import ManualClock
from tests.support.identity import AUDIENCE, ISSUER, Identity


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return Identity(tmp_path)


async def refusal_of(identity: Identity, authorization: str | None) -> Refusal:
    with pytest.raises(Refusal) as refused:
        await identity.authenticator.authenticate(authorization)
    return refused.value


def now() -> datetime:
    return datetime.now(UTC)


async def test_a_good_token_is_a_person_known_by_issuer_and_subject(identity: Identity) -> None:
    person = await identity.authenticator.authenticate(f"Bearer {identity.token('alice', name='Alice')}")
    assert person == identity.directory.people["alice"]
    assert identity.directory.asked == [(ISSUER, "alice", "Alice", None)]


async def test_no_credentials_are_missing_credentials(identity: Identity) -> None:
    assert (await refusal_of(identity, None)).reason is Reason.CREDENTIALS_MISSING
    assert (await refusal_of(identity, "")).reason is Reason.CREDENTIALS_MISSING


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"exp": datetime(2020, 1, 1, tzinfo=UTC)}, "expired"),
        ({"exp": None}, "lacks the claim exp"),
        ({"nbf": datetime(2100, 1, 1, tzinfo=UTC)}, "not valid yet"),
        ({"aud": "somebody-else"}, "another audience"),
        ({"aud": None}, "lacks the claim aud"),
        ({"iss": "https://evil.test"}, "another issuer"),
        ({"iss": None}, "no issuer"),
        ({"iss": 5}, "no issuer"),
        ({"sub": None}, "lacks the claim sub"),
        ({"sub": ""}, "no subject"),
    ],
)
async def test_a_token_with_a_wrong_claim_is_refused(identity: Identity, changed: dict[str, Any], words: str) -> None:
    if changed.get("iss") == 5:
        token = jwt.api_jws.encode(json.dumps({"iss": 5}).encode(), identity.people_key.private, algorithm="EdDSA")
    else:
        token = identity.token(**changed)
    refusal = await refusal_of(identity, f"Bearer {token}")
    assert refusal.reason is Reason.CREDENTIALS_INVALID
    assert words in refusal.message
    assert token not in refusal.message


@pytest.mark.parametrize(
    "text",
    [
        "Bearer ",
        "Bearer garbage",
        "Bearer a.b.c",
        "Basic YTpi",
        "Bearer pba_",
        "Bearer pbd_",
        "Bearer pbd_x_y",
        "x" * 20_000,
        "Bearer " + "x" * 20_000,
    ],
)
async def test_garbled_credentials_are_refused(identity: Identity, text: str) -> None:
    assert (await refusal_of(identity, text)).reason is Reason.CREDENTIALS_INVALID


async def test_a_token_without_a_signature_is_refused(identity: Identity) -> None:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": now() + timedelta(hours=1)}
    token = jwt.encode(claims, "", algorithm="none", headers={"kid": identity.people_key.key_id})
    assert "algorithm" in (await refusal_of(identity, f"Bearer {token}")).message


async def test_a_token_signed_with_the_public_key_as_a_shared_secret_is_refused(identity: Identity) -> None:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": now() + timedelta(hours=1)}
    secret = identity.people_key.public_jwk()["x"]
    token = jwt.encode(claims, secret, algorithm="HS256", headers={"kid": identity.people_key.key_id})
    assert "algorithm" in (await refusal_of(identity, f"Bearer {token}")).message


async def test_a_token_of_another_key_under_the_same_id_is_refused(identity: Identity) -> None:
    token = identity.token(key=SigningKey.generate())
    assert (await refusal_of(identity, f"Bearer {token}")).message == "token is not valid"


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
async def test_keys_of_the_other_accepted_kinds_work(identity: Identity, algorithm: str) -> None:
    if algorithm == "ES256":
        private: Any = ec.generate_private_key(ec.SECP256R1())
        jwk = ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
    else:
        private = rsa.generate_private_key(65537, 2048)
        jwk = RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
    identity.people_jwks.write_text(json.dumps({"keys": [{**jwk, "kid": "k", "alg": algorithm}]}))
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": now() + timedelta(hours=1)}
    token = jwt.encode(claims, private, algorithm=algorithm, headers={"kid": "k"})
    assert isinstance(await identity.authenticator.authenticate(f"Bearer {token}"), Person)


async def test_keys_are_read_again_when_their_file_changes(identity: Identity) -> None:
    await identity.authenticator.authenticate(f"Bearer {identity.token()}")
    new = SigningKey.generate()
    write_jwks(identity.people_jwks, new)
    identity.clock.advance(timedelta(seconds=11))
    minted = issue_token(new, issuer=ISSUER, audience=AUDIENCE, subject="bob")
    assert isinstance(await identity.authenticator.authenticate(f"Bearer {minted}"), Person)
    assert "unknown key" in (await refusal_of(identity, f"Bearer {identity.token()}")).message


async def test_a_broken_file_of_keys_leaves_the_last_good_ones(identity: Identity) -> None:
    await identity.authenticator.authenticate(f"Bearer {identity.token()}")
    identity.people_jwks.write_text("not json")
    identity.clock.advance(timedelta(seconds=11))
    assert isinstance(await identity.authenticator.authenticate(f"Bearer {identity.token()}"), Person)


async def test_what_was_found_out_holds_for_ten_seconds(identity: Identity) -> None:
    token = f"Bearer {identity.token()}"
    for _ in range(3):
        await identity.authenticator.authenticate(token)
    assert len(identity.directory.asked) == 1
    identity.clock.advance(timedelta(seconds=10))
    await identity.authenticator.authenticate(token)
    assert len(identity.directory.asked) == 2


async def test_nobody_signs_in_as_the_system_user(identity: Identity) -> None:
    identity.directory.people["ghost"] = Person(SYSTEM_USER_ID, "prebuilds", {})
    assert "cannot sign in" in (await refusal_of(identity, f"Bearer {identity.token('ghost')}")).message
    assert "cannot sign in" in (await refusal_of(identity, f"Bearer {identity.token('nobody')}")).message


async def test_a_token_of_people_cannot_claim_to_be_a_service(identity: Identity) -> None:
    token = identity.token("reconciler", iss="prebuilds-services", aud="claims")
    assert (await refusal_of(identity, f"Bearer {token}")).reason is Reason.CREDENTIALS_INVALID


async def test_roles_in_a_token_count_only_where_its_issuer_is_authoritative(tmp_path: Path) -> None:
    roles = AssertedRoles({"acme": frozenset({Role.OWNER, Role.MEMBER})}, is_operator=True)
    for authoritative in (False, True):
        identity = Identity(tmp_path, authoritative=authoritative)
        token = issue_token(
            identity.people_key,
            issuer=ISSUER,
            audience=AUDIENCE,
            subject="alice",
            organizations=roles.organizations,
            operator=roles.is_operator,
        )
        await identity.authenticator.authenticate(f"Bearer {token}")
        assert identity.directory.asked[0][3] == (roles if authoritative else None)


@pytest.mark.parametrize(
    "claim", ["owner", {"organizations": ["acme"]}, {"organizations": {"acme": ["king"]}}, {"operator": "yes"}]
)
async def test_a_malformed_claim_of_roles_is_refused(tmp_path: Path, claim: object) -> None:
    identity = Identity(tmp_path, authoritative=True)
    assert "malformed" in (await refusal_of(identity, f"Bearer {identity.token(prebuilds=claim)}")).message


async def test_an_authoritative_token_without_the_claim_has_no_roles(tmp_path: Path) -> None:
    identity = Identity(tmp_path, authoritative=True)
    await identity.authenticator.authenticate(f"Bearer {identity.token()}")
    assert identity.directory.asked[0][3] == AssertedRoles({}, is_operator=False)


async def test_a_service_is_known_by_its_own_token_for_this_callee_alone(identity: Identity) -> None:
    credentials = ServiceCredentials(ServiceName.RECONCILER, identity.service_key)
    principal = await identity.authenticator.authenticate(credentials.authorization(ServiceName.CLAIMS))
    assert principal == Service(ServiceName.RECONCILER)
    refusal = await refusal_of(identity, credentials.authorization(ServiceName.PROVISIONER))
    assert "another audience" in refusal.message


async def test_a_service_token_of_a_wrong_key_is_refused(identity: Identity, tmp_path: Path) -> None:
    (tmp_path / "wrong.pem").write_bytes(SigningKey.generate().pem())
    credentials = ServiceCredentials.read(ServiceName.RECONCILER, tmp_path / "wrong.pem")
    refusal = await refusal_of(identity, credentials.authorization(ServiceName.CLAIMS))
    assert refusal.reason is Reason.CREDENTIALS_INVALID


def test_a_service_token_is_made_again_before_it_expires(identity: Identity) -> None:
    clock = ManualClock()
    credentials = ServiceCredentials(ServiceName.CLAIMS, identity.service_key, clock)
    first = credentials.authorization(ServiceName.RECONCILER)
    clock.advance(timedelta(minutes=3))
    assert credentials.authorization(ServiceName.RECONCILER) == first
    clock.advance(timedelta(minutes=1))
    assert credentials.authorization(ServiceName.RECONCILER) != first


async def test_an_agents_token_is_read_and_left_to_be_checked_at_its_row(identity: Identity) -> None:
    agent_id = AgentId(uuid4())
    token = mint_agent_token({"k1": b"secret"}, "k1", agent_id, 1)
    assert await identity.authenticator.authenticate(f"Bearer {token}") == Agent(agent_id, token)


async def test_a_daemons_key_carries_organisation_and_tags(identity: Identity) -> None:
    key = make_daemon_key(ProvisionerKeyId(uuid4()))
    organization = OrganizationId(uuid4())
    stored = StoredDaemonKey(key.key_id, key.secret_sha256, organization, {"zone": "a"})
    identity.directory.daemons[key.key_id] = stored
    assert key.token not in repr(key)
    principal = await identity.authenticator.authenticate(f"Bearer {key.token}")
    assert principal == Daemon(key.key_id, organization, {"zone": "a"})
    wrong = await refusal_of(identity, f"Bearer pbd_{key.key_id.hex}_{'0' * 64}")
    unknown = await refusal_of(identity, f"Bearer pbd_{uuid4().hex}_{'0' * 64}")
    assert wrong.reason is unknown.reason is Reason.CREDENTIALS_INVALID
    assert wrong.message == unknown.message


async def test_a_revoked_daemons_key_is_soon_refused(identity: Identity) -> None:
    key = make_daemon_key(ProvisionerKeyId(uuid4()))
    identity.directory.daemons[key.key_id] = StoredDaemonKey(key.key_id, key.secret_sha256, None, {})
    await identity.authenticator.authenticate(f"Bearer {key.token}")
    del identity.directory.daemons[key.key_id]
    identity.clock.advance(timedelta(seconds=1))
    assert (await refusal_of(identity, f"Bearer {key.token}")).reason is Reason.CREDENTIALS_INVALID


def test_a_key_without_a_secret_is_the_hash_of_nothing_known() -> None:
    made = make_daemon_key(ProvisionerKeyId(uuid4()), random=b"x" * 32)
    assert made.secret_sha256 == hashlib.sha256((b"x" * 32).hex().encode()).digest()


def test_a_services_key_has_the_id_under_which_its_public_half_is_published(tmp_path: Path) -> None:
    published = SigningKey.generate()
    (tmp_path / "key.pem").write_bytes(published.pem())
    key = ServiceKey.read(tmp_path / "key.pem")
    assert key.key_id == published.public_jwk()["kid"]
    assert "private" not in repr(key)


def test_a_file_without_an_ed25519_key_is_a_value_error(tmp_path: Path) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "key.pem").write_bytes(
        other.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    with pytest.raises(ValueError, match="no Ed25519"):
        ServiceKey.read(tmp_path / "key.pem")


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"keys": 5}'])
def test_what_is_no_set_of_keys_is_a_value_error(document: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_jwks(document)


async def test_keys_behind_a_url_are_asked_for_again_only_after_a_while() -> None:
    clock, old, new = ManualClock(), SigningKey.generate(), SigningKey.generate()
    only_old = {"keys": [old.public_jwk()]}
    documents = [json.dumps(each) for each in (only_old, only_old, {"keys": [old.public_jwk(), new.public_jwk()]})]
    fetched: list[str] = []

    async def fetch() -> bytes:
        fetched.append(documents[len(fetched)])
        return fetched[-1].encode()

    keys = JwksUrl("https://issuer.test/jwks", clock, fetch)
    assert await keys.find(old.key_id) is not None
    assert await keys.find("unknown") is None
    assert len(fetched) == 1, "an unknown id does not make us hammer the issuer"
    clock.advance(timedelta(seconds=10))
    assert await keys.find("unknown") is None
    clock.advance(timedelta(seconds=10))
    assert await keys.find(new.key_id) is not None
    assert len(fetched) == 3
