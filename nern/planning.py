"""Planning: from a request and facts about the network and the data to a plan, or to a refusal.

This module decides whether a training is possible, as far as the facts tell. The service calls `make_plan` before it accepts a
job. The training calls `make_plan` again before the first step.
"""

from typing import Any

from nern import architectures, tensorfile
from nern.embedding import EmbeddingConfig
from nern.errors import NotRepresentable, UnusableImages
from nern.facts import ArrayFacts, DataFacts, ImageFacts, InputFacts, NetworkFacts, NoiseFacts
from nern.graph.program import Port
from nern.importance import PRUNED_NETWORKS
from nern.layers import Layer, select_layers
from nern.objectives import LabelFacts, agree, choose, outputs_of
from nern.plan import Plan, SearchPlan
from nern.predictor import PredictorConfig
from nern.request import TrainingRequest
from nern.request.options import DEFAULT_RATIO
from nern.request.phases import Cosine, PhasePlan, Synthesis
from nern.synthesis import PoolSizes
from nern.tiles import Tiles

MAX_HELD_OUT_IMAGES = 2000
HELD_OUT_NOISE_INPUTS = 256

# The sizes that a search for an accuracy target chooses from, in parameters of the predictor for each represented weight.
SEARCHED_RATIOS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.9)


def make_plan(request: TrainingRequest, network: NetworkFacts, data: DataFacts | None) -> Plan | SearchPlan:
    """The plan of a training of this network with this data, or of a search if the request has an accuracy target.

    Without data, and for a network that has neither a known architecture nor a program, the plan has no distillation. Raises
    ImpossibleRequest with a pointer to the field at fault.
    """
    layers = choose_layers(network, request)
    for name, tensor in network.tensors.items():
        if tensor.dtype not in tensorfile.NAMES:
            raise NotRepresentable(f"{name!r} is of {tensor.dtype}, a dtype that can't be stored")
    network.validate()
    if network.can_be_computed:
        _validate_data(request, network, data)
    has_teacher = network.can_be_computed and data is not None
    if request.needs_teacher and not has_teacher:
        detail = f"the {request.recipe} recipe needs a known architecture and data to fine-tune the network on"
        raise UnusableImages(detail, "/data")
    if request.target is None:
        return _plan_of_one_size(request, network, data, layers, has_teacher=has_teacher)
    labels = _labels_of(data)
    dense = labels is not None and labels.shape != () and network.classifies_inputs
    if not has_teacher or labels is None or labels.kind != "classes" or dense:
        detail = "an accuracy target needs a known architecture, or a graph, and a dataset with labels that number classes"
        raise UnusableImages(detail, "/target")
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
    convolutions = network.convolutions
    known = {layer.name: layer for layer in convolutions + network.linear}
    everything = [known[name] for name in network.own if name in known]
    if request.layers == "everything":
        return select_layers(everything, known)
    if isinstance(request.layers, list):
        return select_layers(everything, [network.aliases.get(name, name) for name in request.layers])
    if request.layers == "all":
        if not convolutions and everything:
            raise NotRepresentable('the network has no convolution; layers "everything" represents linear layers', "/layers")
        return select_layers(convolutions, [layer.name for layer in convolutions])
    shapes = {layer.name: layer.shape for layer in convolutions}
    return select_layers(convolutions, architectures.paper_layers(network.architecture, shapes))


def _validate_data(request: TrainingRequest, network: NetworkFacts, data: DataFacts | None) -> None:
    """Refuses data that the network can't take, and objectives that its outputs can't have."""
    labels = _labels_of(data)
    if network.program is not None:
        choose(outputs_of(network.program), request.objective, labels)
        if data is not None:
            _validate_batch_axes(network.inputs)
    if isinstance(data, NoiseFacts):
        if data.kind == "matched" and not network.has_statistics:
            detail = "matched noise needs running statistics, but the network has no batch norm that stores them"
            raise UnusableImages(detail, "/data/noise")
        if data.shapes is None:
            network.noise_shapes()
        return
    if data is None:
        return
    if len(data) < 2:
        what = "image" if isinstance(data, ImageFacts) else "input"
        detail = f"the dataset has {len(data)} {what}; at least 2 are needed, because one is held out"
        raise UnusableImages(detail, "/data/dataset_id")
    if isinstance(data, ImageFacts):
        _validate_images(data, network.inputs)
    else:
        _validate_arrays(data, network.inputs)
    classes = network.classes
    labelled = labels is not None and labels.shape == () and labels.kind == "classes" and request.objective != "values"
    if labels is not None and labelled and classes is not None and (labels.classes or 0) > classes:
        detail = f"a label is {(labels.classes or 0) - 1}, but the network has only {classes} classes"
        raise UnusableImages(detail, "/data/dataset_id")


def _validate_batch_axes(ports: tuple[Port, ...]) -> None:
    """Refuses programs that can't take any number of inputs. A fixed number of inputs is taken several times."""
    fixed = {port.shape[0] for port in ports if port.shape} - {None}
    detail = ""
    for port in ports:
        if port.shape == ():
            detail = f"the input {port.name!r} of the graph is one number: it has no batch axis"
    if len(fixed) > 1:
        detail = f"the first axes of the inputs have the extents {', '.join(map(str, fixed))}: they must be a batch axis"
    if detail:
        raise UnusableImages(f"{detail}; export the network with a free batch axis, or leave out `data`", "/data")


def _validate_images(data: ImageFacts, ports: tuple[Port, ...]) -> None:
    if len(ports) != 1:
        names = ", ".join(port.name for port in ports)
        detail = f"the network has {len(ports)} inputs ({names}); send a dataset with an array for each of them"
        raise UnusableImages(detail, "/data/dataset_id")
    [port] = ports
    detail = ""
    if not _is_floating(port):
        detail = f"the input {port.name!r} takes integers ({port.dtype})"
    elif port.shape is not None and len(port.shape) != 4:
        detail = f"the input {port.name!r} has the shape {_written(port.shape)}"
    elif port.shape is not None and not agree(port.shape[1:2], (data.channels,)):
        detail = f"they have {data.channels} channels, but the network takes {port.shape[1]}"
    elif port.shape is not None and not agree(port.shape[2:], (data.height, data.width)):
        size = " x ".join("any" if extent is None else str(extent) for extent in port.shape[2:])
        detail = f"they have {data.height} x {data.width} pixels, but the network takes {size}"
    if detail:
        raise UnusableImages(f"the network can't take these images: {detail}", "/data/dataset_id")


def _validate_arrays(data: InputFacts, ports: tuple[Port, ...]) -> None:
    names = ", ".join(port.name for port in ports)
    if len(data.arrays) != len(ports) or (len(ports) > 1 and set(data.arrays) != {port.name for port in ports}):
        detail = f"the dataset has the inputs {', '.join(data.arrays)}, but the network takes {names}"
        raise UnusableImages(detail, "/data/dataset_id")
    for port in ports:
        name, array = (port.name, data.arrays[port.name]) if len(ports) > 1 else next(iter(data.arrays.items()))
        if (reason := _misfit(array, port)) is not None:
            raise UnusableImages(f"the network can't take the input {name!r}: {reason}", "/data/dataset_id")


def _misfit(array: ArrayFacts, port: Port) -> str | None:
    """Why an array can't be given to an input of the network, or None."""
    if array.floating != _is_floating(port):
        taken = "floating-point numbers" if _is_floating(port) else "integers"
        return f"it is {array.dtype}, but the network takes {taken}"
    if port.shape is not None and not agree(port.shape[1:], array.shape):
        return f"its shape is {_written((None, *array.shape))}, but the network takes {_written((None, *port.shape[1:]))}"
    return None


def _is_floating(port: Port) -> bool:
    return tensorfile.DTYPES[port.dtype].is_floating_point if port.dtype in tensorfile.DTYPES else False


def _written(shape: tuple[int | None, ...] | None) -> str:
    return "unknown" if shape is None else " x ".join("any" if extent is None else str(extent) for extent in shape) or "scalar"


def _labels_of(data: DataFacts | None) -> LabelFacts | None:
    return None if data is None or isinstance(data, NoiseFacts) else data.labels


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
    return PoolSizes.of(data.shapes or network.noise_shapes(), request.synthesised_images)


def _synthesis(request: TrainingRequest, pool: PoolSizes | None) -> list[PhasePlan]:
    if pool is None:
        return []
    steps = request.synthesis_steps
    schedule = Cosine(request.synthesis_learning_rate, steps)
    return [Synthesis(steps=steps * pool.groups, learning_rate=schedule, group_steps=steps)]


def _held_out_images(request: TrainingRequest, data: DataFacts | None, pool: PoolSizes | None) -> int:
    if isinstance(data, ImageFacts | InputFacts):
        return min(MAX_HELD_OUT_IMAGES, max(1, round(request.held_out * len(data))))
    return HELD_OUT_NOISE_INPUTS if pool is None else pool.held_out_groups * pool.group_images
