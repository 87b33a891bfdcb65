"""Public keys that tokens are checked with: a JWKS that may change while the process runs."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Protocol, cast

import structlog
from jwt import PyJWK
from jwt.exceptions import PyJWTError
from pydantic import BaseModel

from prebuilds.chassis.clock import Clock, SystemClock

ALGORITHMS: Final = ("EdDSA", "ES256", "RS256")
"""Signatures that are believed: asymmetric ones only, so that who can verify cannot sign."""

_REFRESH_AT_MOST_EVERY: Final = 1.0
_FETCH_AT_MOST_EVERY: Final = 10.0
_FETCH_AGAIN_AFTER: Final = 300.0
_FETCH_TIMEOUT: Final = 5.0

_log = structlog.get_logger(__name__)


class KeySet(Protocol):
    """The public keys of one issuer."""

    async def find(self, key_id: str) -> PyJWK | None:
        """The key of that id; None where the issuer has none such."""
        ...


class JwksFile:
    """A JWKS in a file, read again when the file changes; a file that turns bad leaves the last good keys in force."""

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        """Nothing is read before the first token."""
        self._path = path
        self._clock = clock or SystemClock()
        self._keys: dict[str, PyJWK] = {}
        self._read: tuple[int, int, int] | None = None
        self._looked_at: float | None = None
        self._lock = asyncio.Lock()

    async def find(self, key_id: str) -> PyJWK | None:
        """The key of that id, as of at most a second ago."""
        # Who comes while the file is being read waits for it: before the first reading there are no keys at all.
        async with self._lock:
            now = self._clock.monotonic()
            if self._looked_at is None or now - self._looked_at >= _REFRESH_AT_MOST_EVERY:
                await asyncio.to_thread(self._refresh)
                self._looked_at = now
            return self._keys.get(key_id)

    def _refresh(self) -> None:
        try:
            found = self._path.stat()
            version = (found.st_mtime_ns, found.st_size, found.st_ino)
            if version != self._read:
                self._keys = parse_jwks(self._path.read_bytes())
                self._read = version
        except (OSError, ValueError) as error:
            _log.warning("keys could not be read", path=str(self._path), error=str(error))


class JwksUrl:
    """A JWKS behind a URL: fetched every 5 min, and for an unknown key id at most every 10 s."""

    def __init__(
        self, url: str, clock: Clock | None = None, fetch: Callable[[], Awaitable[bytes]] | None = None
    ) -> None:
        """`fetch` stands in for the network in tests."""
        self._url = url
        self._clock = clock or SystemClock()
        self._fetch = fetch or (lambda: asyncio.to_thread(_download, url))
        self._keys: dict[str, PyJWK] = {}
        self._fetched_at: float | None = None
        self._lock = asyncio.Lock()

    async def find(self, key_id: str) -> PyJWK | None:
        """The key of that id."""
        async with self._lock:
            now = self._clock.monotonic()
            patience = _FETCH_AGAIN_AFTER if key_id in self._keys else _FETCH_AT_MOST_EVERY
            if self._fetched_at is None or now - self._fetched_at >= patience:
                self._fetched_at = now
                try:
                    self._keys = parse_jwks(await self._fetch())
                except (OSError, ValueError) as error:
                    _log.warning("keys could not be fetched", url=self._url, error=str(error))
            return self._keys.get(key_id)


class NoKeys:
    """The keys of an issuer that is not configured: none."""

    async def find(self, key_id: str) -> PyJWK | None:  # noqa: ARG002
        """Never anything."""
        return None


class _Jwks(BaseModel):
    keys: list[dict[str, Any]]


def parse_jwks(document: bytes) -> dict[str, PyJWK]:
    """The usable public keys by id; keys of other kinds are left out. Raises ValueError where it is no JWKS."""
    keys: dict[str, PyJWK] = {}
    for entry in _Jwks.model_validate_json(document).keys:
        try:
            key = PyJWK(entry)
        except PyJWTError:
            continue
        if key.key_id and key.algorithm_name in ALGORITHMS:
            keys[key.key_id] = key
    return keys


def _download(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=_FETCH_TIMEOUT) as answer:  # noqa: S310 - the setting admits http(s) only
        return cast("bytes", answer.read())
