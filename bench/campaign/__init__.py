"""A deployment of real processes, faults that befall it, and clients that notice what happens."""
