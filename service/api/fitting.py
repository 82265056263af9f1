"""Whether the parts of a job fit together, as far as can be told without reading a single weight or image."""

import nern.errors
from nern import architectures, synthesis
from nern.layers import StateDict
from service import problems
from service.store.tables import Dataset


def check(architecture: str, shapes: StateDict, dataset: Dataset | None, noise: str | None, synthesised_images: int) -> None:
    """Raises Invalid unless the tensors, which may be on the meta device, and the data are those of this architecture."""
    try:
        match = architectures.match(architecture, architectures.shapes_of(shapes))
    except nern.errors.UnknownArchitecture as error:
        raise _misfit("/architecture", str(error)) from error
    if dataset is not None:
        if dataset.images < 2:
            raise _misfit("/data/dataset_id", "the dataset has 1 image; at least 2 are needed, as some are held out")
        if dataset.channels != match.channels:
            raise _misfit(
                "/data/dataset_id",
                f"the dataset's images have {dataset.channels} channels, but the network takes {match.channels}",
            )
        if dataset.classes is not None and dataset.classes > match.classes:
            raise _misfit(
                "/data/dataset_id", f"a label is {dataset.classes - 1}, but the network has only {match.classes} classes"
            )
    if noise == "matched":
        if not any(name.endswith("running_mean") for name in shapes):
            raise _misfit("/data/noise", "the network has no batch norm whose statistics images could be matched to")
        try:
            synthesis.check_size(match.input_shape, synthesised_images)
        except nern.errors.UnusableImages as error:
            raise _misfit("/synthesised_images", str(error)) from error


def _misfit(pointer: str, detail: str) -> problems.Invalid:
    return problems.Invalid(detail, errors=[{"pointer": pointer, "detail": detail}])
