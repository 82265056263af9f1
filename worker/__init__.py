"""What runs where the training runs: claims a job, trains a predictor with `nern`, stores it."""

import os

# Read when torch is loaded. Threads that spin while they wait for each other make a training 28 times slower as soon as
# anything else runs on the same cores; with this many spins they sleep soon enough, and alone it costs them nothing.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")
