"""Planning: from a request and facts about the network and the data to a plan, or to a refusal.

This module decides whether a training is possible, as far as the facts tell. The service calls `make_plan` before it accepts a
job. The training calls `make_plan` again before the first step.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nern import architectures, tensorfile
from nern.embedding import EmbeddingConfig
from nern.errors import NotRepresentable, UnusableImages
from nern.importance import PRUNED_NETWORKS
from nern.layers import Described, Layer, find_layers, find_linear, select_layers
from nern.plan import Plan, SearchPlan
from nern.predictor import PredictorConfig
from nern.request import TrainingRequest
from nern.request.options import DEFAULT_RATIO, NoiseKind
from nern.request.phases import Cosine, PhasePlan, Synthesis
from nern.synthesis import PoolSizes
from nern.tiles import Tiles

MAX_HELD_OUT_IMAGES = 2000
HELD_OUT_NOISE_INPUTS = 256

# The sizes that a search for an accuracy target chooses from, in parameters of the predictor for each represented weight.
SEARCHED_RATIOS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.9)


@dataclass(frozen=True)
class NetworkFacts:
    """Facts about a network that need no weights.

    `tensors` has the shapes and dtypes by name, in the order of the state_dict. `architecture` is None if it is unknown.
    `aliases` has the names of tied tensors, each with the name of the tensor that it is the same as.
    """

    tensors: Mapping[str, Described]
    architecture: str | None
    aliases: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageFacts:
    """Facts about a dataset that need no images.

    `images` and `channels` are numbers of images and of colour channels. `classes` is the largest label + 1, or None without
    labels.
    """

    images: int
    channels: int
    classes: int | None


@dataclass(frozen=True)
class NoiseFacts:
    """The kind of noise that a job uses in place of a dataset."""

    kind: NoiseKind


DataFacts = ImageFacts | NoiseFacts


def make_plan(request: TrainingRequest, network: NetworkFacts, data: DataFacts | None) -> Plan | SearchPlan:
    """The plan of a training of this network with this data, or of a search if the request has an accuracy target.

    Without a known architecture or without data, the plan has no distillation. Raises ImpossibleRequest with a pointer to the
    field at fault.
    """
    layers = choose_layers(network, request)
    for name, tensor in network.tensors.items():
        if tensor.dtype not in tensorfile.NAMES:
            raise NotRepresentable(f"{name!r} is of {tensor.dtype}, a dtype that can't be stored")
    if network.architecture is not None:
        _validate_match(request, network.architecture, network.tensors, data)
    has_teacher = network.architecture is not None and data is not None
    if request.needs_teacher and not has_teacher:
        detail = f"the {request.recipe} recipe needs a known architecture and data to fine-tune the network on"
        raise UnusableImages(detail, "/data")
    if request.target is None:
        return _plan_of_one_size(request, network, data, layers, has_teacher=has_teacher)
    if not has_teacher or not isinstance(data, ImageFacts) or data.classes is None:
        raise UnusableImages("an accuracy target needs a known architecture and a dataset with labels", "/target")
    values = _settled(request, network, has_teacher=has_teacher)
    sized = {ratio: request.with_values({"target": None, "ratio": ratio}) for ratio in SEARCHED_RATIOS}
    candidates = [
        (ratio, _plan_of_one_size(one, network, data, layers, has_teacher=has_teacher)) for ratio, one in sized.items()
    ]
    return SearchPlan(request.with_values(values), request.target.drop, candidates)


def choose_layers(network: NetworkFacts, request: TrainingRequest) -> list[Layer]:
    """The layers that a request asks to represent, in the order of the state_dict. Tied layers count as one.

    Raises NotRepresentable.
    """
    tensors = {name: tensor for name, tensor in network.tensors.items() if name not in network.aliases}
    convolutions = find_layers(tensors)
    if isinstance(request.layers, list):
        known = {layer.name: layer for layer in convolutions + find_linear(tensors)}
        wanted = [network.aliases.get(name, name) for name in request.layers]
        return select_layers([known[name] for name in tensors if name in known], wanted)
    if request.layers == "all":
        return select_layers(convolutions, [layer.name for layer in convolutions])
    shapes = {layer.name: layer.shape for layer in convolutions}
    return select_layers(convolutions, architectures.paper_layers(network.architecture, shapes))


def _validate_match(
    request: TrainingRequest, architecture: str, tensors: Mapping[str, Described], data: DataFacts | None
) -> None:
    match = architectures.match(architecture, architectures.shapes_of(tensors))
    if isinstance(data, NoiseFacts) and data.kind == "matched" and not any(name.endswith("running_mean") for name in tensors):
        raise UnusableImages(
            "matched noise needs running statistics, but the network has no batch norm that stores them", "/data/noise"
        )
    if isinstance(data, ImageFacts):
        if data.images < 2:
            detail = f"the dataset has {data.images} image; at least 2 are needed, because one is held out"
            raise UnusableImages(detail, "/data/dataset_id")
        if data.channels != match.channels:
            channels = f"they have {data.channels} channels, but the network takes {match.channels}"
            raise UnusableImages(f"the network can't take these images: {channels}", "/data/dataset_id")
        if data.classes is not None and data.classes > match.classes:
            detail = f"a label is {data.classes - 1}, but the network has only {match.classes} classes"
            raise UnusableImages(detail, "/data/dataset_id")


def _settled(request: TrainingRequest, network: NetworkFacts, *, has_teacher: bool) -> dict[str, Any]:
    values = request.settled(architecture=network.architecture, has_teacher=has_teacher)
    return values | {"importance": request.importance and has_teacher}


def _plan_of_one_size(
    request: TrainingRequest, network: NetworkFacts, data: DataFacts | None, layers: list[Layer], *, has_teacher: bool
) -> Plan:
    settled = request.with_values(_settled(request, network, has_teacher=has_teacher))
    predictor = _predictor(settled, layers)
    settled = settled.with_values({"hidden": predictor.hidden, "ratio": None})
    bits, sparsity = settled.predictor_bits
    pool = _pool_sizes(settled, network, data) if has_teacher else None
    phases = [*_synthesis(settled, pool), *settled.phases(has_teacher=has_teacher)]
    return Plan(
        request=settled,
        layers=tuple(layers),
        predictor=predictor,
        phases=tuple(phase for phase in phases if phase.steps),
        held_out_images=_held_out_images(settled, data, pool),
        bits=bits,
        sparsity=sparsity,
        pruned_networks=PRUNED_NETWORKS if settled.importance else 0,
    )


def _predictor(request: TrainingRequest, layers: list[Layer]) -> PredictorConfig:
    config = PredictorConfig(
        embedding=EmbeddingConfig(base=request.base, levels=request.levels, layer_features=request.layer_features or None),
        hidden=request.hidden or 1,
        depth=request.depth,
        activation=request.activation,
    )
    return config if request.hidden else config.within(request.ratio or DEFAULT_RATIO, Tiles(layers, request.small_kernels))


def _pool_sizes(request: TrainingRequest, network: NetworkFacts, data: DataFacts | None) -> PoolSizes | None:
    """The sizes of the image pool, if the data is matched noise. Raises UnusableImages if the images are too many."""
    if not isinstance(data, NoiseFacts) or data.kind != "matched":
        return None
    assert network.architecture is not None
    shape = architectures.input_shape(network.architecture, architectures.shapes_of(network.tensors))
    return PoolSizes.of(shape, request.synthesised_images)


def _synthesis(request: TrainingRequest, pool: PoolSizes | None) -> list[PhasePlan]:
    if pool is None:
        return []
    steps = request.synthesis_steps
    schedule = Cosine(request.synthesis_learning_rate, steps)
    return [Synthesis(steps=steps * pool.groups, learning_rate=schedule, group_steps=steps)]


def _held_out_images(request: TrainingRequest, data: DataFacts | None, pool: PoolSizes | None) -> int:
    if isinstance(data, ImageFacts):
        return min(MAX_HELD_OUT_IMAGES, max(1, round(request.held_out * data.images)))
    return HELD_OUT_NOISE_INPUTS if pool is None else pool.held_out_groups * pool.group_images
