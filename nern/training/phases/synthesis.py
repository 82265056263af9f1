"""The synthesis phase: making the images of matched noise, one group after the other."""

import torch

from nern.randomness import generator
from nern.request.phases import Synthesis
from nern.synthesis import ImagePool, follow_statistics
from nern.training.optimizers import Optimizers
from nern.training.phases.base import Losses, Phase, Setting
from nern.training.teacher import Teacher


class SynthesisPhase(Phase[Synthesis]):
    """Changes the images of one group at a time with Adam. Groups without a gradient in a step do not change."""

    def __init__(self, plan: Synthesis, setting: Setting) -> None:
        super().__init__(plan, setting)
        assert isinstance(setting.teacher, Teacher)
        assert isinstance(setting.teacher.images, ImagePool)
        self._network, self._pool = setting.teacher.network, setting.teacher.images
        self._optimizer = torch.optim.Adam(self._pool.parameters())

    def begin(self, optimizers: Optimizers) -> Optimizers:
        return (self._optimizer,)

    def learning_rate(self, step: int) -> float:
        return self.plan.learning_rate(step % self.plan.group_steps)

    def gradients(self, step: int) -> Losses:
        group = step // self.plan.group_steps
        if group:
            # The moments that Adam keeps for a group take twice the memory of its images. A finished group needs none.
            for finished in self._pool.group(group - 1):
                self._optimizer.state.pop(finished, None)
        return follow_statistics(self._network, self._pool, group, generator(self.setting.seed, "synthesis", step))

    def suspect(self) -> str:
        """The images are what this phase trains."""
        return "the synthesised images diverged"
