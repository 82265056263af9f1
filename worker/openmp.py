"""How the threads of torch wait for each other."""

import os

# Spins of a waiting thread before it sleeps.
SPINS = "5000"


def spin_little() -> None:
    """Makes threads of OpenMP sleep soon when they wait. Must be called before torch is loaded, which reads the variable once.

    Threads that spin while they wait make a training 28 times slower as soon as another process uses the same cores. With SPINS
    spins, the training becomes about twice as slow then. A training that has the cores for itself loses almost nothing.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
