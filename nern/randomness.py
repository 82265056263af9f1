"""Randomness without a state: what is drawn depends on the seed and on what it is for, so there is nothing to save."""

import hashlib

import torch


def generator(seed: int, purpose: str, number: int = 0) -> torch.Generator:
    """A generator of its own for every purpose and number."""
    digest = hashlib.blake2b(f"{seed} {purpose} {number}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))
