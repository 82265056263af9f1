"""Calling networks. Every forward pass of a teacher and of a student is made by `call`."""

from nern.teachers.calling import Batch, Outputs, Weights, call, device_of
from nern.teachers.renamed import Renamed

__all__ = ["Batch", "Outputs", "Renamed", "Weights", "call", "device_of"]
