"""The arguments that the command accepts, and the errors for the others."""

from __future__ import annotations

import base64
import binascii
import math
import re
from pathlib import Path
from typing import NamedTuple

import grpc
import typer

_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]]+):(?P<port>[0-9]{1,5})")
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_SERVICE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_KEY = re.compile(r"[0-9a-z_.-]+")
_VALUE = re.compile(r"[ -~]*")
_HIGHEST_PORT = 65_535
_LONGEST_TIMEOUT = 3_600


class Metadatum(NamedTuple):
    """One header to send with each call."""

    key: str
    value: str | bytes


class Pem(NamedTuple):
    """A file with certificates or a private key."""

    path: str
    pem: bytes


class Token(NamedTuple):
    """A file with a token, and the token."""

    path: str
    text: str


def address(value: str) -> str:
    """Accept HOST:PORT."""
    match = _ADDRESS.fullmatch(value)
    if match is None or not 0 < int(match["port"]) <= _HIGHEST_PORT:
        raise typer.BadParameter(
            f"{value!r} is not HOST:PORT, as in 127.0.0.1:50051, gpu-1.lan:50051 or [::1]:50051"
        )
    return value


def service(value: str) -> str:
    """Accept the full name of a service."""
    if not _SERVICE.fullmatch(value):
        raise typer.BadParameter(f"{value!r} is not PACKAGE.SERVICE, as in backend.Backend")
    return value


def method(value: str) -> str:
    """Accept the name of an RPC without its service."""
    if not _NAME.fullmatch(value):
        raise typer.BadParameter(
            f"{value!r} is not the name of an RPC, as in Predict; the service goes to --service"
        )
    return value


class RpcName(NamedTuple):
    """The full name of a service, and the name of one of its RPCs, "" for none."""

    service: str
    method: str


def rpc(value: str) -> RpcName:
    """Read SERVICE/METHOD; METHOD may be missing."""
    named, _, name = value.removeprefix("/").partition("/")
    if not _SERVICE.fullmatch(named) or (name and not _NAME.fullmatch(name)):
        raise typer.BadParameter(f"{value!r} is not SERVICE/METHOD, as in backend.Backend/Predict")
    return RpcName(named, name)


def model(value: str) -> str:
    """Accept the identity of a model, which travels as a header."""
    if not value or value != value.strip() or not _VALUE.fullmatch(value):
        raise typer.BadParameter(f"{value!r} is not printable ASCII without spaces around it")
    return value


def metadatum(text: str) -> Metadatum:
    """Read KEY=VALUE; the value of a key that ends in -bin is base64."""
    key, equals, value = text.partition("=")
    key = key.lower()
    if not equals or not _KEY.fullmatch(key) or key.startswith("grpc-"):
        raise typer.BadParameter(
            f"{text!r} is not KEY=VALUE, as in 'authorization=Bearer TOKEN'; a key is made of"
            " letters, digits, '-', '_' and '.', and does not start with 'grpc-'"
        )
    if key.endswith("-bin"):
        return Metadatum(key, unbase64(value))
    if not _VALUE.fullmatch(value):
        raise typer.BadParameter(
            f"the value of {key!r} must be printable ASCII; anything else goes as base64 under a"
            " key that ends in '-bin'"
        )
    return Metadatum(key, value)


def seconds(text: str) -> float:
    """Read a number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= _LONGEST_TIMEOUT:
        raise typer.BadParameter(
            f"{text!r} is not a number of seconds above 0 and up to {_LONGEST_TIMEOUT}"
        )
    return value


def certificates(path: str) -> Pem:
    """Read certificates from a file."""
    pem = _contents(path)
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        raise typer.BadParameter(f"{path} contains no certificate in PEM form (BEGIN CERTIFICATE)")
    return Pem(path, pem)


def private_key(path: str) -> Pem:
    """Read a private key from a file."""
    pem = _contents(path)
    if b"PRIVATE KEY-----" not in pem:
        raise typer.BadParameter(f"{path} contains no private key in PEM form (BEGIN PRIVATE KEY)")
    return Pem(path, pem)


def token(path: str) -> Token:
    """Read a token from a file."""
    text = _contents(path).decode("ascii", "replace").strip()
    if not re.fullmatch(r"[!-~]+", text):
        raise typer.BadParameter(f"{path} must contain one token, and nothing else")
    return Token(path, text)


def _contents(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"cannot read {path}: {error.strerror}") from error


def status_code(value: str) -> str:
    """Read the name or number of an error's status code; return the name."""
    errors = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
    for code in errors:
        if value.strip().upper() in (code.name, str(code.value[0])):
            return str(code.name)
    names = ", ".join(f"{code.name} ({code.value[0]})" for code in errors)
    raise typer.BadParameter(f"{value!r} is not an error code; use one of {names}")


def unbase64(value: str) -> bytes:
    """Read base64, with or without padding, of either alphabet."""
    text = "".join(value.split()).rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise typer.BadParameter(
            f"{value[:40]!r} is not base64: it is what travels in grpc-status-details-bin,"
            " letters, digits, '+' and '/', with or without '=' at the end"
        ) from error
