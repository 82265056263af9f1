"""How long does a step take, and how long an accuracy? The published recipe and ours, one after the other, in one run.

python -m bench.training --checkpoints FOLDER --images FOLDER [--agreement 0.9 0.95 0.97] [--minutes 30] [--quick]

Files are those of bench.fidelity. A recipe is trained until it agrees with the original network on so many of the held-out
images, or for as long as it may take; the time of the evaluations counts. The published recipe is `paper` with its own
defaults and h160, ours `decoupled` with as many parameters.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bench.fidelity import FILES, load, read_images
from bench.tables import Row, parser, progress, show
from nern.images import Images
from nern.layers import StateDict
from nern.training import Config, DecoupledConfig, PaperConfig, Progress, train

ARCHITECTURE = "cifar/resnet20"

RECIPES: dict[str, Config] = {
    "paper": PaperConfig(hidden=160),
    "decoupled": DecoupledConfig(ratio=0.438),
}


class Enough(Exception):
    """All that was to be measured has been."""


@dataclass
class Clock:
    """Notes when each agreement is reached; ends a training that has reached them all, or has no time left."""

    agreements: list[float]
    seconds: float
    started: float = field(default_factory=time.monotonic)
    phases: dict[str, list[float]] = field(default_factory=dict)
    reached: dict[float, float] = field(default_factory=dict)
    agreement: float | None = None

    def __call__(self, now: Progress) -> None:
        passed = time.monotonic() - self.started
        self.phases.setdefault(now.phase, []).append(passed)
        if now.evaluation and now.evaluation.comparison:
            self.agreement = agreement = now.evaluation.comparison.agreement
            progress.print(f"{now.phase} {now.step}/{now.steps}: {agreement:.1%} after {passed:.0f} s", style="dim")
            for wanted in self.agreements:
                if agreement >= wanted:
                    self.reached.setdefault(wanted, passed)
        if len(self.reached) == len(self.agreements) or passed > self.seconds:
            raise Enough

    def seconds_a_step(self, phase: str) -> float | None:
        """The median time from one step to the next, which evaluations do not change."""
        ends = torch.tensor(self.phases.get(phase, []))
        return ends.diff().median().item() if len(ends) > 1 else None


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--checkpoints", type=Path, required=True)
    arguments.add_argument("--images", type=Path, required=True)
    arguments.add_argument("--agreement", type=float, nargs="+", default=[0.9, 0.95, 0.97], help="with the original network")
    arguments.add_argument("--minutes", type=float, default=30, help="for each recipe")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    state_dict = load(options.checkpoints / FILES[ARCHITECTURE])
    images = read_images(sorted(options.images.glob("cifar10-train-*.npz")))
    minutes = min(2.0, options.minutes) if options.quick else options.minutes
    rows: list[Row] = []
    for name, config in RECIPES.items():
        config = config.model_copy(update={"seed": options.seed})
        if options.quick and isinstance(config, DecoupledConfig):
            config = config.model_copy(update={"steps": 700})
        clock = Clock(sorted(options.agreement), minutes * 60)
        measure(state_dict, images, config, clock)
        rows.append(
            {
                "recipe": name,
                "s a step of reconstruction": clock.seconds_a_step("reconstruction"),
                "s a step of distillation": clock.seconds_a_step("distillation"),
                **{f"min to {wanted:.0%} agreement": minutes_to(clock, wanted) for wanted in clock.agreements},
                "reached": clock.agreement,
                "after min": (time.monotonic() - clock.started) / 60,
            }
        )
    show(rows, f"{ARCHITECTURE}, agreement with the original on held-out images", options)


def measure(state_dict: StateDict, images: Images, config: Config, clock: Clock) -> None:
    """Trains until the clock says that it is enough."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        train(state_dict, config, architecture=ARCHITECTURE, data=images, device=device, on_progress=clock)
    except Enough:
        return


def minutes_to(clock: Clock, agreement: float) -> float | None:
    seconds = clock.reached.get(agreement)
    return None if seconds is None else seconds / 60


if __name__ == "__main__":
    main()
