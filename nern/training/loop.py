"""The training loop. For each step of each phase: learning rate, gradients, update, evaluation, progress."""

import copy
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from math import isfinite

import torch
from torch import Tensor

from nern.cancellation import Cancellation
from nern.errors import OtherTraining, TrainingDiverged
from nern.evaluation import Evaluator
from nern.images import CPU
from nern.permutation import permutations
from nern.plan import Plan
from nern.rendering import narrowed
from nern.representation import Representation
from nern.request.phases import PhasePlan
from nern.spans import span
from nern.synthesis import ImagePool
from nern.training.optimizers import Optimizers, set_learning_rate, update, zero_grad
from nern.training.phases import Losses, Phase, Setting, make_phases
from nern.training.progress import Meter, OnProgress
from nern.training.selection import Evaluation, Selection
from nern.training.snapshot import Interrupted, Snapshot
from nern.training.subject import Subject
from nern.training.targets import Targets, relative_error
from nern.training.trained import Trained

# The fewest steps between two evaluations. With fewer steps, the evaluations would take longer than the steps.
MIN_EVALUATION_STEPS = 25


class Training:
    """A training of one predictor, from its first step or from a snapshot.

    Raises OtherTraining if the snapshot is of another training.
    """

    def __init__(self, subject: Subject, plan: Plan, *, cancellation: Cancellation, snapshot: Snapshot | None) -> None:
        started = time.monotonic()
        self._identity = subject.identity(plan)
        if snapshot and (snapshot.training != self._identity or snapshot.search):
            raise OtherTraining("the snapshot is of another training: the network, the data or an option differs")
        self._subject, self._plan, self._cancellation = subject, plan, cancellation
        positions = snapshot.positions if snapshot else None
        representation = _untrained(plan, subject.weights, positions, cancellation).to(subject.device)
        self._targets = Targets(representation, subject.weights, subject.device)
        self._selection = Selection(representation.predictor)
        self._phases = make_phases(plan.phases, Setting(self._targets, subject.teacher, plan.request.seed))
        self._optimizers: Optimizers = ()
        self._step, self._started = 0, started
        if snapshot:
            self._restore(snapshot)

    def run(self, meter: Meter, on_progress: OnProgress) -> Trained:
        """Makes all steps that are left. Raises TrainingDiverged, and what `on_progress` and the cancellation raise."""
        try:
            self._cancellation()
            self._make_steps(meter, on_progress)
        except Interrupted as interruption:
            interruption.snapshot = self.snapshot().detached() if self._step else None
            raise
        final = self.snapshot().detached()
        best, last_evaluation = self._selection.finish()
        representation = self._targets.representation.to(CPU)
        evaluator, seconds = self._subject.evaluator, self._seconds()
        return Trained(representation, self._plan, self._step, best, last_evaluation, evaluator, seconds, final)

    def snapshot(self) -> Snapshot:
        """A snapshot after the last step that was made. It shares its tensors with the training; see `Snapshot.detached`."""
        targets, pool = self._targets, self._pool
        return Snapshot(
            training=self._identity,
            step=self._step,
            steps=self._step,
            seconds=self._seconds(),
            positions=[targets.representation.positions(number) for number in range(len(self._plan.layers))],
            weights=[weight.detach() for weight in targets.weights] if targets.changed else None,
            fitted_to=targets.fitted_to,
            predictor=targets.representation.predictor.state_dict(),
            optimizers=[optimizer.state_dict() for optimizer in self._optimizers],
            selection=self._selection.state,
            images=pool.state_dict() if pool else None,
        )

    def _make_steps(self, meter: Meter, on_progress: OnProgress) -> None:
        first = 0
        for phase in self._phases:
            last = first + phase.plan.steps
            with span(f"phase {phase.plan.name}") if self._step < last else nullcontext():
                self._make_steps_of(phase, first, meter, on_progress)
            first = last

    def _make_steps_of(self, phase: Phase[PhasePlan], first: int, meter: Meter, on_progress: OnProgress) -> None:
        if self._step == first:
            self._optimizers = phase.begin(self._optimizers)
        meter.begin()
        if self._evaluation_was_interrupted(phase.plan, first):
            on_progress(meter.step(phase.plan, {}, self._evaluate(), self.snapshot, made=0))
        while self._step < first + phase.plan.steps:
            losses = self._make_step(phase, self._step - first)
            self._step += 1
            due = _evaluation_due(phase.plan, self._step - first)
            evaluation = self._evaluate() if due else None
            on_progress(meter.step(phase.plan, losses, evaluation, self.snapshot))

    def _evaluation_was_interrupted(self, phase: PhasePlan, first: int) -> bool:
        """Whether the last step is one of this phase, and lacks the evaluation that is due after it."""
        made, last = self._step - first, self._selection.state.last
        return 0 < made <= phase.steps and _evaluation_due(phase, made) and (last is None or last.step < self._step)

    def _make_step(self, phase: Phase[PhasePlan], number: int) -> Losses:
        set_learning_rate(self._optimizers, phase.learning_rate(number))
        zero_grad(self._optimizers)
        losses = phase.gradients(number)
        for name, value in losses.items():
            if not isfinite(value):
                step = f"step {self._step + 1} of {self._plan.steps}"
                cause = phase.suspect()
                raise TrainingDiverged(f"the {name} loss became {value} at {step}; {cause}; a smaller learning rate may help")
        update(self._optimizers)
        return losses

    def _evaluate(self) -> Evaluation:
        """Evaluates the predictor as the artefact would store it."""
        predictor = self._targets.representation.predictor
        with span("evaluate"), predictor.halved() if self._plan.bits <= 16 else nullcontext():
            return self._selection.add(evaluate(self._targets, self._subject.evaluator, self._step))

    def _restore(self, snapshot: Snapshot) -> None:
        self._step, self._started = snapshot.step, self._started - snapshot.seconds
        self._selection.state = snapshot.selection
        if self._pool and snapshot.images is not None:
            self._pool.load_state_dict(snapshot.images)
        # The phase makes the optimizers and, if it quantises, the parameters whose states the snapshot has.
        self._optimizers = self._phase_of_last_step().begin(())
        self._targets.restore(snapshot.weights, snapshot.fitted_to)
        for optimizer, state in zip(self._optimizers, snapshot.optimizers, strict=True):
            optimizer.load_state_dict(copy.deepcopy(dict(state)))  # the optimizer would change the snapshot's tensors
        self._targets.representation.predictor.load_state_dict(snapshot.predictor)

    def _phase_of_last_step(self) -> Phase[PhasePlan]:
        last = 0
        for phase in self._phases:
            last += phase.plan.steps
            if self._step <= last:
                return phase
        raise OtherTraining("the snapshot is of another training: it has more steps")

    @property
    def _pool(self) -> ImagePool | None:
        teacher = self._subject.teacher
        return teacher.images if teacher and isinstance(teacher.images, ImagePool) else None

    def _seconds(self) -> float:
        return time.monotonic() - self._started


def evaluate(targets: Targets, evaluator: Evaluator | None, step: int) -> Evaluation:
    """An evaluation after `step` steps.

    The rendered weights are rounded to the dtypes of the layers, as clients get them. Without an evaluator, only the relative
    error of the weights is computed.
    """
    layers = targets.representation.layers
    pairs = zip(targets.representation.render_all(), layers, strict=True)
    rendered = [narrowed(weight, layer.dtype).float() for weight, layer in pairs]
    names = [layer.name for layer in layers]
    comparison = evaluator.compare(dict(zip(names, rendered, strict=True))) if evaluator else None
    error = relative_error(rendered, targets.original)
    return Evaluation(step, error, comparison, targets.representation.predictor.quantised)


def _evaluation_due(phase: PhasePlan, made: int) -> bool:
    """Whether an evaluation follows so many steps of a phase. One always follows the last step of a phase with evaluations."""
    if not phase.evaluations:
        return False
    interval = max(MIN_EVALUATION_STEPS, -(-phase.steps // phase.evaluations))
    return made % interval == 0 or made == phase.steps


def _untrained(
    plan: Plan, state_dict: Mapping[str, Tensor], positions: Sequence[Tensor] | None, cancellation: Cancellation
) -> Representation:
    """The representation before the first step. Without the positions of a snapshot, the permutations are searched for."""
    request, tiles = plan.request, plan.tiles()
    if positions is None:
        with span("find paths"):
            positions = permutations(tiles, state_dict, request.permutation, request.path, cancellation)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(request.seed)
        return Representation.untrained(
            tiles,
            state_dict,
            plan.predictor,
            permutation=request.permutation,
            positions=positions,
            layer_scaling=request.layer_scaling,
        )
