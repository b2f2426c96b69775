"""An authority and certificates of one's own, for fleets without another source of certificates."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

AUTHORITY = "ca"
"""The name of the authority's files."""

_AUTHORITY_DAYS = 3650
_EARLIER = dt.timedelta(hours=1)  # for machines whose clocks are behind
_PEM = serialization.Encoding.PEM


class Authority:
    """Signs certificates. Its key is in a folder, as `ca.key`, and its certificate as `ca.pem`.

    Args:
        folder: the folder; it is created, and so is the authority, unless it is there.

    Raises:
        ValueError: the files of the authority cannot be used.
        OSError: they cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.is_new = not (folder / f"{AUTHORITY}.pem").exists()
        if self.is_new:
            self._create()
        else:
            self._read()

    def _create(self) -> None:
        self._key = _new_key()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "grpcerrors fleet")])
        builder = _builder(name, name, self._key, _AUTHORITY_DAYS)
        builder = _with_role(builder, signs_certificates=True)
        self._certificate = builder.sign(self._key, hashes.SHA256())
        _write(self.folder, AUTHORITY, self._certificate, self._key)

    def _read(self) -> None:
        cert, key = (self.folder / f"{AUTHORITY}.{end}" for end in ("pem", "key"))
        try:
            self._certificate = x509.load_pem_x509_certificate(cert.read_bytes())
            loaded = serialization.load_pem_private_key(key.read_bytes(), None)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{cert} and {key} are no authority: {error}") from error
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{key} is not a key that this command has made")  # noqa: TRY004
        self._key = loaded

    def issue(self, name: str, hosts: Sequence[str], days: int) -> None:
        """Write a certificate and its key as `NAME.pem` and `NAME.key`; replace earlier ones.

        Args:
            name: the name of the files, and the common name.
            hosts: the names and addresses that a server with it is reached at; none for a client.
            days: how long it is valid.
        """
        key = _new_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = _builder(subject, self._certificate.subject, key, days)
        builder = _with_role(builder, signs_certificates=False)
        if hosts:
            purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
            names = x509.SubjectAlternativeName(map(_general, hosts))
            builder = builder.add_extension(names, critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = builder.add_extension(signer, critical=False).sign(self._key, hashes.SHA256())
        _write(self.folder, name, certificate, key)


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _with_role(
    builder: x509.CertificateBuilder, *, signs_certificates: bool
) -> x509.CertificateBuilder:
    basic = x509.BasicConstraints(ca=signs_certificates, path_length=None)
    usage = x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    return builder.add_extension(basic, critical=True).add_extension(usage, critical=True)


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(
    folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> None:
    """Write both files, each in one step; only this user can read the key."""
    secret = key.private_bytes(
        _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    shown = certificate.public_bytes(_PEM)
    contents = ((f"{name}.key", secret, 0o600), (f"{name}.pem", shown, 0o644))
    for file, content, mode in contents:
        new = folder / f".{file}.new"
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as opened:
            opened.write(content)
        new.replace(folder / file)
