"""The inputs of a job, read from the blob store."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import cast

from nern import tensorfile
from nern.cancellation import Cancellation
from nern.graph.program import Program
from nern.images import Images, Noise
from nern.inputs import Inputs
from nern.layers import StateDict
from nern.network import Network
from nern.request.options import NoiseKind
from service.jobs.planning import program_of
from service.store import blobs
from service.store.blobs import Blobs
from service.store.tables import Dataset, Graph, Job

# How often a download looks for cancellation.
CANCELLATION_SECONDS = 0.2


def load_network(store: Blobs, job: Job, graph: Graph | None, cancellation: Cancellation) -> Network:
    """The network of a job: the tensors of its checkpoint in the order of the uploaded file, and what computes the outputs.

    This is the only place where a worker reads a checkpoint. Raises Missing, Unreachable, BadProgram, BadDescription
    and what the cancellation raises.
    """
    state_dict = _load(store, blobs.checkpoint_tensors(job.checkpoint_id), cancellation)
    if job.network is not None:
        return Network(state_dict, job.architecture, program_of(job.network, Network(state_dict).facts.plain))
    return Network(state_dict, job.architecture, Program.from_json(graph.program) if graph else None)


def load_data(
    store: Blobs, job: Job, dataset: Dataset | None, network: Network, cancellation: Cancellation
) -> Images | Inputs | Noise | None:
    """The images, other inputs or noise that a job distils from, or None for a job without data.

    Raises Missing, Unreachable, ImpossibleRequest and what the cancellation raises.
    """
    if dataset is not None:
        tensors = _load(store, blobs.dataset_tensors(dataset.id), cancellation)
        labels = tensors.get("labels", tensors.get("targets"))
        if dataset.mean is not None and dataset.std is not None:
            return Images(tensors["images"], labels, tuple(dataset.mean), tuple(dataset.std))
        prefix = "inputs."
        arrays = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        return Inputs(arrays, labels)
    if job.noise is not None and network.facts.can_be_computed:
        shape, *others = network.facts.noise_shapes()
        return Noise(cast(NoiseKind, job.noise), shape, tuple(others))
    return None


def while_waiting(work: Callable[[], None], cancellation: Cancellation) -> None:
    """Works in a thread, and raises what `cancellation` raises meanwhile. The thread is left to itself then."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # the caller raises it
            errors.append(error)

    thread = Thread(target=run, name="download", daemon=True)
    thread.start()
    while thread.is_alive():
        cancellation()
        thread.join(CANCELLATION_SECONDS)
    if errors:
        raise errors[0]


def _load(store: Blobs, key: str, cancellation: Cancellation) -> StateDict:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tensors.safetensors"
        while_waiting(lambda: store.download(key, path), cancellation)
        return tensorfile.load(path)
