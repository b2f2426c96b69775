"""Which addresses a server may listen on: without protection, only this machine reaches it."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class ExposedError(ValueError):
    """Other machines could use an unprotected server. The text names the options."""


@dataclass(frozen=True)
class Protection:
    """What protects the ports of a process.

    Attributes:
        tls: whether it serves TLS.
        clients: whether it serves only clients whose certificate an authority has signed.
        tokens: whether it serves only clients with a token.
        insecure: whether it may do without all of these.
        by: the option that names its tokens; "" for a port that asks for none.
    """

    tls: bool = False
    clients: bool = False
    tokens: bool = False
    insecure: bool = False
    by: str = "--tokens"

    def check(self, option: str, address: str, warn: Callable[[str], object]) -> None:
        """Check an address that other machines may reach.

        Args:
            option: the option that names it.
            address: "host:port" or "unix:path".
            warn: is called with a text if the port is not fully protected.

        Raises:
            ExposedError: nothing protects the port, and `insecure` is not set.
        """
        if is_local(address):
            return
        where = f"{option} {address}"
        if not self.tls and not self.tokens:
            if not self.insecure:
                options = ["--tls-cert and --tls-key", *([self.by] if self.by else [])]
                raise ExposedError(
                    f"{where}: other machines can reach this address, and nothing protects it; "
                    f"give {', or '.join(options)}, or listen on 127.0.0.1; --insecure allows it"
                )
            warn(f"{where} is not protected: whoever reaches it can use it, and read all traffic")
        elif not self.tls:
            warn(f"{where} is not encrypted: tokens and messages can be read on their way")
        elif not self.clients and not self.tokens:
            options = [*([self.by] if self.by else []), "--tls-client-ca"]
            warn(f"{where} serves every caller: give {' or '.join(options)}")


def is_local(address: str) -> bool:
    """Return whether only this machine can reach a server at "host:port" or "unix:path"."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return True  # it cannot be listened on either
    return all(ipaddress.ip_address(str(each[4][0])).is_loopback for each in found)
