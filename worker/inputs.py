"""The inputs of a job, read from the blob store."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from nern import architectures, tensorfile
from nern.errors import UnusableImages
from nern.images import Images, Noise
from nern.layers import StateDict
from nern.request.options import NoiseKind
from service.store import blobs
from service.store.blobs import Blobs
from service.store.tables import Dataset, Job


def load_checkpoint(store: Blobs, id: str) -> StateDict:
    """The state_dict of a checkpoint, in the order of the uploaded file. Raises FileNotFoundError and Unreachable."""
    return _load(store, blobs.checkpoint_tensors(id))


def load_data(store: Blobs, job: Job, dataset: Dataset | None, state_dict: StateDict) -> Images | Noise | None:
    """The images or the noise that a job distils from, or None for a job without data.

    Raises FileNotFoundError, Unreachable, UnknownArchitecture and UnusableImages.
    """
    if dataset is not None:
        if dataset.mean is None or dataset.std is None:
            raise UnusableImages("the dataset holds inputs, but jobs distil from images so far", "/data/dataset_id")
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
