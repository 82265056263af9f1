"""The request body of a job: a checkpoint, data, and the options of one recipe, side by side in one object."""

from collections.abc import Mapping
from typing import Annotated, Any, Union

from pydantic import BaseModel, ConfigDict, Discriminator, Field, GetCoreSchemaHandler, Tag, create_model
from pydantic_core import CoreSchema

from nern.request import DEFAULT_RECIPE, RECIPES
from nern.request.base import TrainingRequest
from nern.request.options import NoiseKind


class DatasetSource(BaseModel):
    """An uploaded dataset."""

    model_config = ConfigDict(extra="forbid")

    dataset_id: str


class NoiseSource(BaseModel):
    """Noise in place of a dataset.

    uniform: uniform noise in [-1, 1]. normal: standard normal noise. matched: images that are made from the network alone, so
    that their batch-norm statistics match the statistics that the network stores.
    """

    model_config = ConfigDict(extra="forbid")

    noise: NoiseKind


def _kind_of_source(data: Any) -> str:
    noise = isinstance(data, NoiseSource) or (isinstance(data, Mapping) and "noise" in data)
    return "noise source" if noise else "dataset source"


Source = Annotated[
    Annotated[DatasetSource, Tag("dataset source")] | Annotated[NoiseSource, Tag("noise source")],
    Discriminator(_kind_of_source),
]


class JobRequest(BaseModel):
    """The fields that jobs of all recipes have. Every recipe adds its options."""

    recipe: str
    checkpoint_id: str
    architecture: str | None = Field(
        None, description="Name of the architecture. Default: the architecture that was recognised in the checkpoint."
    )
    data: Source | None = Field(
        None, description="Dataset or noise to distil on. Without data, only the weights are reconstructed."
    )

    def training(self) -> TrainingRequest:
        """The options of the recipe, without the other fields of the job."""
        other_fields = set(JobRequest.model_fields) - {"recipe"}
        return RECIPES[self.recipe](**self.model_dump(exclude=other_fields, exclude_unset=True))


def _with_options(recipe: type[TrainingRequest]) -> type[BaseModel]:
    name = recipe.__name__.replace("Request", "Job")
    return create_model(name, __base__=(recipe, JobRequest), __doc__=recipe.__doc__)


def _recipe_of(body: Any) -> str:
    return str((body.get("recipe") if isinstance(body, Mapping) else None) or DEFAULT_RECIPE)


_NAMES = [f'"{name}"' for name in RECIPES]


class _AnyRecipe:
    """The type of a job of any recipe. A job is validated with the options of its recipe."""

    @staticmethod
    def __get_pydantic_core_schema__(source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        members = tuple(Annotated[_with_options(recipe), Tag(name)] for name, recipe in RECIPES.items())
        discriminator = Discriminator(
            _recipe_of,
            custom_error_type="recipe",
            custom_error_message=f"recipe must be {', '.join(_NAMES[:-1])} or {_NAMES[-1]}",
        )
        return handler.generate_schema(Annotated[Union[members], discriminator])  # noqa: UP007  # the members are not known statically


AnyJobRequest = Annotated[JobRequest, _AnyRecipe]
"""A job of any recipe."""
