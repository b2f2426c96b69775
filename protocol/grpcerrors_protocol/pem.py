"""The PEM files of one side of TLS connections: read, checked, and read again when they change."""

from __future__ import annotations

import contextlib
import math
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Warn = Callable[[str], object]

CERT, KEY, CLIENT_CA, CA = "--tls-cert", "--tls-key", "--tls-client-ca", "--tls-ca"

# The public keys that gRPC accepts: RSA, and ECDSA on P-256 and P-384. Object identifiers in DER.
_KEY_TYPES = tuple(map(bytes.fromhex, ("2a864886f70d010101", "2a8648ce3d030107", "2b81040022")))


class TlsError(ValueError):
    """A certificate, a key or a CA cannot be used. The text names the option and the file."""


@dataclass(frozen=True)
class Pem:
    """The contents of the files; empty for those that were not given.

    `context` has the certificate and the key, `expires` is in Unix seconds, and `problem` says why
    peers refuse the certificate.
    """

    cert: bytes = b""
    key: bytes = b""
    ca: bytes = b""
    expires: float = math.inf
    problem: str = ""
    context: ssl.SSLContext | None = field(default=None, compare=False)


class PemFiles:
    """Certificate, key and CA of one side of connections."""

    def __init__(
        self, cert: Path | None, key: Path | None, ca: Path | None, ca_option: str, warn: Warn
    ) -> None:
        check_pair(cert, key)
        self._cert, self._key, self._ca = cert, key, ca
        self._ca_option = ca_option
        self._warn = warn
        self._lock = threading.Lock()
        self._told = ""
        self._stamps = self._look()
        self.version = 0
        self.pem = self._read()
        self._tell()

    def refresh(self) -> int:
        """Read the files again if they have changed; return the version of what is in use."""
        with self._lock:
            stamps = self._look()
            if stamps != self._stamps:
                self._stamps = stamps
                try:
                    pem = self._read()
                except TlsError as error:
                    self._warn(f"{error}; what was read before stays in use")
                else:
                    self.version += pem != self.pem
                    self.pem = pem
            self._tell()
            return self.version

    def _tell(self) -> None:
        """Warn once of a certificate that peers refuse."""
        problem = self.pem.problem
        if not problem and self.pem.expires < time.time():
            problem = "certificate has expired"
        if problem and problem != self._told:
            self._warn(f"{CERT} {self._cert} is refused by its peers: {problem}")
        self._told = problem

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stamp(path) for path in (self._cert, self._key, self._ca) if path)

    def _read(self) -> Pem:
        ca = b""
        if self._ca is not None:
            ca = _read(self._ca_option, self._ca, "CERTIFICATE")
            _trust(f"{self._ca_option} {self._ca}", ca)
        if self._cert is None or self._key is None:
            return Pem(ca=ca)
        cert, key = _read(CERT, self._cert, "CERTIFICATE"), _read(KEY, self._key, "PRIVATE KEY")
        _trust(f"{CERT} {self._cert}", cert)
        context = _present(self._cert, self._key)
        # OpenSSL has read the files itself, and they may be in the middle of a change.
        if (cert, key) != (_read(CERT, self._cert), _read(KEY, self._key)):
            raise TlsError(f"{CERT} {self._cert} and {KEY} {self._key} are being written")
        expires, problem = _inspect(f"{CERT} {self._cert}", cert, context)
        if "purpose" in problem and self._ca_option == CA:
            problem = ""  # it is a certificate for clients only, and used by one
        return Pem(cert, key, ca, expires, problem, context)


def check_pair(cert: Path | None, key: Path | None) -> None:
    """Check that both are given or none. Raises TlsError."""
    if (cert is None) is not (key is None):
        given, missing = (CERT, KEY) if key is None else (KEY, CERT)
        raise TlsError(f"{given} needs {missing}: give the certificate and its private key")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(option: str, path: Path, kind: str = "") -> bytes:
    """Return the contents of a file, which must have a block of that kind in PEM form."""
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise TlsError(f"{option} {path}: {error.strerror or error}") from error
    if f"{kind}-----".encode() not in pem:
        raise TlsError(f"{option} {path} has no {kind.lower()} in PEM form (BEGIN {kind})")
    return pem


def _trust(what: str, pem: bytes) -> ssl.SSLContext:
    """Return a context of a client that trusts some certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        # The names between the certificates of a bundle may be in any script.
        context.load_verify_locations(cadata=pem.decode("ascii", "ignore"))
    except ssl.SSLError as error:
        raise TlsError(f"{what} cannot be read: the certificate is damaged") from error
    return context


def _present(cert: Path, key: Path) -> ssl.SSLContext:
    """Return a context of a server with a certificate and its key."""
    encrypted = TlsError(
        f"{KEY} {key} is encrypted; write it without a password, readable by this user only: "
        "openssl pkey -in OLD -out NEW"
    )

    def no_password() -> str:
        raise encrypted

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key, no_password)
    except ssl.SSLError as error:
        if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
            raise TlsError(f"{KEY} {key} does not belong to {CERT} {cert}") from error
        if error.reason is None:
            raise TlsError(f"{KEY} {key} cannot be read: the key is damaged") from error
        why = error.reason.lower().replace("_", " ")
        raise TlsError(f"{CERT} {cert} and {KEY} {key} cannot be used: {why}") from error
    except OSError as error:
        raise TlsError(f"{CERT} {cert} and {KEY} {key}: {error.strerror}") from error
    return context


def _inspect(what: str, cert: bytes, server: ssl.SSLContext) -> tuple[float, str]:
    """Return when a certificate expires, in Unix seconds, and why peers refuse it, "" if not.

    Python parses no certificate but that of a peer, so this makes a connection in memory.
    """
    client = _trust(what, cert)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(back, there)
    theirs = server.wrap_bio(there, back, server_side=True)
    try:
        for side in (ours, theirs, ours):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    except ssl.SSLCertVerificationError as error:
        return math.inf, error.verify_message
    found = ours.getpeercert()
    der = ours.getpeercert(binary_form=True)
    if not found or not der or not any(kind in der for kind in _KEY_TYPES):
        raise TlsError(f"{what} has a key that gRPC does not support; use RSA, P-256 or P-384")
    return ssl.cert_time_to_seconds(str(found["notAfter"])), ""
