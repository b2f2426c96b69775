"""TLS for servers and clients, with certificates that are read again when their files change.

An error names the option that the commands have for a file. New files are checked before they are
used: as long as one is missing or does not fit the other, what was read before stays in use, and a
warning says why.
"""

from __future__ import annotations

import logging
import re
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from grpcerrors_protocol.pem import CA, CERT, CLIENT_CA, KEY, PemFiles, TlsError, check_pair

if TYPE_CHECKING:
    from pathlib import Path

    from grpcerrors_protocol.pem import Warn

__all__ = ["ClientTls", "ServerTls", "TlsError", "TlsFiles", "hint"]

_REFUSED = re.compile("(?:CERTIFICATE_VERIFY_FAILED|BAD_SIGNATURE): ([^:]+)")
_log = logging.getLogger(__name__)


class ServerTls:
    """The TLS of a server. New connections use the files as they are then; old ones live on.

    Args:
        cert: the server's certificate in PEM, followed by those of intermediate authorities.
        key: its private key in PEM, not encrypted: RSA, or ECDSA on P-256 or P-384.
        client_ca: the certificates, in PEM, of the authorities that sign those of clients. With
            it, a client without such a certificate is refused.
        warn: is called with a text if new files cannot be used, or the certificate expires; from
            any thread.

    Raises:
        TlsError: a file cannot be used.
    """

    def __init__(
        self, cert: Path, key: Path, client_ca: Path | None = None, *, warn: Warn = _log.warning
    ) -> None:
        self._files = PemFiles(cert, key, client_ca, CLIENT_CA, warn)
        self.asks_clients = client_ca is not None

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials for one server, sync or aio."""
        used = self._files.version

        def changed() -> grpc.ServerCertificateConfiguration | None:
            # gRPC calls this at the beginning of each handshake, in a thread of its own.
            nonlocal used
            version = self._files.refresh()
            if version == used:
                return None
            used = version
            return self._configuration()

        return grpc.dynamic_ssl_server_credentials(
            self._configuration(), changed, require_client_authentication=self.asks_clients
        )

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        pem = self._files.pem
        return grpc.ssl_server_certificate_configuration([(pem.key, pem.cert)], pem.ca or None)

    def context(self) -> ssl.SSLContext:
        """Return a context with the same rules for a server of HTTP."""
        first = current = self._context()
        used = self._files.version

        def follow(connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
            # OpenSSL calls this in each handshake.
            nonlocal current, used
            version = self._files.refresh()
            if version != used:
                current, used = self._context(), version
            connection.context = current

        first.sni_callback = follow
        return first

    def _context(self) -> ssl.SSLContext:
        pem = self._files.pem
        context = pem.context or ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if self.asks_clients:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=pem.ca.decode("ascii", "ignore"))
        return context


class ClientTls:
    """The TLS of clients.

    Args:
        ca: the certificates, in PEM, of the authorities that sign those of servers. The default is
            those that the system trusts.
        cert: the client's certificate, for servers that ask for one.
        key: its private key; see ServerTls.
        warn: see ServerTls.

    Raises:
        TlsError: a file cannot be used, or only one of `cert` and `key` is given.
    """

    def __init__(
        self,
        ca: Path | None = None,
        cert: Path | None = None,
        key: Path | None = None,
        *,
        warn: Warn = _log.warning,
    ) -> None:
        self._files = PemFiles(cert, key, ca, CA, warn)

    def refresh(self) -> int:
        """Read the files again if they have changed; return a number that changes with them."""
        return self._files.refresh()

    def credentials(self) -> grpc.ChannelCredentials:
        """Return credentials for a channel, from what was read last.

        A channel keeps the credentials that it was opened with.
        """
        pem = self._files.pem
        return grpc.ssl_channel_credentials(pem.ca or None, pem.key or None, pem.cert or None)


@dataclass(frozen=True)
class TlsFiles:
    """The PEM files of one process; see ServerTls and ClientTls.

    Attributes:
        cert: its certificate, for its clients and for the servers that it calls.
        key: the private key of the certificate.
        client_ca: the authorities that sign the certificates of its clients.
        ca: the authorities that sign the certificates of the servers that it calls.
    """

    cert: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    ca: Path | None = None

    def server(self, warn: Warn) -> ServerTls | None:
        """Return the TLS that the process serves; None without a certificate. Raises TlsError."""
        check_pair(self.cert, self.key)
        if self.cert is not None and self.key is not None:
            return ServerTls(self.cert, self.key, self.client_ca, warn=warn)
        if self.client_ca is not None:
            raise TlsError(f"{CLIENT_CA} needs {CERT} and {KEY}: a server without TLS asks nobody")
        return None

    def client(self, warn: Warn) -> ClientTls:
        """Return the TLS of its connections. Raises TlsError."""
        return ClientTls(self.ca, self.cert, self.key, warn=warn)


def hint(failure: str, *, tls: bool, instead: str = f"give {CA}") -> str:
    """Return what an error of gRPC about a connection that was not made means; "" if unknown.

    Args:
        failure: the details of the error.
        tls: whether the client used TLS.
        instead: what to do if it did not, and the server serves TLS.
    """
    if tls:
        if "WRONG_VERSION_NUMBER" in failure:
            return "the server does not serve TLS"
        if "Hostname Verification" in failure or "is not in peer certificate" in failure:
            return "the certificate of the server is not for that name or address"
        refused = _REFUSED.search(failure)
        if refused:
            why = refused[1]
            # "unable to get local issuer certificate", "self signed certificate", or, of another
            # authority of the same name, "certificate signature failure"
            if any(sign in why for sign in ("issuer", "self", "signature")):
                why = f"no authority of {CA} signed it"
            return f"the certificate of the server is not accepted: {why}"
    if not any(sign in failure for sign in ("Socket closed", "reset by peer", "Broken pipe")):
        return ""
    if tls:
        return (
            "the server closed the connection; if it asks for a certificate of its clients, give "
            f"{CERT} and {KEY}, signed by the authority that it trusts"
        )
    return f"the server closed the connection; if it serves TLS, {instead}"
