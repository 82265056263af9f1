"""Representations that no training has made."""

from typing import Any

import torch

from nern import artefact
from nern.artefact import Artefact, PartBytes
from nern.embedding import EmbeddingConfig
from nern.layers import StateDict
from nern.network import Network
from nern.permutation import permutations
from nern.predictor import PredictorConfig
from nern.representation import Representation
from nern.request.options import PathKind, PermutationKind, SmallKernels
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
    network = Network(state_dict)
    tiles, weights = Tiles(network.facts.convolutions, small), network.weights
    embedding = EmbeddingConfig(base=1.25, levels=4, layer_features=None)
    config = PredictorConfig(embedding=embedding, hidden=hidden, depth=5, activation="relu")
    positions = permutations(tiles, weights, permutation, path)
    return Representation.untrained(tiles, weights, config, permutation=permutation, positions=positions, layer_scaling=0.5)


def written(representation: Representation, state_dict: StateDict, **about: Any) -> tuple[bytes, PartBytes]:
    """The bytes of an artefact, and the bytes of each of its parts."""
    pieces, nbytes = artefact.write(representation, state_dict, **about)
    return b"".join(pieces), nbytes


def opened(content: bytes) -> Artefact:
    """The artefact of these bytes."""
    return Artefact(lambda start, stop: content[start:stop])
