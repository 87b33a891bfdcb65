"""TLS credentials; the server's files are read again when they change: a renewed certificate needs no restart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import grpc
import structlog

from prebuilds.chassis.settings import PeerSettings, ServerSettings

_log = structlog.get_logger(__name__)


def server_credentials(settings: ServerSettings) -> grpc.ServerCredentials | None:
    """What the server shows and asks for; None where it serves in the clear."""
    certificate, key, authority = settings.tls_certificate_file, settings.tls_key_file, settings.tls_client_ca_file
    if certificate is None or key is None:
        return None
    files = _ServerFiles(certificate, key, authority)
    # types-grpcio does not know that the fetcher may answer None.
    fetch = cast("Callable[[], grpc.ServerCertificateConfiguration]", files.changed)
    return grpc.dynamic_ssl_server_credentials(files.read(), fetch, require_client_authentication=authority is not None)


def channel_credentials(settings: PeerSettings) -> grpc.ChannelCredentials | None:
    """What calls to other services show and ask for; None where they go in the clear."""
    if settings.peer_ca_file is None:
        return None
    key, certificate = settings.peer_key_file, settings.peer_certificate_file
    return grpc.ssl_channel_credentials(
        root_certificates=settings.peer_ca_file.read_bytes(),
        private_key=None if key is None else key.read_bytes(),
        certificate_chain=None if certificate is None else certificate.read_bytes(),
    )


class _ServerFiles:
    def __init__(self, certificate: Path, key: Path, authority: Path | None) -> None:
        self._certificate = certificate
        self._key = key
        self._authority = authority
        self._version: tuple[int, ...] = ()

    def read(self) -> grpc.ServerCertificateConfiguration:
        """What is in the files now."""
        self._version = self._versions()
        authority = None if self._authority is None else self._authority.read_bytes()
        pair = (self._key.read_bytes(), self._certificate.read_bytes())
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=authority)

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Asked by gRPC at each handshake; None = as before."""
        try:
            return None if self._versions() == self._version else self.read()
        except OSError as error:
            _log.warning("certificate could not be read", error=str(error))
            return None

    def _versions(self) -> tuple[int, ...]:
        files = (self._certificate, self._key, self._authority)
        return tuple(file.stat().st_mtime_ns for file in files if file is not None)
