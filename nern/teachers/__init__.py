"""Calling networks. Every forward pass of a teacher and of a student is made by `call`."""

from nern.teachers.calling import Batch, Outputs, Weights, call, device_of
from nern.teachers.prefixed import Prefixed

__all__ = ["Batch", "Outputs", "Prefixed", "Weights", "call", "device_of"]
