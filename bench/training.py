"""How long does an optimizer step take, and how long does it take to reach an accuracy? The published recipe and ours.

python -m bench.training --checkpoints FOLDER --images FOLDER [--drop 5 2 1] [--minutes 30] [--quick]

The folders are those of bench.fidelity. Both recipes run one after the other. A training ends when its accuracy on the held-out
set is at most --drop points below that of the original network, or after --minutes. The time includes the evaluations. The
published recipe is `paper` with its defaults and 160 hidden units; ours is `decoupled` with as many parameters.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bench.fidelity import FILES, load, read_images
from bench.tables import DEVICE, DEVICE_NAME, Row, parser, progress, show
from nern.images import Images
from nern.layers import StateDict
from nern.network import Network
from nern.request import DecoupledRequest, PaperRequest, TrainingRequest
from nern.training import Progress, train

ARCHITECTURE = "cifar/resnet20"

RECIPES: dict[str, TrainingRequest] = {
    "paper": PaperRequest(hidden=160),
    "decoupled": DecoupledRequest(ratio=0.438),
}


class Enough(Exception):
    """Everything is measured, or the time is over."""


@dataclass
class Clock:
    """Records when each drop of accuracy is reached; ends the training after the last one, or when its time is over."""

    drops: list[float]
    seconds: float
    started: float = field(default_factory=time.monotonic)
    phases: dict[str, list[float]] = field(default_factory=dict)
    reached: dict[float, float] = field(default_factory=dict)
    drop: float | None = None

    def __call__(self, now: Progress) -> None:
        passed = time.monotonic() - self.started
        self.phases.setdefault(now.phase, []).append(passed)
        if now.evaluation and now.evaluation.comparison:
            self.drop = drop = now.evaluation.comparison.drop
            progress.print(f"{now.phase} {now.step}/{now.steps}: {drop:.2f} points lost after {passed:.0f} s", style="dim")
            for wanted in self.drops:
                if drop <= wanted:
                    self.reached.setdefault(wanted, passed)
        if len(self.reached) == len(self.drops) or passed > self.seconds:
            raise Enough

    def seconds_a_step(self, phase: str) -> float | None:
        """The median time between two steps. A median, because some steps are followed by an evaluation."""
        ends = torch.tensor(self.phases.get(phase, []))
        return ends.diff().median().item() if len(ends) > 1 else None


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--checkpoints", type=Path, required=True)
    arguments.add_argument("--images", type=Path, required=True)
    arguments.add_argument("--drop", type=float, nargs="+", default=[5, 2, 1], help="points of accuracy on the held-out set")
    arguments.add_argument("--minutes", type=float, default=30, help="for each recipe")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    state_dict = load(options.checkpoints / FILES[ARCHITECTURE])
    images = read_images(sorted(options.images.glob("cifar10-train-*.npz")))
    minutes = min(2.0, options.minutes) if options.quick else options.minutes
    rows: list[Row] = []
    for name, config in RECIPES.items():
        config = config.with_values({"seed": options.seed})
        if options.quick and isinstance(config, DecoupledRequest):
            config = config.with_values({"steps": 700})
        clock = Clock(sorted(options.drop, reverse=True), minutes * 60)
        measure(state_dict, images, config, clock)
        rows.append(
            {
                "recipe": name,
                "s a step of reconstruction": clock.seconds_a_step("reconstruction"),
                "s a step of distillation": clock.seconds_a_step("distillation"),
                **{f"min to -{wanted:g} points": minutes_to(clock, wanted) for wanted in clock.drops},
                "points lost": clock.drop,
                "after min": (time.monotonic() - clock.started) / 60,
            }
        )
    show(rows, f"{ARCHITECTURE}, accuracy on held-out images", options, device=DEVICE_NAME)


def measure(state_dict: StateDict, images: Images, config: TrainingRequest, clock: Clock) -> None:
    """Trains until the clock ends the training."""
    try:
        train(Network(state_dict, ARCHITECTURE), config, data=images, device=DEVICE, on_progress=clock)
    except Enough:
        return


def minutes_to(clock: Clock, drop: float) -> float | None:
    seconds = clock.reached.get(drop)
    return None if seconds is None else seconds / 60


if __name__ == "__main__":
    main()
