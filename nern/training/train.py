"""Training of a predictor for a network: the entry point."""

import torch

from nern.cancellation import Cancellation, never
from nern.errors import NotRepresentable, UnusableImages
from nern.evaluation import Evaluator
from nern.images import CPU
from nern.layers import Layer
from nern.network import Network
from nern.plan import Plan, SearchPlan
from nern.planning import make_plan
from nern.request import TrainingRequest
from nern.training.loop import Training
from nern.training.progress import Meter, OnProgress, silently
from nern.training.search import search
from nern.training.snapshot import Snapshot
from nern.training.subject import Subject
from nern.training.teacher import Data, Teacher, facts_of, samples_of, split
from nern.training.trained import Trained


def train(
    network: Network,
    request: TrainingRequest,
    *,
    data: Data | None = None,
    inputs_hash: str | None = None,
    device: torch.device = CPU,
    on_progress: OnProgress = silently,
    cancellation: Cancellation = never,
    snapshot: Snapshot | None = None,
) -> Trained:
    """Trains a predictor for the requested layers of a network, from the first step or from a snapshot.

    data: images, other inputs or noise to distil on. Without data, and for a network that has neither a known architecture nor
        a program, the training has no distillation.
    inputs_hash: a hash of the network and the data, by which the snapshots of other trainings are refused. If None, it is
        computed.
    on_progress: is called after every step. An exception that it raises ends the training.
    cancellation: is called during the search for permutations and during evaluations. An exception that it raises ends the
        training.

    Raises ImpossibleRequest, TrainingDiverged, and OtherTraining if the snapshot is of another training.
    """
    plan = make_plan(request, network.facts, facts_of(data))
    first = plan.candidates[0][1] if isinstance(plan, SearchPlan) else plan
    _validate_tensors(network, first.layers)
    teacher, evaluator = _teacher_and_evaluator(network, data, first, device, cancellation)
    if isinstance(plan, SearchPlan) and not (evaluator and evaluator.measures_accuracy):
        raise UnusableImages("an accuracy target needs labels that number the classes of an output", "/target")
    subject = Subject(network, data, inputs_hash, teacher, evaluator, device)

    def run(plan: Plan, meter: Meter, on_progress: OnProgress, snapshot: Snapshot | None) -> Trained:
        return Training(subject, plan, cancellation=cancellation, snapshot=snapshot).run(meter, on_progress)

    if isinstance(plan, SearchPlan):
        return search(plan, run, on_progress, snapshot)
    return run(plan, Meter(plan, steps_before=snapshot.step if snapshot else 0), on_progress, snapshot)


def _validate_tensors(network: Network, layers: tuple[Layer, ...]) -> None:
    for name, tensor in network.state_dict.items():
        if tensor.device != CPU or tensor.layout != torch.strided:
            raise NotRepresentable(f"{name!r} is not a dense tensor on the CPU")
    for layer in layers:
        if not network.weights[layer.name].float().isfinite().all():
            raise NotRepresentable(f"{layer.name!r} has weights that are not finite, or too large for float32")


def _teacher_and_evaluator(
    network: Network, data: Data | None, plan: Plan, device: torch.device, cancellation: Cancellation
) -> tuple[Teacher | None, Evaluator | None]:
    """The teacher and the evaluator: both or neither. Raises UnusableImages."""
    facts, request = network.facts, plan.request
    if not facts.can_be_computed or data is None:
        return None, None
    module = network.build(samples_of(data, facts.inputs)).to(device)
    choose = facts.chooser(request.objective)
    images, held_out = split(data, request, plan.held_out_images, module, facts.inputs, choose)
    evaluator = Evaluator(module, held_out, cancellation, choose)
    return Teacher(module, images, request.image_batch, request.seed, evaluator.loss), evaluator
