"""How threads of torch wait for each other."""

import os

SPINS = "5000"


def spin_little() -> None:
    """Makes threads that wait sleep soon. Must be called before torch is loaded, which reads this once.

    Threads that spin while they wait make a training 28 times slower as soon as anything else runs on the same cores.
    With this many spins they sleep soon enough, and a training that has the cores for itself loses nothing.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
