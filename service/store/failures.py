"""Why jobs fail: every `type` that the error of a job can have. A test compares this list with the one in docs/jobs.md."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

FailureType = Literal[
    "not-representable",
    "unknown-architecture",
    "unsupported-graph",
    "unfit-description",
    "unusable-images",
    "training-diverged",
    "bad-artefact",
    "input-missing",
    "out-of-memory",
    "worker-lost",
    "internal",
]


@dataclass(frozen=True)
class Failure:
    """What a type of failure means, and what the client can do."""

    meaning: str
    remedy: str


FAILURES: Mapping[FailureType, Failure] = {
    "not-representable": Failure(
        "There is no layer that can be represented, a layer that was chosen can't be represented, a weight is not finite, or a "
        "tensor has a dtype that can't be stored.",
        "Select other layers, or upload another checkpoint.",
    ),
    "unknown-architecture": Failure(
        "There is no architecture of this name, or the checkpoint does not match the architecture.",
        "Name the architecture that the checkpoint was made from, or none.",
    ),
    "unsupported-graph": Failure(
        "The graph does not fit the checkpoint, or has an operator that can't be computed.",
        "Export the network anew with this release.",
    ),
    "unfit-description": Failure(
        "The description of a sequential network does not fit the weights of the checkpoint.",
        "Correct the step that the detail names.",
    ),
    "unusable-images": Failure(
        "The images or labels do not suit the network, there are too few or too many images, or an option needs data that the "
        "job does not have.",
        "Give the job the images, the labels or the option that the detail asks for.",
    ),
    "training-diverged": Failure(
        "A loss became infinite or not a number, or no evaluation gave finite numbers.",
        "Lower the learning rates.",
    ),
    "bad-artefact": Failure(
        "The blob of the checkpoint or of the dataset, or the artefact of the new predictor, can't be read.",
        "Delete the checkpoint or the dataset, upload the file again, and create the job again. "
        "If that fails too, report the fault.",
    ),
    "input-missing": Failure(
        "The checkpoint or the dataset is not in the blob store.",
        "Upload the same file again, and retry the job.",
    ),
    "out-of-memory": Failure(
        "The training needs more memory than the worker has.",
        "Ask for a smaller predictor or smaller batches, or use a worker with more memory.",
    ),
    "worker-lost": Failure(
        "The worker went silent in each attempt.",
        "Read the worker's log. Most often, the system ended the worker because memory ran out.",
    ),
    "internal": Failure(
        "An error that nobody foresaw, or a GPU that failed, in each attempt. The worker's log describes the error; `detail` "
        "does not.",
        "Report the fault.",
    ),
}
