"""From a request to the row of a job, or to a problem that points at a field of the request."""

from datetime import datetime

from nern import errors, tensorfile
from nern.layers import TensorFacts
from nern.plan import Plan, SearchPlan
from nern.planning import DataFacts, ImageFacts, NetworkFacts, NoiseFacts, make_plan
from nern.request.job import DatasetSource, JobRequest, NoiseSource
from service import problems
from service.store.ids import new_id
from service.store.tables import Checkpoint, Dataset, Job


def new_job(request: JobRequest, checkpoint: Checkpoint, dataset: Dataset | None, *, now: datetime) -> Job:
    """The row of a new job, whose `config` has a value for every option. Raises Invalid and NotRepresentable."""
    network = NetworkFacts(_tensors(checkpoint), request.architecture or checkpoint.architecture, checkpoint.aliases)
    try:
        data = _facts_of(request, dataset)
        plan = make_plan(request.training(), network, data)
    except errors.NotRepresentable as error:
        raise problems.NotRepresentable(str(error), errors=[{"pointer": error.pointer, "detail": str(error)}]) from error
    except errors.ImpossibleRequest as error:
        raise problems.Invalid(str(error), errors=[{"pointer": error.pointer, "detail": str(error)}]) from error
    return Job(
        id=new_id(),
        state="queued",
        checkpoint_id=checkpoint.id,
        dataset_id=request.data.dataset_id if isinstance(request.data, DatasetSource) else None,
        noise=request.data.noise if isinstance(request.data, NoiseSource) else None,
        architecture=network.architecture,
        config=plan.request.model_dump(mode="json"),
        notes=notes_on(request, plan, network, data),
        attempt=0,
        fence=0,
        cancel_requested=False,
        created_at=now,
        woken_at=now,
    )


def notes_on(request: JobRequest, plan: Plan | SearchPlan, network: NetworkFacts, data: DataFacts | None) -> list[str]:
    """Sentences about what the job will not do although its client may expect it, and why."""
    if network.architecture is not None and data is not None:
        if plan.distils:
            return []
        return ["no step of the training follows the original network, so nothing is distilled: the weights are reconstructed"]
    reason = "there is no data" if network.architecture else "the architecture is unknown"
    notes = [f"{reason}, so only the weights are reconstructed: nothing is distilled, and accuracy is not measured"]
    if request.training().importance:
        notes.append("the importance of weights is not measured, because that takes an architecture and data")
    return notes


def _tensors(checkpoint: Checkpoint) -> dict[str, TensorFacts]:
    """The tensors of a checkpoint, convolutions first, and aliases last.

    The order and the dtypes of the convolutions are not recorded. No number of a plan depends on them.
    """
    convolutions = {layer["name"]: TensorFacts(tuple(layer["shape"]), tensorfile.DTYPES["F32"]) for layer in checkpoint.layers}
    kept = {
        tensor["name"]: TensorFacts(tuple(tensor["shape"]), tensorfile.DTYPES[tensor["dtype"]]) for tensor in checkpoint.kept
    }
    own = convolutions | kept
    return own | {alias: own[name] for alias, name in checkpoint.aliases.items()}


def _facts_of(request: JobRequest, dataset: Dataset | None) -> DataFacts | None:
    """The facts about the data of a job that its plan depends on. Raises UnusableImages."""
    if dataset is not None:
        if dataset.images is None or dataset.channels is None:
            raise errors.UnusableImages("the dataset holds inputs, but jobs distil from images so far", "/data/dataset_id")
        labelled = dataset.labels is not None and dataset.labels["kind"] == "classes"
        return ImageFacts(dataset.images, dataset.channels, dataset.classes if labelled else None)
    return NoiseFacts(request.data.noise) if isinstance(request.data, NoiseSource) else None
