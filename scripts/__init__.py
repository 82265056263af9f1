"""The commands of this folder, and the Python program of `scripts/demo`."""
