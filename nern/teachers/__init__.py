"""Calling networks. Every forward pass of a teacher and of a student is made by `call`."""

from nern.teachers.calling import PROGRAMS, Batch, Outputs, Weights, call, device_of
from nern.teachers.renamed import Renamed
from nern.teachers.reparametrised import Forms, ReparametrisedModule, ReparametrisedProgram

__all__ = [
    "PROGRAMS",
    "Batch",
    "Forms",
    "Outputs",
    "Renamed",
    "ReparametrisedModule",
    "ReparametrisedProgram",
    "Weights",
    "call",
    "device_of",
]
