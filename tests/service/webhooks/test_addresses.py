"""Where webhooks may go: not to what only the service can reach."""

import socket
from ipaddress import ip_address
from typing import Any
from unittest.mock import patch

import pytest

from service.webhooks.addresses import Forbidden, is_allowed, parse_networks, resolve


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "::1", "::", "fe80::1", "fc00::1", "fd12::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "2002:a00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::7f00:1", "fec0::1", "::127.0.0.1", "::ffff:0:127.0.0.1", "2001:db8::1",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_are_forbidden(address: str) -> None:
    assert not is_allowed(ip_address(address), ())


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_allowed(ip_address(address), ())


def test_a_setting_allows_networks() -> None:
    allowed = parse_networks(" 10.0.0.0/8, 192.168.1.7,fd00::/8 ")
    for address in ("10.1.2.3", "192.168.1.7", "fd00::1", "::ffff:10.1.2.3"):
        assert is_allowed(ip_address(address), allowed), address
    for address in ("192.168.1.8", "127.0.0.1", "fe80::1"):
        assert not is_allowed(ip_address(address), allowed), address
    with pytest.raises(ValueError, match="host bits"):
        parse_networks("10.0.0.1/8")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://example.com/", "must begin with https"),
        ("file:///etc/passwd", "must begin with https"),
        ("//example.com", "must begin with https"),
        ("https://", "must begin with https"),
        ("https://user@example.com/", "no user name"),
        ("https://example.com:99999/", "not a URL"),
        ("http://[::1", "not a URL"),
        ("http://127.0.0.1/", "not public"),
        ("http://2130706433/", "not public"),
        ("http://0x7f.1/", "not public"),
        ("http://[::ffff:127.0.0.1]/", "not public"),
        ("http://localhost/", "not public"),
        ("http://name.invalid/", "has no address"),
        ("http://" + "a" * 300 + ".example/", "has no address"),
        ("http://example.com/" + "a" * 2000, "longer than"),
    ],
)
def test_urls_that_lead_nowhere_good_are_refused(url: str, reason: str) -> None:
    with pytest.raises(Forbidden, match=reason):
        resolve(url, ())


def test_one_forbidden_address_of_several_is_enough() -> None:
    def found(*addresses: str) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in addresses]

    with patch("socket.getaddrinfo", return_value=found("1.1.1.1", "10.0.0.1")), pytest.raises(Forbidden):
        resolve("https://example.com/", ())
    with patch("socket.getaddrinfo", return_value=found("1.1.1.1", "1.0.0.1")):
        assert resolve("https://example.com/", ()) == ip_address("1.1.1.1")
