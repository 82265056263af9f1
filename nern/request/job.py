"""The request body of a job: a checkpoint, data, and the options of one recipe, side by side in one object."""

from collections.abc import Mapping
from typing import Annotated, Any, Union

from pydantic import BaseModel, ConfigDict, Discriminator, Field, GetCoreSchemaHandler, Tag, create_model
from pydantic_core import CoreSchema

from nern.request import DEFAULT_RECIPE, RECIPES
from nern.request.base import TrainingRequest
from nern.request.options import NoiseKind

# The most steps of a sequential network. The deepest published ones have a few hundred.
MAX_STEPS = 1000


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


class SequentialNetwork(BaseModel):
    """A description of a plain sequential network, for those who have the weights and not the code."""

    model_config = ConfigDict(extra="forbid")

    sequential: list[str] = Field(
        min_length=1,
        max_length=MAX_STEPS,
        description="The modules of torch.nn in order, as `conv padding=1`, `relu`, `maxpool 2`, `flatten`, `linear`. What the "
        "shapes of the weights tell is left out.",
    )
    input_shape: list[int] | None = Field(
        None,
        min_length=1,
        max_length=5,
        description="Shape of one input, without the batch. Default: that of the dataset.",
    )


class Webhook(BaseModel):
    """A URL that is told when the job has succeeded, has failed or was cancelled, in messages that the secret signs.

    The messages are those of Standard Webhooks (https://www.standardwebhooks.com).
    """

    model_config = ConfigDict(extra="forbid")

    url: str = Field(max_length=2000, description="https://… or http://…, of a host whose addresses are public")
    secret: str = Field(
        max_length=100, description="whsec_ and 24 to 64 bytes in base64, as `openssl rand -base64 32` makes them"
    )


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
    network: SequentialNetwork | None = Field(
        None,
        description="A plain sequential network, for a checkpoint of unknown architecture. It takes the weights in order.",
    )
    webhook: Webhook | None = Field(None, description="Who is told of the end of the job.")
    priority: int = Field(0, ge=-10, le=10, description="Queued jobs of a higher priority are worked on first.")

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
