"""What a service shows of itself to another: a short-lived token for that callee, made again before it expires."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final, Self

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from prebuilds.chassis.clock import Clock, SystemClock
from prebuilds.chassis.identity.tokens import SERVICES_ISSUER
from prebuilds.domain.principals import ServiceName

_LIFETIME: Final = timedelta(minutes=5)
_RENEW_BEFORE_END: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """The Ed25519 key that services sign with; its id is the RFC 7638 thumbprint of its public half."""

    private: Ed25519PrivateKey = field(repr=False)
    key_id: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a PEM file; raises OSError, or ValueError where it holds no Ed25519 private key."""
        private = serialization.load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(private, Ed25519PrivateKey):
            raise ValueError(f"{path} holds no Ed25519 private key")  # noqa: TRY004 - the file's content is wrong
        return cls(private, _thumbprint(private))


class ServiceCredentials:
    """The tokens of one service towards all others."""

    def __init__(self, service: ServiceName, key: ServiceKey, clock: Clock | None = None) -> None:
        """`key` is what the callees' `service_keys_file` has the public half of."""
        self._service = service
        self._key = key
        self._clock = clock or SystemClock()
        self._tokens: dict[ServiceName, tuple[float, str]] = {}

    @classmethod
    def read(cls, service: ServiceName, path: Path, clock: Clock | None = None) -> Self:
        """With the signing key in that PEM file; raises as `ServiceKey.read`."""
        return cls(service, ServiceKey.read(path), clock)

    def authorization(self, callee: ServiceName) -> str:
        """The value of the `authorization` header for a call to `callee`."""
        now = self._clock.monotonic()
        renew_at, value = self._tokens.get(callee, (now, ""))
        if now >= renew_at:
            value = f"Bearer {self._mint(callee)}"
            self._tokens[callee] = (now + (_LIFETIME - _RENEW_BEFORE_END).total_seconds(), value)
        return value

    def _mint(self, callee: ServiceName) -> str:
        issued = self._clock.now()
        claims = {
            "iss": SERVICES_ISSUER,
            "aud": callee.value,
            "sub": self._service.value,
            "iat": issued,
            "nbf": issued,
            "exp": issued + _LIFETIME,
        }
        return jwt.encode(claims, self._key.private, algorithm="EdDSA", headers={"kid": self._key.key_id})


def _thumbprint(private: Ed25519PrivateKey) -> str:
    raw = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    public = {"crv": "Ed25519", "kty": "OKP", "x": base64.urlsafe_b64encode(raw).rstrip(b"=").decode()}
    canonical = json.dumps(public, separators=(",", ":"), sort_keys=True)
    return base64.urlsafe_b64encode(hashlib.sha256(canonical.encode()).digest()).rstrip(b"=").decode()
