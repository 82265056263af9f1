"""Which addresses webhooks may be sent to.

A webhook makes the service send a request to an address that a client chooses. So it must not reach what only the service can
reach: this machine, its network, the metadata service of a cloud (server-side request forgery).
"""

import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_URL_CHARACTERS = 2000

PORTS = {"http": 80, "https": 443}

# Prefixes of IPv6 whose addresses hold an address of IPv4 in their last 32 bits (RFC 6052).
TRANSLATED = ip_network("64:ff9b::/96")

# The addresses of IPv6 that are routed on the internet (RFC 4291). Others hold addresses of IPv4, or stay in a network.
UNICAST = ip_network("2000::/3")


class Forbidden(Exception):
    """A webhook can't be sent to this URL, for a reason that the client may know."""


def parse_networks(text: str) -> tuple[Network, ...]:
    """Parses a comma-separated list such as 10.0.0.0/8,192.168.1.7. Raises ValueError."""
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def resolve(url: str, allowed: Sequence[Network]) -> Address:
    """The address that a webhook is sent to: the first one of the URL's host.

    Raises Forbidden if the URL is no URL of HTTP, has a user name, or if any address of its host is neither public nor in
    `allowed`.
    """
    if len(url) > MAX_URL_CHARACTERS:
        raise Forbidden(f"the URL is longer than {MAX_URL_CHARACTERS} characters")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise Forbidden(f"this is not a URL: {error}") from None
    if parts.scheme not in PORTS or not host:
        raise Forbidden("the URL must begin with https:// or http:// and a host")
    if parts.username is not None or parts.password is not None:
        raise Forbidden("the URL must have no user name and no password")
    try:
        found = socket.getaddrinfo(host, port or PORTS[parts.scheme], type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Forbidden(f"the host {host} has no address") from None
    addresses = [ip_address(entry[4][0]) for entry in found]
    for address in addresses:
        if not is_allowed(address, allowed):
            raise Forbidden(f"the host {host} has an address that webhooks may not be sent to: it is not public")
    return addresses[0]


def is_allowed(address: Address, allowed: Sequence[Network]) -> bool:
    """Whether an address is public or in one of the networks."""
    if any(address in network for network in allowed if network.version == address.version):
        return True
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
        if address in TRANSLATED:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner:
            return is_allowed(inner, allowed)
        if address not in UNICAST:
            return False
    return address.is_global and not address.is_multicast
