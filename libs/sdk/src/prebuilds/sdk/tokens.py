"""Tokens of people, made with a key of one's own; elsewhere an identity provider makes them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import jwt

from prebuilds.domain.principals import Role
from prebuilds.sdk.keys import SigningKey

CLAIM: Final = "prebuilds"
"""The claim that holds a person's roles; read by servers for which the issuer is authoritative."""

DEFAULT_LIFETIME: Final = timedelta(hours=12)


def issue_token(
    key: SigningKey,
    *,
    issuer: str,
    audience: str,
    subject: str,
    name: str | None = None,
    organizations: Mapping[str, Collection[Role]] | None = None,
    operator: bool = False,
    lifetime: timedelta = DEFAULT_LIFETIME,
    now: datetime | None = None,
) -> str:
    """Make a JWT for one person.

    `issuer` and `audience` must be what the servers are set to; `subject` says who it is for ever, `name` (default: the
    subject) what people call them; `organizations` are the roles by organisation *name*. Raises ValueError for a
    lifetime that is not above zero.
    """
    if lifetime <= timedelta(0):
        raise ValueError("a token's lifetime must be above zero")
    issued = now or datetime.now(UTC)
    roles = {organization: sorted(held) for organization, held in (organizations or {}).items()}
    claims: dict[str, Any] = {
        "iss": issuer,
        "aud": audience,
        "sub": subject,
        "name": name or subject,
        "iat": issued,
        "nbf": issued,
        "exp": issued + lifetime,
        CLAIM: {"organizations": roles, "operator": operator},
    }
    return jwt.encode(claims, key.private, algorithm="EdDSA", headers={"kid": key.key_id})
