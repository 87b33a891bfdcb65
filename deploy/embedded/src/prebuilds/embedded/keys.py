"""Keys and tokens of one stack: made at the first start, found again by the next, readable by their owner alone."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from prebuilds.domain.principals import Role
from prebuilds.sdk.keys import SigningKey, read_or_create_key
from prebuilds.sdk.tokens import issue_token

ISSUER: Final = "prebuilds"
AUDIENCE: Final = "prebuilds"
ORGANIZATION: Final = "default"
_LIFETIME: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Keys:
    """The key files, and what is signed with them."""

    folder: Path
    people: SigningKey

    @classmethod
    def prepare(cls, folder: Path) -> Keys:
        """Read the keys, making those that are missing."""
        people = read_or_create_key(folder / "people.pem", folder / "people.jwks")
        read_or_create_key(folder / "services.pem", folder / "services.jwks")
        agents = folder / "agent-tokens.json"
        if not agents.exists():
            write_secret(agents, json.dumps({"k1": secrets.token_urlsafe(32)}))
        return cls(folder, people)

    @property
    def agent_tokens_file(self) -> Path:
        """Keys of agents' tokens."""
        return self.folder / "agent-tokens.json"

    @property
    def daemon_key_file(self) -> Path:
        """The provisioner daemon's key; missing until the stack was first up."""
        return self.folder / "daemon.key"

    def token_file(self, person: str) -> Path:
        """Where a person's token lies."""
        return self.folder / f"{person}.token"

    def identity_environment(self) -> Mapping[str, str]:
        """What services need to know people and each other."""
        return {
            "PREBUILDS_TOKEN_ISSUER": ISSUER,
            "PREBUILDS_TOKEN_AUDIENCE": AUDIENCE,
            "PREBUILDS_TOKEN_KEYS_FILE": str(self.folder / "people.jwks"),
            "PREBUILDS_TOKEN_ISSUER_AUTHORITATIVE": "true",
            "PREBUILDS_SERVICE_KEYS_FILE": str(self.folder / "services.jwks"),
            "PREBUILDS_SERVICE_SIGNING_KEY_FILE": str(self.folder / "services.pem"),
        }

    def issue(self, person: str, *, roles: tuple[Role, ...] = (), operator: bool = False) -> str:
        """Make a token of 30 days for a person of the organisation and keep it in their file."""
        token = issue_token(
            self.people,
            issuer=ISSUER,
            audience=AUDIENCE,
            subject=person,
            organizations={ORGANIZATION: roles} if roles else {},
            operator=operator,
            lifetime=_LIFETIME,
        )
        write_secret(self.token_file(person), token)
        return token


def write_secret(path: Path, text: str) -> None:
    """Write a file that its owner alone can read, from its first moment on."""
    scratch = path.with_name(f".{path.name}.new")
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(text)
    scratch.replace(path)
