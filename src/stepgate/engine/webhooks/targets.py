"""Where a webhook may lead: never, unless a setting says so, to what only this machine or its network can reach."""

import asyncio
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from urllib.parse import urlsplit

from stepgate.domain.errors import InvalidValue

Address = IPv4Address | IPv6Address

# Networks whose addresses carry an IPv4 address that a gateway would go on to.
_TRANSLATED: Final = (
    (ipaddress.ip_network("64:ff9b::/96"), 0),
    (ipaddress.ip_network("::/96"), 0),
    (ipaddress.ip_network("2002::/16"), 80),
)
# Set aside for protocols and local translators; which of them count as global differs between versions of Python.
_SET_ASIDE: Final = tuple(
    map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "64:ff9b:1::/48", "2001::/23", "fec0::/10"))
)
# A name server that never answers would hold the threads that runs are carried out with.
_names: Final = ThreadPoolExecutor(8, thread_name_prefix="stepgate-webhook-names")


class Refused(Exception):
    """The target may not be reached, or has no address."""


def is_public(address: Address) -> bool:
    """Whether it is an address of the open internet, by itself and by what it may be translated to."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or _carried(address)
        if inner is not None:
            return is_public(inner)
    if any(address in network for network in _SET_ASIDE):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def _carried(address: IPv6Address) -> IPv4Address | None:
    for network, shift in _TRANSLATED:
        if address in network:
            return IPv4Address((int(address) >> shift) & 0xFFFFFFFF)
    return None


def check_literal(url: str, *, private: bool) -> None:
    """Raises InvalidValue where the host is written as an address that may not be reached."""
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if not private and (host == "localhost" or host.endswith((".localhost", ".local", ".internal"))):
            raise _inside(host) from None
        return
    if not private and not is_public(address):
        raise _inside(host)


def _inside(host: str) -> InvalidValue:
    return InvalidValue(
        f"{host} lies inside this machine or its network",
        field="url",
        fix="name a public host, or have the operator set STEPGATE_WEBHOOK_PRIVATE=true",
    )


async def addresses_of(host: str, port: int, *, private: bool) -> list[str]:
    """The host's addresses, asked for once: whoever connects must connect to one of these.

    Raises Refused where there is none, or where a single one may not be reached.
    """
    asked = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    try:
        found = await asyncio.get_running_loop().run_in_executor(_names, asked)
    except OSError as error:
        raise Refused(f"the host has no address: {error.strerror or error}") from error
    addresses = list(dict.fromkeys(str(place[0]) for _, _, _, _, place in found))
    for text in addresses:
        if not private and not is_public(ipaddress.ip_address(text.partition("%")[0])):
            raise Refused("the host's address lies inside this machine or its network")
    return addresses
