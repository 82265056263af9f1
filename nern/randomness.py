"""Random numbers without a state.

The numbers depend only on a seed, a purpose and a number. A snapshot of a training therefore has no state of a generator.
"""

import hashlib

import torch


def generator(seed: int, purpose: str, number: int = 0) -> torch.Generator:
    """A new generator on the CPU. Its numbers depend only on the seed, the purpose and the number, such as that of a step."""
    digest = hashlib.blake2b(f"{seed} {purpose} {number}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))
