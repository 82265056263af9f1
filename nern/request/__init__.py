"""What a training can be asked for. Nothing here imports torch."""

from collections.abc import Mapping
from typing import Any

from nern.request.base import TrainingRequest
from nern.request.decoupled import DecoupledRequest
from nern.request.options import AccuracyTarget
from nern.request.paper import PaperRequest
from nern.request.regularised import RegularisedRequest

__all__ = [
    "RECIPES",
    "AccuracyTarget",
    "DecoupledRequest",
    "PaperRequest",
    "RegularisedRequest",
    "TrainingRequest",
    "read_request",
]

# The first one is the default.
RECIPES: dict[str, type[TrainingRequest]] = {
    "decoupled": DecoupledRequest,
    "regularised": RegularisedRequest,
    "paper": PaperRequest,
}


def read_request(values: Mapping[str, Any]) -> TrainingRequest:
    """A request as `model_dump` wrote it, or a part of one. Without a `recipe`, it is the first of RECIPES.

    Raises ValueError.
    """
    recipe = values.get("recipe") or next(iter(RECIPES))
    if not isinstance(recipe, str) or recipe not in RECIPES:
        raise ValueError(f"there is no recipe {recipe!r}; there are {', '.join(RECIPES)}")
    return RECIPES[recipe](**values)
