"""From a request to the row of a job, or to a problem that points at a field of the request."""

from collections.abc import Mapping
from datetime import datetime

from nern import errors, tensorfile
from nern.facts import GRAPH, ArrayFacts, DataFacts, ImageFacts, InputFacts, NetworkFacts, NoiseFacts
from nern.forms import Form, with_parts
from nern.graph.program import Program
from nern.graph.sequential import to_program
from nern.layers import Described, TensorFacts
from nern.objectives import LabelFacts
from nern.plan import Plan, SearchPlan
from nern.planning import make_plan
from nern.request.job import DatasetSource, JobRequest, NoiseSource
from nern.sizes import estimate, nbytes
from service import problems
from service.store.ids import new_id
from service.store.tables import Checkpoint, Dataset, Graph, Job, Json

# A job has a note if its artefact takes more than this fraction of the bytes of the network.
HARDLY_SMALLER = 0.75

# The most linear layers that such a note names.
NAMED_LAYERS = 3


def new_job(request: JobRequest, checkpoint: Checkpoint, graph: Graph | None, dataset: Dataset | None, *, now: datetime) -> Job:
    """The row of a new job, whose `config` has a value for every option. Raises Problem."""
    data = _facts_of(request, dataset)
    try:
        described = describe_network(request, data)
        network = _network(request, checkpoint, graph, described)
        plan = make_plan(request.training(), network, data)
    except errors.NotRepresentable as error:
        raise problems.NotRepresentable(str(error), errors=[{"pointer": error.pointer, "detail": str(error)}]) from error
    except errors.BadProgram as error:
        raise problems.UnsupportedGraph(str(error)) from error
    except errors.ImpossibleRequest as error:
        raise problems.Invalid(str(error), errors=[{"pointer": error.pointer, "detail": str(error)}]) from error
    return Job(
        id=new_id(),
        state="queued",
        checkpoint_id=checkpoint.id,
        dataset_id=request.data.dataset_id if isinstance(request.data, DatasetSource) else None,
        noise=request.data.noise if isinstance(request.data, NoiseSource) else None,
        architecture=network.name,
        network=described,
        config=plan.request.model_dump(mode="json"),
        notes=notes_on(request, plan, network, data),
        priority=request.priority,
        webhook=request.webhook.model_dump() if request.webhook else None,
        attempt=0,
        fence=0,
        cancel_requested=False,
        pause_requested=False,
        created_at=now,
    )


def notes_on(request: JobRequest, plan: Plan | SearchPlan, network: NetworkFacts, data: DataFacts | None) -> list[str]:
    """Sentences about what the job will not do although its client may expect it, and why."""
    notes = []
    if not network.can_be_computed or data is None:
        reason = "there is no data" if network.can_be_computed else "the architecture is unknown"
        notes.append(f"{reason}, so only the weights are reconstructed: nothing is distilled, and accuracy is not measured")
        if request.training().importance:
            notes.append("the importance of weights is not measured, because that takes an architecture and data")
    elif not plan.distils:
        notes.append(
            "no step of the training follows the original network, so nothing is distilled: the weights are reconstructed"
        )
    return notes + _notes_on_size(plan, network)


def _notes_on_size(plan: Plan | SearchPlan, network: NetworkFacts) -> list[str]:
    """A sentence for an artefact that is larger than the network, or hardly smaller. Of a search, the smallest size counts."""
    one = plan.candidates[0][1] if isinstance(plan, SearchPlan) else plan
    sizes = estimate(one, network.own)
    if sizes.artefact <= HARDLY_SMALLER * sizes.original:
        return []
    compared = "larger than the network" if sizes.artefact > sizes.original else "hardly smaller than the network"
    note = (
        f"the artefact will be {compared}: about {_bytes(sizes.artefact)} instead of {_bytes(sizes.original)}. The represented "
        f"layers have {_bytes(sizes.represented)}, for which predictor and permutations take "
        f"{_bytes(sizes.predictor + sizes.permutation)}; {_bytes(sizes.kept)} are kept as they are"
    )
    represented = {layer.name for layer in one.layers}
    linear = {layer.name: nbytes([network.own[layer.name]]) for layer in network.linear if layer.name not in represented}
    if sum(linear.values()) > sizes.kept / 2:
        largest = sorted(linear, key=lambda name: -linear[name])[:NAMED_LAYERS]
        named = ", ".join(f"{name} ({_bytes(linear[name])})" for name in largest)
        others = len(linear) - len(largest)
        more = f" and {others} others" if others else ""
        note += f'. Linear layers hold most of these: {named}{more}; with "layers": "everything" they are represented too'
    return [note]


def _bytes(count: int) -> str:
    """A number of bytes for people, such as 1.2 MB."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def describe_network(request: JobRequest, data: DataFacts | None) -> Json | None:
    """The sequential network that a job describes, with the shape of its inputs if that is known. None without one.

    Raises ImpossibleRequest.
    """
    if request.network is None:
        return None
    if request.architecture is not None:
        raise errors.ImpossibleRequest("give an architecture or a sequential network, not both", "/network")
    shape = request.network.input_shape
    if shape is None and isinstance(data, ImageFacts) and data.height and data.width:
        shape = [data.channels, data.height, data.width]
    if shape is None and isinstance(data, InputFacts) and len(data.arrays) == 1:
        shape = list(next(iter(data.arrays.values())).shape)
    return {"sequential": request.network.sequential, "input_shape": shape}


def program_of(described: Json, tensors: Mapping[str, Described]) -> Program:
    """The program of a sequential network that `describe_network` has described. Raises BadDescription."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    try:
        return to_program(described["sequential"], shapes, described["input_shape"])
    except errors.BadDescription as error:
        raise errors.BadDescription(str(error), f"/network/sequential{error.pointer}") from error


def _network(request: JobRequest, checkpoint: Checkpoint, graph: Graph | None, described: Json | None) -> NetworkFacts:
    """The facts about the network of a job. Raises BadDescription."""
    tensors = _tensors(checkpoint)
    if described is not None:
        plain = NetworkFacts(tensors, None, None, checkpoint.aliases).plain
        return NetworkFacts(tensors, GRAPH, program_of(described, plain), checkpoint.aliases)
    program = Program.from_json(graph.program) if graph else None
    return NetworkFacts(tensors, request.architecture or checkpoint.architecture, program, checkpoint.aliases)


def _tensors(checkpoint: Checkpoint) -> dict[str, Described]:
    """The tensors of a checkpoint in the order of the file, and aliases last. The tensors of a form are next to each other.

    Rows of release 0.1.0 do not have the places and dtypes of convolutions. These come first, and no number of a plan depends
    on their order and dtype.
    """
    ordered = list(checkpoint.kept)
    for number, layer in enumerate(checkpoint.layers):
        ordered.insert(layer.get("place", number), layer)
    own: dict[str, Described] = {
        tensor["name"]: TensorFacts(tuple(tensor["shape"]), tensorfile.DTYPES[tensor.get("dtype", "F32")]) for tensor in ordered
    }
    own = with_parts(own, [Form.from_json(form) for form in checkpoint.forms])
    return own | {alias: own[name] for alias, name in checkpoint.aliases.items()}


def _labels_of(dataset: Dataset) -> LabelFacts | None:
    """The facts about the labels of a dataset. Rows of release 0.1.0 do not describe them."""
    if dataset.labels is None:
        return None
    shape = tuple(dataset.labels["shape"][1:])
    if dataset.labels["kind"] == "values":
        return LabelFacts("values", shape)
    return LabelFacts("classes", shape, dataset.classes)


def _facts_of(request: JobRequest, dataset: Dataset | None) -> DataFacts | None:
    """The facts about the data of a job that its plan depends on."""
    if dataset is not None:
        labels = _labels_of(dataset)
        if dataset.images is not None and dataset.channels is not None:
            one_class = labels is None or (labels.kind == "classes" and labels.shape == ())
            classes, targets = (dataset.classes, None) if one_class else (None, labels)
            return ImageFacts(dataset.images, dataset.channels, classes, dataset.height, dataset.width, targets)
        arrays = {array["name"]: ArrayFacts(array["dtype"], tuple(array["shape"][1:])) for array in dataset.inputs or []}
        return InputFacts((dataset.inputs or [])[0]["shape"][0], arrays, labels)
    return NoiseFacts(request.data.noise) if isinstance(request.data, NoiseSource) else None
