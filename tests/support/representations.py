"""Representations that no training has made."""

from typing import Any

import torch

from nern import artefact
from nern.artefact import Artefact, PartBytes
from nern.embedding import EmbeddingConfig
from nern.layers import StateDict, find_layers
from nern.permutation import permutations
from nern.predictor import PredictorConfig
from nern.representation import Representation
from nern.request.options import PathKind, PermutationKind, SmallKernels
from nern.state_dicts import aliases
from nern.tiles import Tiles


def untrained(
    state_dict: StateDict,
    *,
    permutation: PermutationKind = "cross-filter",
    path: PathKind = "fragments",
    small: SmallKernels = "tiled",
    hidden: int = 8,
) -> Representation:
    """A representation of all convolutions, with an untrained predictor."""
    torch.manual_seed(0)
    tied = aliases(state_dict)
    tiles = Tiles([layer for layer in find_layers(state_dict) if layer.name not in tied], small)
    embedding = EmbeddingConfig(base=1.25, levels=4, layer_features=None)
    config = PredictorConfig(embedding=embedding, hidden=hidden, depth=5, activation="relu")
    positions = permutations(tiles, state_dict, permutation, path)
    return Representation.untrained(tiles, state_dict, config, permutation=permutation, positions=positions, layer_scaling=0.5)


def written(representation: Representation, state_dict: StateDict, **about: Any) -> tuple[bytes, PartBytes]:
    """The bytes of an artefact, and the bytes of each of its parts."""
    pieces, nbytes = artefact.write(representation, state_dict, **about)
    return b"".join(pieces), nbytes


def opened(content: bytes) -> Artefact:
    """The artefact of these bytes."""
    return Artefact(lambda start, stop: content[start:stop])
