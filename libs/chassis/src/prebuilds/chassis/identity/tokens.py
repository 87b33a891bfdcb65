"""JWTs of people and of services, checked claim by claim into values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import jwt
from jwt.exceptions import (
    ExpiredSignatureError,
    ImmatureSignatureError,
    InvalidAudienceError,
    InvalidIssuerError,
    MissingRequiredClaimError,
    PyJWTError,
)
from pydantic import BaseModel, Field, StrictBool, TypeAdapter, ValidationError

from prebuilds.chassis.identity.keys import ALGORITHMS, KeySet
from prebuilds.domain.principals import AssertedRoles, Role
from prebuilds.domain.refusals import Reason, Refusal

SERVICES_ISSUER: Final = "prebuilds-services"
ROLES_CLAIM: Final = "prebuilds"

_LEEWAY: Final = timedelta(seconds=10)
_REQUIRED: Final = ["iss", "aud", "sub", "exp"]
_MAX_TOKEN_LENGTH: Final = 16 * 1024


class _RolesClaim(BaseModel):
    organizations: dict[str, frozenset[Role]] = Field(default_factory=dict[str, frozenset[Role]])
    operator: StrictBool = False


_ROLES: Final = TypeAdapter(_RolesClaim)


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """An issuer whose tokens are believed, for one audience."""

    issuer: str
    audience: str
    keys: KeySet
    is_authoritative: bool = False


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """What a token says, once its signature, issuer, audience and times have been checked."""

    issuer: str
    subject: str
    name: str
    expires_at: float
    """Unix time."""
    claims: Mapping[str, Any]


def issuer_of(token: str) -> str:
    """The issuer that a token claims, unverified: it only chooses the keys to verify with."""
    if len(token) > _MAX_TOKEN_LENGTH:
        raise invalid("token is too long")
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except PyJWTError as error:
        raise invalid("not a token that is known here") from error
    issuer = claims.get("iss")
    if not isinstance(issuer, str):
        raise invalid("token has no issuer")
    return issuer


async def verify(token: str, trusted: TrustedIssuer) -> VerifiedToken:
    """Check everything; what is wrong is told in public words without the token."""
    try:
        header = jwt.get_unverified_header(token)
    except PyJWTError as error:
        raise invalid("not a token that is known here") from error
    if header.get("alg") not in ALGORITHMS:
        raise invalid("token is signed by an algorithm that is not accepted")
    key_id = header.get("kid")
    key = await trusted.keys.find(key_id) if isinstance(key_id, str) else None
    if key is None:
        raise invalid("token is signed by an unknown key")
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=list(ALGORITHMS),
            audience=trusted.audience,
            issuer=trusted.issuer,
            leeway=_LEEWAY,
            # nbf is checked where it is given: many identity providers leave it out.
            options={"require": _REQUIRED},
        )
    except PyJWTError as error:
        raise invalid(_public_words(error)) from error
    subject = claims["sub"]
    if not isinstance(subject, str) or not subject:
        raise invalid("token has no subject")
    name = str(claims.get("name") or claims.get("preferred_username") or subject)
    # Postgres stores no text that holds NUL.
    if "\0" in subject + name:
        raise invalid("token names somebody who cannot be")
    return VerifiedToken(trusted.issuer, subject, name, float(claims["exp"]), claims)


def asserted_roles(token: VerifiedToken) -> AssertedRoles:
    """Read the claim `prebuilds`; absent = no roles, malformed or with an unknown role = refused."""
    try:
        stated = _ROLES.validate_python(token.claims.get(ROLES_CLAIM, {}))
    except ValidationError as error:
        raise invalid(f"token's claim {ROLES_CLAIM!r} is malformed") from error
    return AssertedRoles(stated.organizations, stated.operator)


def invalid(message: str) -> Refusal:
    """The refusal for credentials that are there and not good."""
    return Refusal(Reason.CREDENTIALS_INVALID, message)


def _public_words(error: PyJWTError) -> str:
    match error:
        case ExpiredSignatureError():
            return "token has expired"
        case ImmatureSignatureError():
            return "token is not valid yet"
        case InvalidAudienceError():
            return "token is for another audience"
        case InvalidIssuerError():
            return "token is of another issuer"
        case MissingRequiredClaimError():
            return f"token lacks the claim {error.claim}"
        case _:
            return "token is not valid"
