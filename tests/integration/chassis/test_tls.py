"""TLS: who is not shown the right certificate does not get in, and a renewed one needs no restart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from prebuilds.chassis.channels import open_channel
from prebuilds.chassis.identity.credentials import ServiceCredentials
from prebuilds.chassis.settings import PeerSettings
from prebuilds.chassis.tls import channel_credentials
from prebuilds.domain.principals import ServiceName
from tests.support.identity import Identity
from tests.support.tiny_service import Stage, TinyClient, open_stage


class Authority:
    """Signs certificates for 127.0.0.1 and writes them as PEM."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"authority {folder.name}")])
        self.file = folder / "ca.pem"
        self.file.write_bytes(self._certify(self._name, self._key, is_authority=True))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Certificate and key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate, private = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        certificate.write_bytes(self._certify(subject, key, is_authority=False))
        return certificate, private

    def _certify(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_authority: bool) -> bytes:
        now = datetime.now(UTC)
        built = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        )
        return built.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


async def call(stage: Stage, settings: PeerSettings) -> str:
    credentials = ServiceCredentials(ServiceName.RECONCILER, stage.identity.service_key)
    async with open_channel(
        stage.server.address, callee=ServiceName.CLAIMS, credentials=credentials, tls=channel_credentials(settings)
    ) as channel:
        answer = await TinyClient(channel, None).unary("x", timeout=20)
    return str(answer.value)


def folder(path: Path, name: str) -> Path:
    made = path / name
    made.mkdir()
    return made


async def test_services_call_each_other_with_certificates_of_their_own(tmp_path: Path) -> None:
    authority, stranger = Authority(folder(tmp_path, "ours")), Authority(folder(tmp_path, "theirs"))
    certificate, key = authority.issue("server")
    served = {"tls_certificate_file": certificate, "tls_key_file": key, "tls_client_ca_file": authority.file}
    async with open_stage(Identity(tmp_path), settings=served) as stage:
        own_certificate, own_key = authority.issue("reconciler")
        ours = PeerSettings(peer_ca_file=authority.file, peer_certificate_file=own_certificate, peer_key_file=own_key)
        assert await call(stage, ours) == "X"
        their_certificate, their_key = stranger.issue("evil")
        for wrong in (
            PeerSettings(peer_ca_file=authority.file),
            PeerSettings(peer_ca_file=authority.file, peer_certificate_file=their_certificate, peer_key_file=their_key),
            PeerSettings(peer_ca_file=stranger.file, peer_certificate_file=own_certificate, peer_key_file=own_key),
            PeerSettings(),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(stage, wrong)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_renewed_certificate_is_shown_without_a_restart(tmp_path: Path) -> None:
    old, new = Authority(folder(tmp_path, "old")), Authority(folder(tmp_path, "new"))
    certificate, key = old.issue("server")
    async with open_stage(
        Identity(tmp_path), settings={"tls_certificate_file": certificate, "tls_key_file": key}
    ) as stage:
        assert await call(stage, PeerSettings(peer_ca_file=old.file)) == "X"
        renewed_certificate, renewed_key = new.issue("server")
        renewed_key.replace(key)
        renewed_certificate.replace(certificate)
        assert await call(stage, PeerSettings(peer_ca_file=new.file)) == "X"
