"""From the `authorization` header to a principal.

By its form a token says what it is: `pba_...` an agent's, `pbd_...` a provisioner daemon's, else a JWT, whose issuer
says whether a person's or a service's. What was found out holds for 10 s, so the hot path neither verifies a signature
nor asks the directory; a changed role or a removed signing key thus counts after at most that long. A daemon's key
holds for 1 s only: daemons call seldom, and a revocation is to count at once. Agents are the exception: their tokens
are only *read* here, and checked where the agent's row is read anyway.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final, Protocol
from uuid import UUID

from prebuilds.chassis.clock import Clock, SystemClock
from prebuilds.chassis.identity.cache import Cache
from prebuilds.chassis.identity.keys import JwksFile, JwksUrl, KeySet, NoKeys
from prebuilds.chassis.identity.tokens import (
    SERVICES_ISSUER,
    TrustedIssuer,
    asserted_roles,
    invalid,
    issuer_of,
    verify,
)
from prebuilds.chassis.settings import IdentitySettings
from prebuilds.domain.agents import AgentToken
from prebuilds.domain.ids import SYSTEM_USER_ID, ProvisionerKeyId
from prebuilds.domain.principals import (
    Agent,
    AssertedRoles,
    Daemon,
    Person,
    Principal,
    Service,
    ServiceName,
    StoredDaemonKey,
)
from prebuilds.domain.refusals import Reason, Refusal

_SCHEME: Final = "bearer "
_AGENT_PREFIX: Final = "pba_"
_DAEMON_PREFIX: Final = "pbd_"
_DAEMON_PARTS: Final = 3
_HOLDS_FOR: Final = 10.0
_DAEMON_HOLDS_FOR: Final = 1.0
_REMEMBERED: Final = 10_000


class Directory(Protocol):
    """What identity needs of Postgres; `app.py` passes in something of the store that has these."""

    async def person(self, issuer: str, subject: str, name: str, asserted: AssertedRoles | None) -> Person | None:
        """The user of that issuer and subject, made at first sight; None for a system user, who cannot sign in.

        `asserted` are the roles of a token whose issuer is authoritative; None = the stored roles count.
        """
        ...

    async def daemon(self, key_id: ProvisionerKeyId) -> StoredDaemonKey | None:
        """The key of that id, if it exists and is not revoked."""
        ...


class NobodyElse:
    """The directory of a service that serves no people and no daemons: it knows none."""

    async def person(self, issuer: str, subject: str, name: str, asserted: AssertedRoles | None) -> Person | None:  # noqa: ARG002
        """Nobody."""
        return None

    async def daemon(self, key_id: ProvisionerKeyId) -> StoredDaemonKey | None:  # noqa: ARG002
        """None."""
        return None


class Authenticator:
    """Finds out who sent a token."""

    def __init__(
        self,
        *,
        directory: Directory,
        people: Sequence[TrustedIssuer] = (),
        services: TrustedIssuer | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`people` are the issuers of people's tokens, `services` that of this system's services."""
        self._directory = directory
        self._people = {trusted.issuer: trusted for trusted in people}
        if SERVICES_ISSUER in self._people:
            raise ValueError(f"{SERVICES_ISSUER!r} is the issuer of services and cannot be one of people")
        self._services = services
        self._clock = clock or SystemClock()
        self._principals: Cache[bytes, Principal] = Cache(size=_REMEMBERED, clock=self._clock)

    async def authenticate(self, authorization: str | None) -> Principal:
        """The principal behind an `authorization` header; raises a refusal of the class UNAUTHENTICATED."""
        if not authorization:
            raise Refusal(Reason.CREDENTIALS_MISSING, "no credentials: send `authorization: Bearer <token>`")
        if authorization[: len(_SCHEME)].lower() != _SCHEME:
            raise invalid("credentials must be of the form `Bearer <token>`")
        token = authorization[len(_SCHEME) :].strip()
        if token.startswith(_AGENT_PREFIX):
            return _agent(token)
        digest = hashlib.sha256(token.encode()).digest()
        known = self._principals.known(digest)
        if known is not None:
            return known
        load = self._daemon if token.startswith(_DAEMON_PREFIX) else self._bearer
        return await self._principals.get(digest, lambda: load(token))

    async def _daemon(self, token: str) -> tuple[float, Principal]:
        parts = token.split("_", _DAEMON_PARTS - 1)
        try:
            key_id = ProvisionerKeyId(UUID(hex=parts[1]))
            secret = parts[2]
        except (ValueError, IndexError) as error:
            raise invalid("provisioner key is malformed") from error
        stored = await self._directory.daemon(key_id)
        given = hashlib.sha256(secret.encode()).digest()
        # Compared also where there is no such key: an unknown id takes as long as a wrong secret.
        expected = stored.secret_sha256 if stored is not None else bytes(len(given))
        if not hmac.compare_digest(given, expected) or stored is None:
            raise invalid("provisioner key is not known or was revoked")
        return _DAEMON_HOLDS_FOR, Daemon(stored.key_id, stored.organization_id, stored.tags)

    async def _bearer(self, token: str) -> tuple[float, Principal]:
        issuer = issuer_of(token)
        if issuer == SERVICES_ISSUER and self._services is not None:
            return await self._service(token, self._services)
        trusted = self._people.get(issuer)
        if trusted is None:
            raise invalid("token is of another issuer")
        verified = await verify(token, trusted)
        asserted = asserted_roles(verified) if trusted.is_authoritative else None
        person = await self._directory.person(verified.issuer, verified.subject, verified.name, asserted)
        if person is None or person.user_id == SYSTEM_USER_ID:
            raise invalid("this user cannot sign in")
        return self._holds(verified.expires_at), person

    async def _service(self, token: str, trusted: TrustedIssuer) -> tuple[float, Principal]:
        verified = await verify(token, trusted)
        try:
            name = ServiceName(verified.subject)
        except ValueError as error:
            raise invalid("token names no service of this system") from error
        return self._holds(verified.expires_at), Service(name)

    def _holds(self, expires_at: float) -> float:
        return min(_HOLDS_FOR, expires_at - self._clock.now().timestamp())


def authenticator_for(service: ServiceName, settings: IdentitySettings, directory: Directory) -> Authenticator:
    """The authenticator that the settings describe, for the server of that name."""
    people = TrustedIssuer(
        settings.token_issuer, settings.token_audience, _keys(settings), settings.token_issuer_authoritative
    )
    services = None
    if settings.service_keys_file is not None:
        services = TrustedIssuer(SERVICES_ISSUER, service.value, JwksFile(settings.service_keys_file))
    return Authenticator(directory=directory, people=[people], services=services)


def _keys(settings: IdentitySettings) -> KeySet:
    if settings.token_keys_url is not None:
        return JwksUrl(settings.token_keys_url)
    return NoKeys() if settings.token_keys_file is None else JwksFile(settings.token_keys_file)


def _agent(token: str) -> Agent:
    parsed = AgentToken.parse(token)
    if parsed is None:
        raise invalid("agent token is malformed")
    return Agent(parsed.agent_id, token)
