"""Representations without a training."""

from typing import Any

import torch

from nern import artefact
from nern.artefact import Artefact, Sizes
from nern.embedding import EmbeddingConfig
from nern.layers import StateDict, find_layers
from nern.permutation import PermutationKind
from nern.predictor import PredictorConfig, largest_size
from nern.representation import Representation


def untrained(state_dict: StateDict, *, permutation: PermutationKind = "cross-filter", hidden: int = 8) -> Representation:
    """A representation of all convolutions with a fresh predictor."""
    torch.manual_seed(0)
    layers = find_layers(state_dict)
    config = PredictorConfig(embedding=EmbeddingConfig(levels=4), hidden=hidden, size=largest_size(layers))
    return Representation.untrained(layers, state_dict, config, permutation=permutation, scaled=True)


def written(representation: Representation, state_dict: StateDict, **about: Any) -> tuple[bytes, Sizes]:
    """An artefact as bytes."""
    pieces, sizes = artefact.write(representation, state_dict, **about)
    return b"".join(pieces), sizes


def opened(content: bytes) -> Artefact:
    return Artefact(lambda start, stop: content[start:stop])
