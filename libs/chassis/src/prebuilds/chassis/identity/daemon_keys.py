"""Provisioner keys: how one is made; `authenticator` checks them."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Final

from prebuilds.domain.ids import ProvisionerKeyId

_SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class NewDaemonKey:
    """A key just made: `token` is shown once and stored nowhere, `secret_sha256` is what Postgres keeps."""

    key_id: ProvisionerKeyId
    token: str = field(repr=False)
    secret_sha256: bytes


def make_daemon_key(key_id: ProvisionerKeyId, random: bytes | None = None) -> NewDaemonKey:
    """Make the key of that id: `pbd_<key id as hex>_<secret>`."""
    secret = (random or secrets.token_bytes(_SECRET_BYTES)).hex()
    return NewDaemonKey(key_id, f"pbd_{key_id.hex}_{secret}", hashlib.sha256(secret.encode()).digest())
