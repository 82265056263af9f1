"""Every error of the library has a documented type of failure, and keeps it."""

import importlib
import pkgutil
from collections.abc import Iterator

import nern
from nern.errors import (
    BadArtefact,
    BadSnapshot,
    InconsistentOptions,
    NernError,
    NoStateDict,
    NotRepresentable,
    OtherTraining,
    TrainingDiverged,
    UnknownArchitecture,
    UnknownKey,
    UnusableImages,
)
from worker.failures import failure_type


def test_every_error_of_the_library_has_a_type_of_its_own() -> None:
    for module in pkgutil.walk_packages(nern.__path__, "nern."):
        importlib.import_module(module.name)
    # A worker meets none of these: jobs are planned before they are accepted, uploads are read by the inspection.
    others: set[type[NernError]] = {InconsistentOptions, NoStateDict, OtherTraining, BadSnapshot, UnknownKey}
    kinds = set(leaves(NernError)) - others
    types = {failure_type(kind("detail")) for kind in kinds}
    assert len(types) == len(kinds)
    assert "internal" not in types


def leaves(kind: type[NernError]) -> Iterator[type[NernError]]:
    """The kinds of errors that have no kinds of their own."""
    kinds = kind.__subclasses__()
    yield from (leaf for below in kinds for leaf in leaves(below))
    if not kinds:
        yield kind


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
