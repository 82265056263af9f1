"""Every error of the library has a documented type of failure, and keeps it."""

import importlib
import pkgutil

import nern
from nern.errors import BadArtefact, NernError, NotRepresentable, TrainingDiverged, UnknownArchitecture, UnusableImages
from worker.failures import failure_type


def test_every_error_of_the_library_has_a_type_of_its_own() -> None:
    for module in pkgutil.walk_packages(nern.__path__, "nern."):
        importlib.import_module(module.name)
    kinds = NernError.__subclasses__()
    types = [failure_type(kind()) for kind in kinds]
    assert len(set(types)) == len(kinds)
    assert "internal" not in types


def test_the_types_are_those_that_clients_know() -> None:
    known: dict[type[NernError], str] = {
        NotRepresentable: "not-representable",
        UnknownArchitecture: "unknown-architecture",
        UnusableImages: "unusable-images",
        TrainingDiverged: "training-diverged",
        BadArtefact: "bad-artefact",
    }
    assert {kind: failure_type(kind("detail")) for kind in known} == known
    assert failure_type(NernError("detail")) == "internal"
