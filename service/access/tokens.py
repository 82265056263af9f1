"""API keys as clients hold them: a prefix, 30 random characters and a checksum, as in nern_4k…

A scanner for secrets finds such keys by the prefix, and the checksum tells them from other text. 30 characters of 62 have 178
bits, so the SHA-256 hash of a key needs no salt and no slow function.
"""

import hashlib
import secrets
import string
import zlib

PREFIX = "nern_"
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
RANDOM_CHARACTERS = 30
CHECK_CHARACTERS = 6

# So many characters are shown, by which people tell their keys apart.
SHOWN_CHARACTERS = len(PREFIX) + 4


def make() -> str:
    """A new key."""
    text = "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_CHARACTERS))
    return PREFIX + text + _checksum(text)


def is_key(text: str) -> bool:
    """Whether a text has the form of a key, and the right checksum."""
    body = text.removeprefix(PREFIX)
    if len(text) - len(body) != len(PREFIX) or len(body) != RANDOM_CHARACTERS + CHECK_CHARACTERS:
        return False
    return body[RANDOM_CHARACTERS:] == _checksum(body[:RANDOM_CHARACTERS])


def hash_of(key: str) -> str:
    """What is stored of a key: its SHA-256 hash, in hexadecimal digits."""
    return hashlib.sha256(key.encode()).hexdigest()


def _checksum(text: str) -> str:
    """The CRC-32 of a text, to the base 62."""
    number, digits = zlib.crc32(text.encode()), ""
    for _ in range(CHECK_CHARACTERS):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
