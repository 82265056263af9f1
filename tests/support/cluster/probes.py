"""Probes, as kubelet carries them out."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

Probe = Mapping[str, Any]

KNOWN = {
    "httpGet", "tcpSocket", "initialDelaySeconds", "periodSeconds", "timeoutSeconds", "successThreshold", "failureThreshold"
}  # fmt: skip


async def follow(probe: Probe, address: str, ports: Mapping[str, int], report: Callable[[bool], object]) -> None:
    """Probes for ever. Reports success or failure whenever the threshold of either has been reached."""
    assert probe.keys() <= KNOWN, probe
    await asyncio.sleep(probe.get("initialDelaySeconds", 0))
    thresholds = {True: probe.get("successThreshold", 1), False: probe.get("failureThreshold", 3)}
    last, count = False, 0
    while True:
        succeeded = await passes(probe, address, ports)
        last, count = succeeded, count + 1 if succeeded == last else 1
        if count >= thresholds[succeeded]:
            report(succeeded)
        await asyncio.sleep(probe.get("periodSeconds", 10))


async def passes(probe: Probe, address: str, ports: Mapping[str, int]) -> bool:
    """Whether one request of the probe succeeds."""
    check = probe.get("httpGet") or probe["tcpSocket"]
    port = ports.get(check["port"], check["port"])
    with suppress(OSError, TimeoutError, ValueError, IndexError):
        async with asyncio.timeout(probe.get("timeoutSeconds", 1)):
            reader, writer = await asyncio.open_connection(address, port)
            try:
                if "tcpSocket" in probe:
                    return True
                writer.write(f"GET {check['path']} HTTP/1.1\r\nHost: {address}:{port}\r\nConnection: close\r\n\r\n".encode())
                return 200 <= int((await reader.readline()).split()[1]) < 400
            finally:
                writer.close()
    return False
