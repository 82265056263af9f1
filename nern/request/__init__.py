"""Requests: the options of a training, for each recipe. This package does not import torch."""

from collections.abc import Mapping
from typing import Any

from nern.request.base import TrainingRequest
from nern.request.decoupled import DecoupledRequest
from nern.request.options import AccuracyTarget
from nern.request.paper import PaperRequest
from nern.request.regularised import RegularisedRequest

__all__ = [
    "DEFAULT_RECIPE",
    "RECIPES",
    "AccuracyTarget",
    "DecoupledRequest",
    "PaperRequest",
    "RegularisedRequest",
    "TrainingRequest",
    "read_request",
]

DEFAULT_RECIPE = "decoupled"

RECIPES: dict[str, type[TrainingRequest]] = {
    "decoupled": DecoupledRequest,
    "regularised": RegularisedRequest,
    "paper": PaperRequest,
}


def read_request(values: Mapping[str, Any]) -> TrainingRequest:
    """The request with these values, such as `model_dump` of a request writes. Missing options have their defaults.

    Without a `recipe`, the recipe is DEFAULT_RECIPE. Raises ValueError for an unknown recipe or option, and for a value
    that is not allowed.
    """
    recipe = values.get("recipe") or DEFAULT_RECIPE
    if not isinstance(recipe, str) or recipe not in RECIPES:
        raise ValueError(f"there is no recipe {recipe!r}; the recipes are {', '.join(RECIPES)}")
    return RECIPES[recipe](**values)
