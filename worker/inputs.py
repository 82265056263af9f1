"""What a job needs, out of the blob store."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from nern import architectures, tensorfile
from nern.images import Images, Noise
from nern.layers import StateDict
from nern.request.options import NoiseKind
from service import blobs
from service.blobs import Blobs
from service.store.tables import Dataset, Job


def load_checkpoint(store: Blobs, id: str) -> StateDict:
    """The state_dict of a checkpoint, in its original order. Raises FileNotFoundError."""
    return _load(store, blobs.checkpoint_tensors(id))


def load_data(store: Blobs, job: Job, dataset: Dataset | None, state_dict: StateDict) -> Images | Noise | None:
    """The images that a job is to distil from, if it has any. Raises FileNotFoundError, UnknownArchitecture."""
    if dataset is not None:
        tensors = _load(store, blobs.dataset_tensors(dataset.id))
        return Images(tensors["images"], tensors.get("labels"), tuple(dataset.mean), tuple(dataset.std))
    if job.noise is not None and job.architecture is not None:
        shape = architectures.input_shape(job.architecture, architectures.shapes_of(state_dict))
        return Noise(cast(NoiseKind, job.noise), shape)
    return None


def _load(store: Blobs, key: str) -> StateDict:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tensors.safetensors"
        store.download(key, path)
        return tensorfile.load(path)
