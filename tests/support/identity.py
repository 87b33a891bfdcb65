"""Keys, tokens and a directory in memory, for tests of what stands behind a signature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import jwt

from prebuilds.chassis.identity.authenticator import Authenticator
from prebuilds.chassis.identity.credentials import ServiceKey
from prebuilds.chassis.identity.keys import JwksFile
from prebuilds.chassis.identity.tokens import SERVICES_ISSUER, TrustedIssuer
from prebuilds.domain.ids import OrganizationId, ProvisionerKeyId, UserId
from prebuilds.domain.principals import AssertedRoles, Person, Role, ServiceName, StoredDaemonKey
from prebuilds.sdk.keys import SigningKey, read_or_create_key, write_jwks
from tests.support.clock import ManualClock

ISSUER = "https://issuer.test"
AUDIENCE = "prebuilds"


@dataclass
class FakeDirectory:
    """Knows the people it was given, and makes others at first sight, without roles."""

    people: dict[str, Person] = field(default_factory=dict[str, Person])
    daemons: dict[ProvisionerKeyId, StoredDaemonKey] = field(default_factory=dict[ProvisionerKeyId, StoredDaemonKey])
    asked: list[tuple[str, str, str, AssertedRoles | None]] = field(
        default_factory=list[tuple[str, str, str, AssertedRoles | None]]
    )

    async def person(self, issuer: str, subject: str, name: str, asserted: AssertedRoles | None) -> Person | None:
        self.asked.append((issuer, subject, name, asserted))
        if subject == "nobody":
            return None
        return self.people.setdefault(subject, Person(UserId(uuid4()), name, {}))

    async def daemon(self, key_id: ProvisionerKeyId) -> StoredDaemonKey | None:
        return self.daemons.get(key_id)

    def add_person(
        self, subject: str, *roles: Role, organization: UUID | None = None, operator: bool = False
    ) -> Person:
        held: Mapping[OrganizationId, frozenset[Role]] = {}
        if roles:
            held = {OrganizationId(organization or uuid4()): frozenset(roles)}
        person = Person(UserId(uuid4()), subject, held, operator)
        self.people[subject] = person
        return person


class Identity:
    """An issuer, the services' issuer, and the authenticator that trusts both."""

    def __init__(self, folder: Path, *, authoritative: bool = False, callee: ServiceName = ServiceName.CLAIMS) -> None:
        self.directory = FakeDirectory()
        self.clock = ManualClock()
        self.people_key = SigningKey.generate()
        self.people_jwks = folder / "people.json"
        write_jwks(self.people_jwks, self.people_key)
        services_jwks = folder / "services.json"
        read_or_create_key(folder / "services.pem", services_jwks)
        self.service_key = ServiceKey.read(folder / "services.pem")
        self.authenticator = Authenticator(
            directory=self.directory,
            people=[TrustedIssuer(ISSUER, AUDIENCE, JwksFile(self.people_jwks, self.clock), authoritative)],
            services=TrustedIssuer(SERVICES_ISSUER, callee.value, JwksFile(services_jwks, self.clock)),
            clock=self.clock,
        )

    def token(self, subject: str = "alice", *, key: SigningKey | None = None, **changed: Any) -> str:
        """A good token, but for what is changed; None removes a claim."""
        now = datetime.now(UTC)
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": now + timedelta(hours=1), **changed}
        stated = {name: value for name, value in claims.items() if value is not None}
        signer = key or self.people_key
        return jwt.encode(stated, signer.private, algorithm="EdDSA", headers={"kid": self.people_key.key_id})
