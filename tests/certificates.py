"""Certificate authorities and certificates for servers and clients, made while a test runs."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import (
        CertificatePublicKeyTypes,
        PrivateKeyTypes,
    )

_PEM = serialization.Encoding.PEM
_DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Identity:
    """A certificate and its key, in PEM form."""

    cert: bytes
    key: bytes

    def write(self, folder: Path, name: str = "") -> tuple[Path, Path]:
        """Write `NAME.pem` and `NAME.key`, each in one step; return their paths."""
        paths = folder / f"{name or 'server'}.pem", folder / f"{name or 'server'}.key"
        for path, pem in zip(paths, (self.cert, self.key), strict=True):
            replace(path, pem)
        return paths


@dataclass(frozen=True)
class Authority:
    """A certificate authority."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def create(cls, name: str = "test CA") -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _named(name)
        return cls(key, _signed(subject, key, subject, key, (), _DAY, ca=True))

    @property
    def pem(self) -> bytes:
        """The certificate of the authority."""
        return self.certificate.public_bytes(_PEM)

    def write(self, path: Path) -> Path:
        """Write the certificate of the authority."""
        replace(path, self.pem)
        return path

    def issue(
        self,
        *hosts: str,
        name: str = "server",
        lifetime: dt.timedelta = _DAY,
        password: bytes | None = None,
        key: PrivateKeyTypes | None = None,
    ) -> Identity:
        """Return a certificate for some host names and addresses, for servers and clients.

        Args:
            hosts: names and IP addresses.
            name: the common name.
            lifetime: how long it is valid from now; negative if it has expired.
            password: with which the key is encrypted.
            key: its private key; a new one on P-256 by default.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        cert = _signed(_named(name), key, self.certificate.subject, self.key, hosts, lifetime)
        encryption = (
            serialization.BestAvailableEncryption(password)
            if password
            else serialization.NoEncryption()
        )
        secret = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, encryption)
        return Identity(cert.public_bytes(_PEM), secret)


def replace(path: Path, content: bytes) -> None:
    """Replace a file in one step, as tools that renew certificates do."""
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content)
    new.replace(path)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _signed(
    subject: x509.Name,
    key: PrivateKeyTypes,
    issuer: x509.Name,
    signer: ec.EllipticCurvePrivateKey,
    hosts: tuple[str, ...],
    lifetime: dt.timedelta,
    *,
    ca: bool = False,
) -> x509.Certificate:
    now = dt.datetime.now(dt.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(cast("CertificatePublicKeyTypes", key.public_key()))
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 2 * _DAY)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if hosts:
        names = x509.SubjectAlternativeName([_general(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signer, hashes.SHA256())


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
