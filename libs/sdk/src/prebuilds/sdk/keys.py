"""A signing key of one's own, where no identity provider is: an Ed25519 key, and the JWKS that servers read."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError

_OWNER_ONLY: Final = 0o600
_ALL_MAY_READ: Final = 0o644


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 private key; its id is the RFC 7638 thumbprint of its public half, as servers derive it too."""

    private: Ed25519PrivateKey = field(repr=False)
    key_id: str

    @classmethod
    def generate(cls) -> Self:
        """Make a new one."""
        return cls._of(Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file with a PEM or JWK private key; raises OSError, or ValueError where it holds no Ed25519 key."""
        content = path.read_bytes()
        key_id: str | None = None
        try:
            if content.lstrip().startswith(b"{"):
                read = PyJWK.from_json(content.decode())
                private, key_id = read.key, read.key_id
            else:
                private = serialization.load_pem_private_key(content, password=None)
        except (ValueError, TypeError, PyJWTError) as error:
            raise ValueError(f"{path} holds no private key that can be read") from error
        if not isinstance(private, Ed25519PrivateKey):
            raise ValueError(f"{path} holds no Ed25519 private key")  # noqa: TRY004 - the file's content is wrong
        return cls._of(private, key_id)

    @classmethod
    def _of(cls, private: Ed25519PrivateKey, key_id: str | None = None) -> Self:
        return cls(private, key_id or _thumbprint(_public_text(private)))

    def pem(self) -> bytes:
        """The private key as PEM (PKCS 8)."""
        return self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def public_jwk(self) -> dict[str, str]:
        """The public half as an entry of a JWKS."""
        text = _public_text(self.private)
        return {"kty": "OKP", "crv": "Ed25519", "x": text, "kid": self.key_id, "alg": "EdDSA", "use": "sig"}


def read_or_create_key(key_file: Path, jwks_file: Path) -> SigningKey:
    """The key in that file, made at first, and the JWKS beside it: the key for its owner alone (0600).

    The JWKS holds public keys only and may be read by all; it is written when missing. Raises OSError, or ValueError
    where the file holds no such key.
    """
    if key_file.exists():
        key = SigningKey.read(key_file)
    else:
        key = SigningKey.generate()
        _write(key_file, key.pem(), _OWNER_ONLY)
    if not jwks_file.exists():
        write_jwks(jwks_file, key)
    return key


def write_jwks(path: Path, *keys: SigningKey) -> None:
    """Write the public halves of these keys as a JWKS; who reads meanwhile sees the old file or the new one."""
    document = json.dumps({"keys": [key.public_jwk() for key in keys]}, indent=2) + "\n"
    _write(path, document.encode(), _ALL_MAY_READ)


def _write(path: Path, content: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # mkstemp makes the file 0600: a private key is at no moment readable for others.
    descriptor, written = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
        Path(written).replace(path)
    except BaseException:
        Path(written).unlink(missing_ok=True)
        raise


def _public_text(private: Ed25519PrivateKey) -> str:
    raw = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _thumbprint(public: str) -> str:
    canonical = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": public}, separators=(",", ":"), sort_keys=True)
    return base64.urlsafe_b64encode(hashlib.sha256(canonical.encode()).digest()).rstrip(b"=").decode()
