"""What a service shows of itself to another: a short-lived token for that callee, made again before it expires."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from prebuilds.chassis.clock import Clock, SystemClock
from prebuilds.chassis.identity.keys import SigningKey
from prebuilds.chassis.identity.tokens import SERVICE_TOKEN_LIFETIME, mint_service_token
from prebuilds.domain.principals import ServiceName

_RENEW_BEFORE_END: Final = 60.0


class ServiceCredentials:
    """The tokens of one service towards all others."""

    def __init__(self, service: ServiceName, key: SigningKey, clock: Clock | None = None) -> None:
        """`key` is the service's own signing key."""
        self._service = service
        self._key = key
        self._clock = clock or SystemClock()
        self._tokens: dict[str, tuple[float, str]] = {}

    @classmethod
    def read(cls, service: ServiceName, path: Path) -> ServiceCredentials:
        """With the signing key in that PEM file."""
        return cls(service, SigningKey.read(path))

    def authorization(self, callee: ServiceName) -> str:
        """The value of the `authorization` header for a call to `callee`."""
        now = self._clock.monotonic()
        renew_at, value = self._tokens.get(callee, (now, ""))
        if now >= renew_at:
            token = mint_service_token(self._key, service=self._service, callee=callee, now=self._clock.now())
            value = f"Bearer {token}"
            self._tokens[callee] = (now + SERVICE_TOKEN_LIFETIME.total_seconds() - _RENEW_BEFORE_END, value)
        return value
