"""Signatures of webhooks (Standard Webhooks 1.0, https://www.standardwebhooks.com)."""

import base64
import binascii
import hashlib
import hmac

PREFIX = "whsec_"
MIN_BYTES, MAX_BYTES = 24, 64


def key_of(secret: str) -> bytes:
    """The key in a secret such as whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw. Raises ValueError."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith(PREFIX) or not MIN_BYTES <= len(key) <= MAX_BYTES:
        raise ValueError(f"the secret must be {PREFIX} and {MIN_BYTES} to {MAX_BYTES} bytes in base64")
    return key


def headers(secret: str, *, id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a message with a body. `timestamp` is in seconds since 1970."""
    signed = b".".join((id.encode(), str(timestamp).encode(), body))
    signature = base64.b64encode(hmac.digest(key_of(secret), signed, hashlib.sha256)).decode()
    return {"webhook-id": id, "webhook-timestamp": str(timestamp), "webhook-signature": f"v1,{signature}"}
