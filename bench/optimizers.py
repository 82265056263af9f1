"""Which optimizer reconstructs kernels fastest? One predictor for each optimizer, with the same seed, batches and steps.

python -m bench.optimizers CHECKPOINT [--steps 1000] [--quick]
"""

import time
from pathlib import Path

import torch

from bench.fidelity import load
from bench.tables import Row, parser, progress, show
from nern.layers import StateDict, find_layers
from nern.permutation import permutations
from nern.representation import Representation
from nern.training import DecoupledConfig, sampling
from nern.training.gradients import reconstruct
from nern.training.recipes import RELATIVE_RATE, cosine, muon
from nern.training.targets import Targets
from nern.training.train import evaluate

Optimizers = tuple[torch.optim.Optimizer, ...]


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("checkpoint", type=Path, help="a file that torch.save wrote")
    arguments.add_argument("--steps", type=int, default=1000)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    steps = min(options.steps, 300) if options.quick else options.steps
    state_dict = load(options.checkpoint)
    rows: list[Row] = []
    for name, rate in [("Adam", 2e-3), ("Adam", 5e-3), ("Adam", 1e-2), ("Muon", 4e-2), ("Muon", 1e-1)]:
        rows.append({"optimizer": name, "peak rate": rate, **fit(state_dict, name, rate, steps, options.seed)})
        progress.print(rows[-1])
    show(rows, f"{options.checkpoint.name}, {steps} steps of reconstruction", options)


def fit(state_dict: StateDict, name: str, rate: float, steps: int, seed: int) -> dict[str, float]:
    """The reconstruction phase of the decoupled recipe with another optimizer."""
    torch.manual_seed(seed)
    layers = find_layers(state_dict)
    config = DecoupledConfig(steps=steps, seed=seed).resolve(layers, distil=False)
    tiles = config.tiles(layers)
    positions = permutations(tiles, state_dict, config.permutation, config.path)
    representation = Representation.untrained(
        tiles,
        state_dict,
        config.predictor,
        permutation=config.permutation,
        positions=positions,
        layer_scaling=config.layer_scaling,
    )
    targets = Targets(representation, state_dict, torch.device("cpu"))
    batches = sampling.Shuffled(len(tiles), config.kernel_batch, seed)
    parameters = representation.predictor
    optimizers: Optimizers = muon(parameters) if name == "Muon" else (torch.optim.Adam(parameters.parameters()),)
    schedule = cosine(rate, steps, warm_up=steps // 50)
    started = time.monotonic()
    for step in range(steps):
        for optimizer in optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = schedule(step) * group.get(RELATIVE_RATE, 1.0)
        reconstruct(targets, batches.batch(step))
        for optimizer in optimizers:
            optimizer.step()
    seconds = time.monotonic() - started
    return {"relative error": evaluate(targets, None, steps).relative_error, "seconds": seconds}


if __name__ == "__main__":
    main()
